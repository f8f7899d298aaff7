"""An application that is served in threads and in tasks at the same time.

Paths under /t/ are meant for threads, the same paths under /g/ for tasks. It uses the
standard library as any application does.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import txgreenwsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["app"]

lock = threading.Lock()
rlock = threading.RLock()
condition = threading.Condition()
semaphore = threading.BoundedSemaphore(3)
items: queue.Queue[str] = queue.Queue()
simple: queue.SimpleQueue[str] = queue.SimpleQueue()
event = threading.Event()
local = threading.local()
variable: ContextVar[str] = ContextVar("variable", default="unset")
executor = ThreadPoolExecutor(4)
counts = {"balance": 0, "condition": 0, "most": 0, "inside": 0}
closed: list[str] = []
log = logging.getLogger("threads_app")


def _text(start: StartResponse, text: object) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"{text}\n".encode()]


def _kind(environ: WSGIEnvironment) -> str:
    return "task" if txgreenwsgi.current_task() is not None else "thread"


def kind(environ: WSGIEnvironment) -> object:
    """Return where the view runs."""
    return _kind(environ)


def bank(environ: WSGIEnvironment) -> object:
    """Withdraw and deposit, with a wait between the read and the write."""
    for _ in range(5):
        with lock:
            balance = counts["balance"]
            time.sleep(0.001)
            counts["balance"] = balance + 1
    with rlock, rlock:
        balance = counts["balance"]
    return balance


def get(environ: WSGIEnvironment) -> object:
    """Take an item from the queue."""
    return items.get(timeout=20)


def put(environ: WSGIEnvironment) -> object:
    """Put an item into the queue."""
    items.put("item")
    return "put"


def get_simple(environ: WSGIEnvironment) -> object:
    """Take an item from the simple queue."""
    return simple.get(timeout=20)


def put_simple(environ: WSGIEnvironment) -> object:
    """Put an item into the simple queue."""
    simple.put("item")
    return "put"


def turn(environ: WSGIEnvironment) -> object:
    """Wait until an even or odd number of requests have passed."""
    with condition:
        mine = counts["condition"]
        counts["condition"] += 1
        condition.notify_all()
        condition.wait_for(lambda: counts["condition"] >= (mine // 2 + 1) * 2, 20)
        return counts["condition"] >= (mine // 2 + 1) * 2


def limited(environ: WSGIEnvironment) -> object:
    """Return the number of requests inside the semaphore."""
    with semaphore:
        with lock:
            counts["inside"] += 1
            counts["most"] = max(counts["most"], counts["inside"])
        time.sleep(0.002)
        with lock:
            counts["inside"] -= 1
    return counts["most"]


def wait_event(environ: WSGIEnvironment) -> object:
    """Wait for the event."""
    return event.wait(20)


def set_event(environ: WSGIEnvironment) -> object:
    """Set the event."""
    event.set()
    return "set"


def executors(environ: WSGIEnvironment) -> object:
    """Use a shared and an own executor."""
    with ThreadPoolExecutor(2) as own:
        return [
            sum(executor.map(abs, range(10))),
            sum(own.map(abs, range(10))),
            executor.submit(int, "7").result(20),
        ]


def end_executor(environ: WSGIEnvironment) -> object:
    """End the workers of the shared executor, which are tasks if a task began them."""
    global executor
    executor.shutdown()
    executor = ThreadPoolExecutor(4)
    return "ended"


def processes(environ: WSGIEnvironment) -> object:
    """Run a process, and fork."""
    text = subprocess.run(
        [sys.executable, "-c", "print(6 * 7)"], capture_output=True, check=True
    ).stdout.strip()
    child = os.fork()
    if not child:
        os._exit(7)
    return [text, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def run_asyncio(environ: WSGIEnvironment) -> object:
    """Run an asyncio loop."""

    async def main() -> list[int]:
        return await asyncio.gather(*(asyncio.sleep(0.01, each) for each in range(3)))

    return asyncio.run(main())


def locals_(environ: WSGIEnvironment) -> object:
    """Set a context variable and a thread-local around a wait."""
    mine = environ["txgreenwsgi.request_id"]
    before = variable.get()
    variable.set(mine)
    local.value = mine
    time.sleep(0.002)
    return [before, variable.get() == mine, local.value == mine]


def logs(environ: WSGIEnvironment) -> object:
    """Log many lines."""
    name = environ["txgreenwsgi.request_id"]
    for number in range(1000):
        log.error("<line %s %d %s>", name, number, "x" * 40)
    return "logged"


def api(environ: WSGIEnvironment) -> object:
    """Use every function of the API."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    later: Any = reactor
    results: list[object] = []
    results.append(txgreenwsgi.wait(deferLater(later, 0.001, str.upper, "later")))
    results.append(txgreenwsgi.spawn(str.upper, "spawned").wait())
    results.append(txgreenwsgi.offload(str.upper, "offloaded"))
    results.append(txgreenwsgi.to_thread(str.upper, "thread"))
    suspension = txgreenwsgi.suspend()
    later.callLater(0.001, suspension.resume, "resumed")
    results.append(suspension.wait())
    try:
        with txgreenwsgi.timeout(0.01):
            txgreenwsgi.sleep(20)
    except txgreenwsgi.TimedOut:
        results.append("timed out")
    with txgreenwsgi.shield():
        txgreenwsgi.sleep(0)
    results.append(len(environ["txgreenwsgi.requests"]()) > 0)
    environ["txgreenwsgi.set_request_timeout"](30)
    environ["wsgi.early_hints"]([])
    environ["wsgi.errors"].write("an error line\n")
    results.append(environ["txgreenwsgi.client_disconnected"]())
    return results


def net(environ: WSGIEnvironment) -> object:
    """Connect to this server with `txgreenwsgi.net`."""
    from txgreenwsgi import net

    port = environ["SERVER_PORT"]
    with net.connect(f"tcp:127.0.0.1:{port}") as connection:
        connection.write(b"GET /g/kind HTTP/1.0\r\n\r\n")
        return connection.read().rpartition(b"\r\n")[2].strip().decode()


def upload(environ: WSGIEnvironment) -> object:
    """Return the hash of the body."""
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read(10_000):
        digest.update(piece)
    return digest.hexdigest()


def spin(environ: WSGIEnvironment) -> object:
    """Compute in Python for the CPU seconds in the query."""
    end = time.thread_time() + float(environ["QUERY_STRING"] or 0.03)
    while time.thread_time() < end:
        sum(range(100))
    return "spun"


def forever(environ: WSGIEnvironment) -> object:
    """Compute in Python without an end."""
    while True:
        sum(range(1000))


def waits_in_c(environ: WSGIEnvironment) -> object:
    """Wait in C, without the GIL, for an hour."""
    import ctypes

    return ctypes.CDLL(None).usleep(3_600_000_000)


def block_in_c(environ: WSGIEnvironment) -> object:
    """Wait in C, without the GIL, for 50 ms."""
    import ctypes

    return ctypes.CDLL(None).usleep(50_000)


def objects(environ: WSGIEnvironment) -> object:
    """Return the numbers of objects, descriptors and tasks."""
    gc.collect()
    kinds = ("Exchange", "ThreadCall", "Task", "Suspension", "SinkInThread")
    found = [type(each).__name__ for each in gc.get_objects()]
    return " ".join(
        [
            *(str(found.count(name)) for name in kinds),
            str(len(os.listdir("/proc/self/fd"))),
            str(len(environ["txgreenwsgi.requests"]())),
        ]
    )


def fail(environ: WSGIEnvironment) -> object:
    """Raise an exception."""
    raise ValueError("a failing view")


_VIEWS: dict[str, Callable[[WSGIEnvironment], object]] = {
    view.__name__.rstrip("_"): view
    for view in (
        *(kind, bank, get, put, get_simple, put_simple, turn, limited, wait_event),
        *(
            set_event,
            executors,
            end_executor,
            processes,
            run_asyncio,
            locals_,
            logs,
            api,
            net,
        ),
        *(upload, spin, forever, waits_in_c, block_in_c, objects, fail),
    )
}


class Stream:
    """A response whose iterator and `close()` wait.

    Attributes:
        blocks: the blocks; each is followed by a wait.
    """

    def __init__(self, blocks: Iterator[bytes], name: str) -> None:
        self.blocks = blocks
        self.name = name

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            yield block
            txgreenwsgi.sleep(0.01)

    def close(self) -> None:
        """Wait, and record the end."""
        txgreenwsgi.sleep(0.01)
        closed.append(self.name)


def _stream(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/event-stream")])
    number = int(environ["QUERY_STRING"] or 3)
    return Stream((b"data: %d\n\n" % each for each in range(number)), _kind(environ))


def _early(environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
    """Send a complete body, then compute: the client must not wait for that."""
    start("200 OK", [("Content-Length", "6")])
    yield b"early\n"
    event.wait(20)


def _broken(environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    yield b"a block\n"
    raise ValueError("a failing iterator")


def _file(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))  # type: ignore[no-any-return]


def _write(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    write = start("200 OK", [("Content-Type", "text/plain")])
    for _ in range(50):
        write(b"x" * 100_000)
    return []


_RESPONSES = {
    "stream": _stream,
    "early": _early,
    "broken": _broken,
    "file": _file,
    "write": _write,
    "closed": lambda environ, start: _text(start, " ".join(closed)),
}


def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Call the view that the path names."""
    name = environ["PATH_INFO"].split("/")[2]
    if name in _RESPONSES:
        return _RESPONSES[name](environ, start)
    return _text(start, _VIEWS[name](environ))
