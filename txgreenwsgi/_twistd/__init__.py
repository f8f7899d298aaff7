"""The command: `twistd greenwsgi` and `twist greenwsgi`.

This package turns a command line into a service. It knows twistd, signals and files;
it must never know greenlets, the wire or PEP 3333. It imports
`twisted.internet.reactor` when the service starts, and no sooner: twistd chooses the
reactor, and forks, between parsing the options and that moment.
"""
