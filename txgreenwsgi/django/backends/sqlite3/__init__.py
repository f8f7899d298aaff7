"""SQLite with a dedicated thread per connection and a connection pool."""
