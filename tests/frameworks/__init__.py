"""Web frameworks on the server: per-request state is isolated between requests."""
