"""What a master passes on to its workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from tests.server.logged import Logged
from txgreenwsgi._tls import stored
from txgreenwsgi._tls.errors import TLSError
from txgreenwsgi._tls.files import pem_paths, read_file
from txgreenwsgi._tls.listener import TLSListener
from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi._tls.renewal import Renewal
from txgreenwsgi._tls.stored import SECRET_BYTES, Stored, adopt_stored, store

from .test_certificates import CA, INTERMEDIATE, FilesTestCase


class StoredTests(FilesTestCase):
    """The descriptor of a master, in its workers."""

    def setUp(self) -> None:
        """Forget the descriptor after each test."""
        super().setUp()
        before = stored.stored()
        self.addCleanup(stored.use, before)
        self.unreadable: set[str] = set()
        original = os.open

        def opened(path: Any, *arguments: Any, **keywords: Any) -> int:
            if path in self.unreadable:
                raise PermissionError(13, "Permission denied")
            return original(path, *arguments, **keywords)

        self.patch(os, "open", opened)

    def store(self, user: int, *options: TLSOptions) -> int:
        """Return the descriptor of a master."""
        self.patch(os, "geteuid", lambda: user)
        fd = store(options)
        self.addCleanup(os.close, fd)
        return fd

    def test_secret(self) -> None:
        """All workers of a master get its secret, and no child inherits it."""
        first, second = self.store(1000), self.store(1000)
        secrets = []
        for fd in (first, first, second):
            adopt_stored(fd)
            secrets.append(stored.stored().secret)
            self.assertFalse(os.get_inheritable(fd))
        self.assertEqual(len(secrets[0]), SECRET_BYTES)
        self.assertEqual(secrets[0], secrets[1])
        self.assertNotEqual(secrets[0], secrets[2])

    def test_not_privileged(self) -> None:
        """A master that is not root passes on no files."""
        cert, key = CA.issue("a.test").write(self.directory)
        adopt_stored(self.store(1000, TLSOptions(cert=cert, key=key)))
        self.assertEqual(stored.stored().files, {})

    def test_files(self) -> None:
        """A worker that may not read a file gets the copy of the master."""
        cert, key = CA.issue("a.test").write(self.directory)
        ca = self.write("ca.pem", CA.pem)
        adopt_stored(self.store(0, TLSOptions(cert=cert, key=key, client_ca=ca)))
        self.assertEqual(set(stored.stored().files), {cert, key, ca})
        self.unreadable = {cert, key, ca}
        tls = TLSListener(TLSOptions(cert=cert, key=key, client_ca=ca), [], Clock())
        self.assertEqual(tls.load().certificates.default.names, ("a.test",))

    def test_readable_file(self) -> None:
        """A file that can be read wins over its copy, which may be older."""
        cert, key = CA.issue("a.test").write(self.directory)
        adopt_stored(self.store(0, TLSOptions(cert=cert, key=key)))
        CA.issue("new.test").write(self.directory)
        tls = TLSListener(TLSOptions(cert=cert, key=key), [], Clock())
        self.assertEqual(tls.load().certificates.default.names, ("new.test",))

    def test_directory(self) -> None:
        """So does a directory, if even its names cannot be read."""
        INTERMEDIATE.issue("a.test").write(self.directory)
        options = TLSOptions(dir=str(self.directory))
        adopt_stored(self.store(0, options))
        paths = set(stored.stored().files)
        self.assertEqual({Path(path).name for path in paths}, {"site.crt", "site.key"})
        self.unreadable = paths

        def refused(path: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "scandir", refused)
        tls = TLSListener(options, [], Clock())
        self.assertEqual(tls.load().certificates.default.names, ("a.test",))
        other = f"{self.directory}x"
        os.mkdir(other)
        self.assertRaises(TLSError, pem_paths, other, "x", [], stored.stored().files)

    def test_renewal(self) -> None:
        """A renewal does not use copies: it is reported that a restart is necessary."""
        cert, key = CA.issue("a.test").write(self.directory)
        adopt_stored(self.store(0, TLSOptions(cert=cert, key=key)))
        self.unreadable = {key}
        clock = Clock()
        tls = TLSListener(TLSOptions(cert=cert, key=key), [], clock)
        tls.use(tls.load())
        logged = Logged(self)
        watching = Renewal(tls, clock)
        watching.start()
        self.addCleanup(watching.stop)
        [line] = logged.lines()
        self.assertIn("cannot be read (Permission denied)", line)
        self.assertIn("restart it after each renewal", line)

    def test_missing_files(self) -> None:
        """Files that the master cannot read are left out; the worker reports them."""
        options = TLSOptions(cert="/no/cert.pem", dir="/no/such")
        adopt_stored(self.store(0, options))
        self.assertEqual(stored.stored().files, {})
        error = self.assertRaises(
            TLSError, read_file, "/no/cert.pem", "it", stored.stored().files
        )
        self.assertTrue(error.unreadable)

    def test_invalid(self) -> None:
        """A descriptor with another content is refused."""
        fd = os.open(self.write("x", b"nonsense"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertRaises(ValueError, adopt_stored, fd)
        self.assertNotIn("nonsense", repr(Stored(b"nonsense", {"a": b"nonsense"})))
