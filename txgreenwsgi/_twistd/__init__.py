"""THE COMMAND: `twistd greenwsgi` and `twist greenwsgi`.

This room turns a command line into a service. It knows twistd, signals and
files; it must never know greenlets, the wire or PEP 3333. It is the only room
that may name `twisted.internet.reactor`, and does so no sooner than the
service starts: twistd chooses the reactor, and forks, between reading the
options and that moment.
"""
