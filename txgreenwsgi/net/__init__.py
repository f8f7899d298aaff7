r"""Connections with a blocking interface that parks the task.

`connect` and `listen` take any Twisted endpoint, TLS, UNIX sockets and plug-ins
included, and return connections with the methods of a binary file and of a socket.
So csv, json, http.client, smtplib and any parser that reads from a file work over
Twisted's transports, and park the task instead of blocking the process.

    connection = net.connect("tcp:localhost:6379", timeout=5)
    connection.write(b"PING\r\n")
    print(connection.readline())

This package knows transports and tasks. It must never know HTTP or the server.
"""

from .connection import BUFFER_BYTES, Connection
from .endpoints import Listener, connect, listen

__all__ = ["BUFFER_BYTES", "Connection", "Listener", "connect", "listen"]
