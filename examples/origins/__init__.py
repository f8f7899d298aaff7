"""Programs for the proposals and servers that this server grew from."""
