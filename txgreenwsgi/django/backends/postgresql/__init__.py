"""PostgreSQL by psycopg 3 or psycopg2, with a connection pool."""
