"""An application whose processes, threads and exit handlers are there at SIGTERM."""

from __future__ import annotations

import atexit
import concurrent.futures
import ctypes
import hashlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Objects that are still in use when the process exits.
kept: list[Any] = []


def work(seconds: float) -> str:
    """Return a text after `seconds`. Runs in another process or thread."""
    time.sleep(seconds)
    return "worked"


def loop() -> None:
    """Run for ever."""
    while True:
        time.sleep(0.05)


def ignore_sigterm() -> None:
    """Run for ever, and survive SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    loop()


def executor(method: str, seconds: float) -> str:
    """Use a ProcessPoolExecutor, which stays open."""
    context = multiprocessing.get_context(method)
    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    kept.append(pool)
    return pool.submit(work, seconds).result()


def pool(method: str, seconds: float) -> str:
    """Use a multiprocessing.Pool, which stays open."""
    opened = multiprocessing.get_context(method).Pool(2)
    kept.append(opened)
    return opened.apply(work, (seconds,))


def manager(method: str, seconds: float) -> str:
    """Use a multiprocessing.Manager, which stays open."""
    opened = multiprocessing.get_context(method).Manager()
    shared = opened.list(["worked"])
    kept.append((opened, shared))
    time.sleep(seconds)
    return str(shared[0])


def feeder(method: str, seconds: float) -> str:
    """Use a multiprocessing.Queue, whose feeder is a thread."""
    made: Any = multiprocessing.get_context(method).Queue()
    kept.append(made)
    made.put("worked")
    time.sleep(seconds)
    return str(made.get())


def threads(method: str, seconds: float) -> str:
    """Use a ThreadPoolExecutor, which stays open."""
    opened = concurrent.futures.ThreadPoolExecutor(2)
    kept.append(opened)
    return opened.submit(work, seconds).result()


def process(method: str, seconds: float) -> str:
    """Start a process that never ends, and is not a daemon."""
    context: Any = multiprocessing.get_context(method)
    started = context.Process(target=loop)
    started.start()
    kept.append(started)
    return "worked"


def stubborn(method: str, seconds: float) -> str:
    """Start a process that ends neither by itself nor by SIGTERM."""
    context: Any = multiprocessing.get_context(method)
    started = context.Process(target=ignore_sigterm)
    started.start()
    kept.append(started)
    return "worked"


def endless_thread(method: str, seconds: float) -> str:
    """Start a thread that never ends, and is not a daemon."""
    threading.Thread(target=loop, daemon=False).start()
    return "worked"


def real_thread(method: str, seconds: float) -> str:
    """Start a real thread that never ends, and is not a daemon."""
    from txgreenwsgi import offload

    offload(lambda: threading.Thread(target=loop, daemon=False).start())
    return "worked"


def short_thread(method: str, seconds: float) -> str:
    """Start a thread that prints after `seconds`, and is not a daemon."""

    def run() -> None:
        time.sleep(seconds)
        print("the thread has ended", file=sys.__stdout__, flush=True)

    threading.Thread(target=run, daemon=False).start()
    return "worked"


def handler(method: str, seconds: float) -> str:
    """Register an exit handler that waits for a daemon thread."""
    jobs: queue.Queue[str] = queue.Queue()

    def consume() -> None:
        while True:
            print(jobs.get(), file=sys.__stdout__, flush=True)
            jobs.task_done()

    def flush() -> None:
        for number in range(3):
            jobs.put(f"job {number}")
        jobs.join()

    threading.Thread(target=consume, daemon=True).start()
    atexit.register(flush)
    return "worked"


def endless_handler(method: str, seconds: float) -> str:
    """Register an exit handler that waits for ever, and one that is called later."""
    atexit.register(print, "the last handler", file=sys.__stdout__, flush=True)
    atexit.register(threading.Event().wait)
    return "worked"


def computation(method: str, seconds: float) -> str:
    """Block in C code without the interpreter lock."""
    print("blocks", file=sys.__stdout__, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    return "never"


def deadlock(method: str, seconds: float) -> str:
    """Block in C code that holds the interpreter lock."""
    print("blocks", file=sys.__stdout__, flush=True)
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
    return "never"


def forked(method: str, seconds: float) -> str:
    """Fork in a thread; the child exits. Return its status."""
    from twisted.internet.threads import deferToThread

    from txgreenwsgi import offload, wait

    def fork() -> int:
        child = os.fork()
        if not child:
            sys.exit(3)
        return child

    if method == "executor":
        with concurrent.futures.ThreadPoolExecutor(1) as opened:
            child = opened.submit(fork).result()
    elif method == "offload":
        child = offload(fork)
    else:
        child = wait(deferToThread(fork))
    return f"status {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


def chatter(method: str, seconds: float) -> str:
    """Write more to the log than a pipe holds."""
    for _ in range(5000):
        print("x" * 100)
    return "worked"


VIEWS: dict[str, Callable[[str, float], str]] = {
    view.__name__: view
    for view in (
        chatter,
        computation,
        deadlock,
        endless_handler,
        endless_thread,
        executor,
        feeder,
        forked,
        handler,
        manager,
        pool,
        process,
        real_thread,
        short_thread,
        stubborn,
        threads,
    )
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call a view: `/view?method=fork&seconds=0`."""
    query = {"method": ["fork"], "seconds": ["0"]} | parse_qs(environ["QUERY_STRING"])
    view = VIEWS[environ["PATH_INFO"][1:]]
    seconds = float(query["seconds"][0])
    if seconds:
        print("waits", file=sys.__stdout__, flush=True)
    result = view(query["method"][0], seconds)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{result}\n".encode()]


def children_of(pid: int) -> set[int]:
    """Return the ids of all descendants of a process, as Linux reports them."""
    found: set[int] = set()
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        for task in tasks:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found.update(map(int, file.read().split()))
    except OSError:
        return found
    for child in list(found):
        found |= children_of(child)
    return found
