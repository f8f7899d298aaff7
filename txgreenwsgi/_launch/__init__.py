"""The start of a server: application names and patching.

The command and `txgreenwsgi.service` share this package, so that both report a
mistake with the same message. It knows names and the order of a start (patch the
standard library, then import the application). It must never know options,
signals or requests.
"""
