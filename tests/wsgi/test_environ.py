"""Tests of `txgreenwsgi._wsgi.environ`: the environ that all requests share."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import txgreenwsgi
from txgreenwsgi._wsgi.environ import EXTENSIONS, base_environ
from txgreenwsgi._wsgi.files import FileWrapper


class BaseEnvironTests(SynchronousTestCase):
    """`base_environ`."""

    def test_prefix(self) -> None:
        """The prefix is SCRIPT_NAME: its bytes, decoded as latin-1."""
        self.assertEqual(base_environ("", True, (), "/app")["SCRIPT_NAME"], "/app")
        encoded = base_environ("", True, (), "/caf\xe9")["SCRIPT_NAME"]
        self.assertEqual(encoded, "/caf\xc3\xa9")

    def test_required_keys(self) -> None:
        """The keys that PEP 3333 requires and that are constant are present."""
        environ = base_environ("software", multithread=True)
        self.assertIs(type(environ), dict)
        self.assertEqual(environ["SERVER_SOFTWARE"], "software")
        self.assertEqual(environ["SCRIPT_NAME"], "")
        self.assertEqual(environ["wsgi.version"], (1, 0))
        self.assertIs(environ["wsgi.multithread"], True)
        self.assertIs(environ["wsgi.multiprocess"], False)
        self.assertIs(environ["wsgi.run_once"], False)
        self.assertIs(environ["wsgi.file_wrapper"], FileWrapper)
        self.assertIs(environ["wsgi.input_terminated"], True)
        self.assertIs(base_environ("", False)["wsgi.multithread"], False)

    def test_configured_pairs(self) -> None:
        """Variables from the configuration are added and override the server's."""
        environ = base_environ("software", True, [("SERVER_SOFTWARE", "s"), ("X", "1")])
        self.assertEqual(environ["SERVER_SOFTWARE"], "s")
        self.assertEqual(environ["X"], "1")

    def test_extensions(self) -> None:
        """The functions in the environ are the package's public ones of that name."""
        environ = base_environ("", True)
        for key in EXTENSIONS:
            prefix, _, name = key.partition(".")
            self.assertEqual(prefix, "txgreenwsgi")
            self.assertIs(environ[key], getattr(txgreenwsgi, name))

    def test_own_dict(self) -> None:
        """Each call returns a new dict: changes to one do not affect another."""
        base_environ("", True)["mine"] = 1
        self.assertNotIn("mine", base_environ("", True))
