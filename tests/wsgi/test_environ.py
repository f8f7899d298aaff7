"""What is the same in the environ of every request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import txgreenwsgi
from txgreenwsgi._wsgi.environ import EXTENSIONS, base_environ
from txgreenwsgi._wsgi.files import FileWrapper


class BaseEnvironTests(SynchronousTestCase):
    """`base_environ`."""

    def test_required_keys(self) -> None:
        """The keys that PEP 3333 requires and no request changes."""
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

    def test_deployers_pairs(self) -> None:
        """What the deployer gives is there, in the place of what the server gives."""
        environ = base_environ("software", True, [("SCRIPT_NAME", "/app"), ("X", "1")])
        self.assertEqual(environ["SCRIPT_NAME"], "/app")
        self.assertEqual(environ["X"], "1")

    def test_extensions(self) -> None:
        """The server's functions are those of the package, under the same names."""
        environ = base_environ("", True)
        for key in EXTENSIONS:
            prefix, _, name = key.partition(".")
            self.assertEqual(prefix, "txgreenwsgi")
            self.assertIs(environ[key], getattr(txgreenwsgi, name))

    def test_own_dict(self) -> None:
        """Each call makes a new one: nobody can change another's."""
        base_environ("", True)["mine"] = 1
        self.assertNotIn("mine", base_environ("", True))
