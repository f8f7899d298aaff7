"""One request and its response, independent of the transport.

`exchange.py` holds the lifecycle of one request; `stream.py` is the port through
which it reaches the client. This room knows tasks and the gateway. It must never
know a transport or an HTTP version.
"""
