"""Django's database backends with a bounded connection pool for tasks."""
