"""Frameworks on the server: what they keep for a request stays that request's."""
