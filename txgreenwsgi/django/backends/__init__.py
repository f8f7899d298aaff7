"""Django's database backends, with a bounded pool of connections for tasks."""
