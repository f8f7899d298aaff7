"""TWISTED. The only room that owns a transport.

Read `channel.py` first (one connection), then `exchange.py` (one request and its
response), `output.py` (bytes out), `site.py` (the factory: what connections
share) and `service.py` (listening, and stopping well).
"""
