"""Tests with real processes and real sockets: the behaviour that a user sees."""

from __future__ import annotations

import os

# Clients read these, and would connect to another server or through a proxy instead
# of to the server that a test has started.
for _name in list(os.environ):
    if _name.startswith(("PG", "MYSQL_")):
        del os.environ[_name]
for _name in ("no_proxy", "NO_PROXY"):
    _direct = os.environ.get(_name, "").split(",")
    os.environ[_name] = ",".join(
        filter(None, dict.fromkeys((*_direct, "127.0.0.1", "localhost")))
    )
