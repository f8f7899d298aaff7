"""MariaDB and MySQL by PyMySQL, with a connection pool."""
