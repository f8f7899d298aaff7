"""A bank: a Django project for tests, on whatever database the environment names."""
