"""The configuration of the command."""
