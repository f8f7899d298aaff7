"""Real processes, real sockets: what a user would see. The only tests that have any."""
