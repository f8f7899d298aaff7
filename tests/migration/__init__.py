"""Configurations of other servers."""
