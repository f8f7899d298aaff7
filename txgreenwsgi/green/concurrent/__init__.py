"""Green `concurrent`: the package of `futures`."""
