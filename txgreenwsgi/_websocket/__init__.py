"""WebSocket (RFC 6455) on the byte stream of an upgraded request.

This room knows the WebSocket protocol and tasks. It must never know HTTP versions,
transports or the server. Only `connection.py` and `frames.py` import wsproto, which
is an extra: `pip install "txgreenwsgi[websocket]"`.
"""
