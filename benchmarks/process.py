"""Server processes: start them on one CPU, measure and stop them.

Only processes started here are signalled. This file must never know which server
it runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["ROOT", "CannotMeasure", "Process", "free_port", "running"]

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.M)
_START_SECONDS = 20.0
_STOP_SECONDS = 3.0
#: A server is idle if it uses less than this share of a CPU in each of
#: `_QUIET_INTERVALS` intervals in a row.
_IDLE_SHARE = 0.03
_IDLE_INTERVAL = 0.5
_QUIET_INTERVALS = 4
#: The root of this checkout.
ROOT = Path(__file__).parent.parent


class CannotMeasure(Exception):
    """A measurement failed; the message gives the reason."""


class Process:
    """A server and its child processes.

    Attributes:
        port: its port on 127.0.0.1.
    """

    def __init__(self, leader: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._leader = leader
        self._log = log
        self.port = port

    def alive(self) -> bool:
        """Return whether the first process is still running."""
        return self._leader.poll() is None

    def last_words(self) -> str:
        """Return the last non-empty line of its output."""
        with open(self._log, "rb") as log:
            log.seek(max(0, self._log.stat().st_size - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def rss_bytes(self) -> int:
        """Return the resident memory of all its processes, in bytes."""
        pages = 0
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> None:
        """Let `peak_bytes` begin with the present memory."""
        for pid in self.pids():
            # proc(5): resets the peak of the resident set size.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Return the sum of the greatest resident memory of its processes, in bytes."""
        kibibytes = 0
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                status = Path(f"/proc/{pid}/status").read_text()
                if peak := _PEAK.search(status):  # not in a zombie
                    kibibytes += int(peak[1])
        return kibibytes * 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time that all its processes have used so far."""
        seconds = 0.0
        for pid in self.pids():
            # The id of its CPU-time clock, as in clock_getcpuclockid(3). It counts
            # nanoseconds; /proc/PID/stat counts in steps of 10 ms.
            with contextlib.suppress(OSError):
                seconds += time.clock_gettime((~pid << 3) | 2)
        return seconds

    def pids(self) -> list[int]:
        """Return the ids of its processes: the members of its process group."""
        pids = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(ProcessLookupError):
                if name.isdecimal() and os.getpgid(int(name)) == self._leader.pid:
                    pids.append(int(name))
        return pids

    def wait_until_listening(self) -> None:
        """Wait until the port accepts connections.

        Raises:
            CannotMeasure: the server ended or did not listen in time.
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

    def wait_until_idle(self) -> None:
        """Wait until its processes use no CPU time: all workers have started.

        Raises:
            CannotMeasure: they are busy for too long.
        """
        deadline = time.monotonic() + 3 * _START_SECONDS
        quiet = 0
        before = self.cpu_seconds()
        while quiet < _QUIET_INTERVALS:
            if time.monotonic() > deadline:
                raise CannotMeasure("its processes do not become idle")
            time.sleep(_IDLE_INTERVAL)
            now = self.cpu_seconds()
            quiet = quiet + 1 if now - before < _IDLE_SHARE * _IDLE_INTERVAL else 0
            before = now

    def stop(self) -> None:
        """Stop the server and its remaining children."""
        self._leader.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(_STOP_SECONDS)  # SIGKILL follows
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._leader.pid, signal.SIGKILL)
        self._leader.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    cpu: int | Collection[int],
    variables: Mapping[str, str],
    root: Path = ROOT,
) -> Iterator[Process]:
    """Run a server that listens on `port`, pinned to `cpu`; stop it on exit.

    Args:
        command: the words of its command line.
        port: the port that the command line tells it to listen on.
        cpu: the CPU, or CPUs, of the server, its threads and its children.
        variables: added to its environment.
        root: the checkout that it imports from and runs in.

    Raises:
        CannotMeasure: the server did not start.
    """
    cpus = {cpu} if isinstance(cpu, int) else cpu
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
                # Before exec, so that every thread inherits it.
                preexec_fn=functools.partial(os.sched_setaffinity, 0, cpus),
            )
        process = Process(leader, port, log)
        try:
            process.wait_until_listening()
            yield process
        finally:
            process.stop()


def free_port() -> int:
    """Return an unused port of 127.0.0.1.

    It is below the ephemeral range: a connection attempt to an ephemeral port that
    is not listening yet can connect to itself.

    Raises:
        CannotMeasure: no port was found.
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
