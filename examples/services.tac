"""A web application and a TCP chat in one process; chat.py defines both.

Run it from the root of a checkout, then use both sides::

    twistd -ny examples/services.tac
    telnet localhost 8023            # the first line is your name
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

# `twistd -y` does not put the checkout on the module search path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import txgreenwsgi  # noqa: E402
from examples.chat import ChatFactory, Room, make_app  # noqa: E402

chat_endpoint = os.environ.get("CHAT_ENDPOINT", "tcp:8023:interface=127.0.0.1")
web_endpoint = os.environ.get("WEB_ENDPOINT", "tcp:8080:interface=127.0.0.1")

room = Room()
application = Application("chat")

StreamServerEndpointService(
    serverFromString(reactor, chat_endpoint), ChatFactory(room)
).setServiceParent(application)

# The application waits by `txgreenwsgi.wait` only and needs no patched standard
# library. An open event stream would use up any grace period, so it is short.
txgreenwsgi.service(
    make_app(room), listen=[web_endpoint], patch="none", graceful_timeout=2.0
).setServiceParent(application)
