"""WSGI applications under twisted.web; twisted_web.py defines the resource tree.

Run it from the root of a checkout::

    twistd -ny examples/twisted_web.tac
    curl http://localhost:8080/clock http://localhost:8080/flask/json

The environment variable WEB_ENDPOINT overrides the port.
"""

import os
import sys
from pathlib import Path

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.server import Site

# `twistd -y` does not put the checkout on the module search path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Patch the standard library before the applications are imported.
from txgreenwsgi import monkey  # noqa: E402

monkey.patch_all()

from examples.twisted_web import make_root  # noqa: E402

endpoint = os.environ.get("WEB_ENDPOINT", "tcp:8080:interface=127.0.0.1")

application = Application("web")
StreamServerEndpointService(
    serverFromString(reactor, endpoint), Site(make_root())
).setServiceParent(application)
