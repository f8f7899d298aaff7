"""The chat of websocket_chat.py, with a TCP port in the same process.

Run it from the root of a checkout::

    twistd -ny examples/websocket_chat.tac
    telnet localhost 8023
    # and open http://localhost:8080/ in a browser

The environment variables CHAT_ENDPOINT and WEB_ENDPOINT override the ports.
"""

import os
import sys
from pathlib import Path

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

import txgreenwsgi
from txgreenwsgi.monkey import patch_all

# Before the import of the application, whose queues and sockets shall park.
patch_all()

# `twistd -y` does not put the checkout on the module search path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.websocket_chat import ChatFactory, app, room  # noqa: E402

chat_endpoint = os.environ.get("CHAT_ENDPOINT", "tcp:8023:interface=127.0.0.1")
web_endpoint = os.environ.get("WEB_ENDPOINT", "tcp:8080:interface=127.0.0.1")

application = Application("chat")

StreamServerEndpointService(
    serverFromString(reactor, chat_endpoint), ChatFactory(room)
).setServiceParent(application)

txgreenwsgi.service(app, listen=[web_endpoint], graceful_timeout=2.0).setServiceParent(
    application
)
