"""A pooled backend for tests, which needs neither a server nor threads."""
