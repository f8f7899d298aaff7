"""The parts of the gunicorn worker class: configuration, logs, requests for hooks.

This package knows gunicorn's interfaces, by name and shape; it imports gunicorn only
to compare a configuration with the defaults. It must never know processes or signals.
"""
