"""The plugin that adds the command `greenwsgi` to twistd and twist.

Every twistd on the machine loads this file, so it does not import txgreenwsgi: the
options and the service are imported by name when the command is used.
"""

from twisted.application.service import ServiceMaker

greenwsgi = ServiceMaker(
    "greenwsgi",
    "txgreenwsgi._twistd.service",
    "Serve a WSGI application, each request in its own greenlet on the reactor.",
    "greenwsgi",
)
