"""SQLite, each connection in a thread of its own, with a pool."""
