"""Green `concurrent`: see `futures`."""
