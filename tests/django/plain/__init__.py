"""A pooled database backend for tests that needs no server and no threads."""
