"""Transports of Twisted: connections, listening and the service.

The only room that owns a transport; it must never know the application. Read
`h1_channel.py` first (one connection), then `output.py` (sending), `sockets.py`
(polling), `site.py` (the factory) and `service.py` (start and shutdown).
"""
