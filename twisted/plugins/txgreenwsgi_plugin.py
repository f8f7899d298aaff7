"""Names `greenwsgi` to twistd and twist.

Every twistd on the machine loads this file: it imports nothing of ours, and
the options and the service are found by name when the command is used.
"""

from twisted.application.service import ServiceMaker

greenwsgi = ServiceMaker(
    "greenwsgi",
    "txgreenwsgi._twistd.service",
    "Serve a WSGI application, each request in a greenlet on the reactor.",
    "greenwsgi",
)
