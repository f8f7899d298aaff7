"""Server processes: started on one CPU, watched, and ended.

Only what was started here is ever signalled. The file must never know which
server it runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ROOT", "CannotMeasure", "Process", "free_port", "running"]

_START_SECONDS = 20.0
_STOP_SECONDS = 3.0
#: The root of this checkout.
ROOT = Path(__file__).parent.parent


class CannotMeasure(Exception):
    """There is no figure, and the message says why."""


class Process:
    """A server and the processes it has started.

    Attributes:
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, leader: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._leader = leader
        self._log = log
        self.port = port

    def alive(self) -> bool:
        """Whether the process that was started is there."""
        return self._leader.poll() is None

    def last_words(self) -> str:
        """The last line it has printed that is not empty."""
        with open(self._log, "rb") as log:
            log.seek(max(0, self._log.stat().st_size - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def rss_bytes(self) -> int:
        """Resident memory of all its processes together, in bytes."""
        pages = 0
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """CPU time that all its processes together have used so far."""
        seconds = 0.0
        for pid in self._pids():
            # The id of its CPU-time clock, as in clock_getcpuclockid(3). It counts
            # nanoseconds; /proc/PID/stat counts in steps of 10 ms.
            with contextlib.suppress(OSError):
                seconds += time.clock_gettime((~pid << 3) | 2)
        return seconds

    def _pids(self) -> list[int]:
        """Return the ids of its processes: those in the group made for it."""
        pids = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(ProcessLookupError):
                if name.isdecimal() and os.getpgid(int(name)) == self._leader.pid:
                    pids.append(int(name))
        return pids

    def wait_until_listening(self) -> None:
        """Return when the port takes connections.

        Raises:
            CannotMeasure: it ended, or did not listen in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if not self.alive():
                raise CannotMeasure(f"did not start: {self.last_words()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise CannotMeasure(f"did not listen within {_START_SECONDS:.0f} s")

    def stop(self) -> None:
        """End it, and what is left of what it has started."""
        self._leader.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(_STOP_SECONDS)  # the next signal cannot be ignored
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._leader.pid, signal.SIGKILL)
        self._leader.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    cpu: int,
    variables: Mapping[str, str],
    root: Path = ROOT,
) -> Iterator[Process]:
    """A server that listens on `port`, pinned to `cpu`, ended on the way out.

    Args:
        command: its words.
        port: the one that the words tell it to listen on.
        cpu: where it and its threads and children run.
        variables: added to its environment.
        root: the checkout that it imports from and runs in.

    Raises:
        CannotMeasure: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        log = Path(directory) / "output"
        with open(log, "wb") as output:
            leader = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(root), **variables},
                start_new_session=True,
                # Before exec, so that there is no thread it could miss.
                preexec_fn=functools.partial(os.sched_setaffinity, 0, {cpu}),
            )
        process = Process(leader, port, log)
        try:
            process.wait_until_listening()
            yield process
        finally:
            process.stop()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing uses.

    Below the range that outgoing connections take theirs from: a connection
    tried there before the server listens can meet itself and succeed.

    Raises:
        CannotMeasure: none was found.
    """
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CannotMeasure("found no free port between 20000 and 32000")
