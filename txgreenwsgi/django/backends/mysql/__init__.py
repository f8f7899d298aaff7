"""MariaDB and MySQL, by PyMySQL, with a pool."""
