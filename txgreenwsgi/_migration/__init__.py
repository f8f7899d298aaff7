"""Configurations of other servers, translated into a file of this server.

It knows the options of gunicorn by name and meaning. It must never import gunicorn, and
never serve anything.
"""
