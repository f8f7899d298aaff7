"""What a killed server leaves beside a UNIX socket, and what must stay."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from txgreenwsgi._server import stale_sockets
from txgreenwsgi._server.stale_sockets import is_served, remove_stale, starting_at

if TYPE_CHECKING:
    from pathlib import Path


class StaleSocketTests(SynchronousTestCase):
    """`remove_stale`."""

    def setUp(self) -> None:
        """Choose a path."""
        self.folder = short_folder(self)
        self.path = self.folder / "web"
        self.lock = self.folder / "web.lock"

    def bound(self, backlog: int | None = 1, kind: int = socket.SOCK_STREAM) -> None:
        """Bind a socket to the path that stays open until the end of the test."""
        sock = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(sock.close)
        sock.bind(str(self.path))
        if backlog is not None:
            sock.listen(backlog)

    def stale(self) -> None:
        """Leave a socket at the path on which no process listens."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(self.path))
            sock.listen(1)

    def remove(self, *, with_lock: bool = True) -> None:
        """Remove what is stale."""
        remove_stale(str(self.path), with_lock=with_lock)

    def refused(self, number: int) -> None:
        """Nothing is removed, with this error."""
        before = sorted(os.listdir(self.folder))
        error = self.assertRaises(OSError, self.remove)
        self.assertEqual(error.errno, number)
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_nothing(self) -> None:
        """Without files, nothing happens."""
        self.remove()
        self.assertEqual(os.listdir(self.folder), [])

    def test_stale(self) -> None:
        """A socket on which no process listens is removed."""
        self.stale()
        self.remove()
        self.assertFalse(self.path.exists())

    def test_lock_of_a_live_pid(self) -> None:
        """A lock is removed whatever its pid is: that of this process, or none."""
        for pid in (str(os.getpid()), str(os.getppid()), "999999999", "no pid"):
            self.stale()
            self.lock.symlink_to(pid)
            self.remove()
            self.assertEqual(os.listdir(self.folder), [])

    def test_lock_without_a_socket(self) -> None:
        """A lock without a socket is removed too."""
        self.lock.symlink_to("1")
        self.remove()
        self.assertEqual(os.listdir(self.folder), [])

    def test_lock_of_another(self) -> None:
        """The lock stays if the endpoint uses none, and if it is not a link."""
        self.lock.symlink_to("1")
        self.remove(with_lock=False)
        self.assertTrue(self.lock.is_symlink())
        self.lock.unlink()
        self.lock.write_text("data")
        self.remove()
        self.assertTrue(self.lock.exists())

    def test_served(self) -> None:
        """The socket and the lock of a live server stay."""
        self.bound()
        self.lock.symlink_to("999999999")
        self.refused(errno.EADDRINUSE)

    def test_busy_server(self) -> None:
        """A server with a full backlog is alive."""
        self.bound(backlog=0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in clients:
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(str(self.path))
        self.assertTrue(is_served(str(self.path)))
        self.refused(errno.EADDRINUSE)

    def test_datagrams(self) -> None:
        """A process that receives datagrams owns its socket."""
        self.bound(None, socket.SOCK_DGRAM)
        self.refused(errno.EADDRINUSE)

    def test_other_files(self) -> None:
        """A file, a directory and a link are not removed."""
        self.path.write_text("data")
        self.refused(errno.EEXIST)
        self.path.unlink()
        self.path.mkdir()
        self.refused(errno.EEXIST)
        self.path.rmdir()
        self.path.symlink_to("elsewhere")
        self.refused(errno.EEXIST)

    def test_unknown(self) -> None:
        """A socket that this user may not connect to stays."""
        self.stale()

        def refused_by_system(_path: str) -> bool:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(stale_sockets, "is_served", refused_by_system)
        self.refused(errno.EACCES)

    def test_replaced_meanwhile(self) -> None:
        """A socket that appears between check and removal stays."""
        self.stale()

        def replaced(path: str) -> bool:
            os.rename(path, f"{path}.old")
            self.bound()
            return False

        self.patch(stale_sockets, "is_served", replaced)
        self.remove()
        self.patch(stale_sockets, "is_served", is_served)
        self.assertTrue(is_served(str(self.path)))


class StartLockTests(SynchronousTestCase):
    """`starting_at`."""

    def locked(self, folder: Path) -> bool:
        """Return whether another process could not lock the folder."""
        other = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(other)
        return False

    def test_lock(self) -> None:
        """The directory is locked inside, and leaves no file."""
        folder = short_folder(self)
        with starting_at(str(folder / "web")):
            self.assertTrue(self.locked(folder))
        self.assertFalse(self.locked(folder))
        self.assertEqual(os.listdir(folder), [])

    def test_locked_by_another(self) -> None:
        """A directory that stays locked delays the start, and does not prevent it."""
        folder = short_folder(self)
        times = iter([0.0, 0.0, 1.0, 3.0])
        slept: list[float] = []
        self.patch(stale_sockets, "monotonic", lambda: next(times))
        self.patch(stale_sockets, "sleep", slept.append)
        with starting_at(str(folder / "a")), starting_at(str(folder / "b")):
            self.assertEqual(len(slept), 1)

    def test_no_directory(self) -> None:
        """A directory that cannot be read is not locked."""
        with starting_at("/nonexistent/web"):
            pass
