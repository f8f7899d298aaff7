r"""Connections that a task reads and writes as if they blocked.

`connect` and `listen` take any Twisted endpoint, TLS, UNIX sockets and plug-ins
included, and give connections with the methods of a file and what a socket has
beside them: so the csv module, json, http.client, smtplib and every parser that
was written for a file work over Twisted's transports, and park the task instead
of the process.

    connection = net.connect("tcp:localhost:6379", timeout=5)
    connection.write(b"PING\r\n")
    print(connection.readline())

This package knows transports and tasks. It must never know HTTP, nor the server.
"""

from .connection import BUFFER_BYTES, Connection
from .endpoints import Listener, connect, listen

__all__ = ["BUFFER_BYTES", "Connection", "Listener", "connect", "listen"]
