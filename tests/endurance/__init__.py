"""What only shows after a long time, or under a crowd: memory, leftovers, limits."""
