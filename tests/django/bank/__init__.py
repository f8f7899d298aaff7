"""A bank: a Django project for tests; the environment selects the database."""
