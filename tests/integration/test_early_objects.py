"""Objects, and imports by name, that exist before the standard library is patched."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .processes import LOOPBACK, TWISTD, start
from .test_endpoints import write_certificate

REQUESTS = 20

#: An agent's `sitecustomize`: its objects are created before the command patches.
_AGENT = """
import sys
import types

agent = types.ModuleType("agent")
sys.modules["agent"] = agent
exec('''
import queue
import threading
from time import sleep

class Exporter:
    def __init__(self):
        self.lock = threading.Lock()

exporter = Exporter()
condition = threading.Condition()
state = threading.local()
held_in_a_set = {threading.Lock()}
''', vars(agent))
"""

_APP = """
import agent
from agent import exporter, condition, sleep, state

def app(environ, start_response):
    state.path = environ["PATH_INFO"]
    with exporter.lock, condition:
        sleep(0.01)
    assert state.path == environ["PATH_INFO"]
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
"""


class ProgramTestCase(SynchronousTestCase):
    """Tests that run programs."""

    def setUp(self) -> None:
        """Create a folder for the program."""
        self.folder = short_folder(self)

    def run_code(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run a program, which must end with status 0."""
        script = self.folder / "program.py"
        script.write_text(textwrap.dedent(code))
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done


class ReplacedTests(ProgramTestCase):
    """Objects whose references are all known."""

    def test_locks(self) -> None:
        """A free lock is replaced wherever it is referenced, by the same green lock."""
        done = self.run_code(
            """
            import collections, threading

            class Holder:
                def __init__(self):
                    self.lock = threading.Lock()
                    self.acquire = self.lock.acquire

            class Slotted:
                __slots__ = ("_one", "__other")
                def __init__(self):
                    self._one = self.__other = threading.RLock()
                def both(self):
                    return self._one, self.__other

            class Shared:
                lock = threading.RLock()
                locks = {1: threading.Lock()}

            def closure():
                lock = threading.Lock()
                return lambda: lock

            holder, slotted, function = Holder(), Slotted(), closure()
            lock = other = threading.Lock()
            inside = {"lock": lock, "list": [lock], "deque": collections.deque([lock])}
            subclass = collections.OrderedDict(lock=lock)
            Pair = collections.namedtuple("Pair", "first second")
            pair, nested = Pair(lock, threading.RLock()), [(threading.Lock(), lock)]

            def default(lock=threading.Lock(), *, other=threading.RLock()):
                return lock, other

            from txgreenwsgi import monkey
            monkey.patch_all()
            Lock, RLock = type(threading.Lock()), type(threading.RLock())
            assert type(lock) is Lock
            assert lock is other is inside["lock"] is inside["list"][0]
            assert lock is inside["deque"][0] is subclass["lock"]
            assert type(holder.lock) is Lock
            assert holder.acquire.__self__ is holder.lock
            one, another = slotted.both()
            assert one is another and type(one) is RLock
            assert type(Shared.lock) is RLock and type(Shared().locks[1]) is Lock
            assert type(function()) is Lock
            assert pair.first is lock is nested[0][1] and type(pair) is Pair
            assert type(pair.second) is RLock and type(nested[0][0]) is Lock
            assert tuple(map(type, default())) == (Lock, RLock)
            assert monkey.early_objects() == []
            monkey.patch_all()
            with lock, holder.lock, one, Shared.lock, Shared.locks[1], function():
                assert not lock.acquire(False)
            """
        )
        self.assertEqual(done.stderr, "")

    def test_built_on_locks(self) -> None:
        """Conditions, events, semaphores, queues and handlers are green too."""
        done = self.run_code(
            """
            import logging, queue, threading
            from concurrent.futures import ThreadPoolExecutor

            condition = threading.Condition()
            plain = threading.Condition(threading.Lock())
            event, semaphore = threading.Event(), threading.Semaphore(2)
            queues = bounded, simple = queue.Queue(), queue.SimpleQueue()
            simple.put("kept")
            handler = logging.StreamHandler()
            pool = ThreadPoolExecutor(2)

            from txgreenwsgi import monkey
            monkey.patch_all()
            import txgreenwsgi
            assert monkey.early_objects() == []
            Lock, RLock = type(threading.Lock()), type(threading.RLock())
            assert type(condition._lock) is type(handler.lock) is RLock
            assert condition.acquire.__self__ is condition._lock
            assert type(plain._lock) is type(event._cond._lock) is Lock
            assert type(semaphore._cond._lock) is Lock
            assert bounded.mutex is bounded.not_empty._lock is bounded.not_full._lock
            assert plain._acquire_restore.__self__ is plain._lock
            assert simple.get() == "kept"

            def main(reactor):
                def wait(on):
                    with on:
                        assert on.wait(20)
                waiting = [txgreenwsgi.spawn(wait, on) for on in (condition, plain)]
                getting = [txgreenwsgi.spawn(q.get, True, 20) for q in queues]
                waiting.append(txgreenwsgi.spawn(event.wait, 20))
                results = [pool.submit(lambda: 1), pool.submit(lambda: 2)]
                txgreenwsgi.sleep(0.01)
                for on in (condition, plain):
                    with on:
                        on.notify()
                event.set()
                bounded.put("item")
                simple.put("item")
                assert [task.wait() for task in getting] == ["item", "item"]
                for task in waiting:
                    task.wait()
                assert [result.result(20) for result in results] == [1, 2]
                pool.shutdown()

            from twisted.internet.task import react
            react(lambda reactor: txgreenwsgi.spawn(main, reactor).deferred())
            """
        )
        self.assertEqual(done.stderr, "")

    def test_sockets_and_locals(self) -> None:
        """A socket keeps its descriptor, time limit and files; a local its values."""
        done = self.run_code(
            """
            import socket, threading
            one, other = socket.socketpair()
            one.settimeout(20)
            file, receive, number = one.makefile("rb"), one.recv, one.fileno()
            state = threading.local()
            state.value = 1
            from txgreenwsgi import monkey
            monkey.patch_all()
            assert type(one) is type(other) is socket.socket
            assert (one.fileno(), one.gettimeout()) == (number, 20)
            assert type(state) is threading.local and state.value == 1
            assert monkey.early_objects() == []
            other.sendall(b"line\\nrest")
            assert file.readline() == b"line\\n"
            assert receive.__self__ is one
            one.close()
            assert file.read(4) == b"rest"
            file.close()
            assert other.recv(1) == b""
            """
        )
        self.assertEqual(done.stderr, "")

    def test_threads(self) -> None:
        """A task wakes a real thread that waits for an early condition or queue."""
        self.run_code(
            """
            import queue, threading
            condition, jobs, done = threading.Condition(), queue.Queue(), []

            def work():
                with condition:
                    condition.wait(20)
                done.append(jobs.get(True, 20))
                jobs.task_done()

            thread = threading.Thread(target=work)
            thread.start()
            while not condition._waiters:
                pass
            from txgreenwsgi import monkey
            monkey.patch_all()
            import txgreenwsgi

            def main():
                with condition:
                    condition.notify()
                jobs.put("job")
                jobs.join()

            from twisted.internet.task import react
            try:
                react(lambda reactor: txgreenwsgi.spawn(main).deferred())
            except SystemExit as end:
                assert not end.code
            thread.join()
            assert done == ["job"], done
            """
        )

    def test_selectors(self) -> None:
        """An early selector and an early event loop park the task."""
        done = self.run_code(
            """
            import asyncio, select, selectors, socket
            one, other = socket.socketpair()
            chosen = [selectors.PollSelector(), selectors.DefaultSelector()]
            for each in chosen:
                each.register(one, selectors.EVENT_READ, "data")
            closed = selectors.DefaultSelector()
            closed.close()
            loop = asyncio.new_event_loop()
            from txgreenwsgi import monkey
            monkey.patch_all()
            import time, txgreenwsgi
            epoll = monkey.original("select", "epoll")
            assert not isinstance(loop._selector._selector, epoll)

            def main():
                waiting = [txgreenwsgi.spawn(each.select, 20) for each in chosen]
                future = loop.create_future()

                async def sleep():
                    await future
                    return await asyncio.sleep(0.05, "slept")

                sleeping = txgreenwsgi.spawn(loop.run_until_complete, sleep())
                txgreenwsgi.sleep(0.01)
                assert not sleeping.done
                other.sendall(b"x")
                for task in waiting:
                    ((key, events),) = task.wait()
                    assert (key.data, events) == ("data", selectors.EVENT_READ)
                assert not sleeping.done
                loop.call_soon_threadsafe(future.set_result, None)
                assert sleeping.wait() == "slept"
                loop.close()

            from twisted.internet.task import react
            react(lambda reactor: txgreenwsgi.spawn(main).deferred())
            """
        )
        self.assertNotIn("Traceback", done.stderr)

    def test_join(self) -> None:
        """A task parks while it joins a real thread from before patching."""
        self.run_code(
            """
            import threading
            event, ended = threading.Event(), threading.Event()
            thread = threading.Thread(target=event.wait, args=(20,))
            thread.start()
            from txgreenwsgi import monkey
            monkey.patch_all()
            import txgreenwsgi

            def main():
                joining = txgreenwsgi.spawn(thread.join)
                txgreenwsgi.sleep(0.01)
                assert thread.is_alive()
                event.set()
                joining.wait()
                assert not thread.is_alive()
                thread.join()

            from twisted.internet.task import react
            react(lambda reactor: txgreenwsgi.spawn(main).deferred())
            """
        )


class RemainingTests(ProgramTestCase):
    """Objects that are in use, or have unknown references."""

    def test_reported(self) -> None:
        """They are unchanged, and one warning gives their names and kinds."""
        done = self.run_code(
            """
            import sys, threading, types
            shop = types.ModuleType("shop")
            sys.modules["shop"] = shop
            exec('''
            import queue, socket, ssl, threading, weakref
            class Cart:
                in_use = threading.Lock()
                in_use.acquire()
                def __init__(self):
                    self.owned = threading.RLock()
                    self.owned.acquire()
            class State(threading.local):
                pass
            cart, state = Cart(), State()
            several = {threading.Lock()}
            names = weakref.WeakKeyDictionary()
            weak = threading.Lock()
            names[weak] = "weak"
            '''.replace("\\n            ", "\\n"), vars(shop))
            before = dict(vars(shop)), shop.cart.owned, shop.Cart.in_use
            from txgreenwsgi import monkey
            monkey.patch_all()
            assert (dict(vars(shop)), shop.cart.owned, shop.Cart.in_use) == before
            found = {(each.name, each.kind) for each in monkey.early_objects()}
            assert found == {
                ("shop.Cart.in_use", "Lock"),
                ("shop.Cart().owned", "RLock"),
                ("shop.state", "local"),
                ("shop.several", "Lock"),
                ("shop.weak", "Lock"),
            }, found
            shop.Cart.in_use.release()
            shop.cart.owned.release()
            """
        )
        self.assertEqual(done.stderr.count("RuntimeWarning"), 1, done.stderr)
        for name in ("shop.Cart().owned (RLock)", "shop.several (Lock)"):
            self.assertIn(name, done.stderr)
        self.assertIn("python -m txgreenwsgi.patched", done.stderr)

    def test_not_patched(self) -> None:
        """Objects of modules that are not patched are neither replaced nor reported."""
        self.run_code(
            """
            import socket, threading
            lock, sock, state = threading.Lock(), socket.socket(), threading.local()
            before = lock, sock, state
            from txgreenwsgi import monkey
            monkey.patch_all(["time", "os"])
            assert (lock, sock, state) == before and not monkey.early_objects()
            """
        )


class ImportTests(ProgramTestCase):
    """Modules that have imported functions and classes by name."""

    def test_rebound(self) -> None:
        """Names and default values are rebound, except for a base class."""
        done = self.run_code(
            """
            import sys, types
            shop = types.ModuleType("shop")
            sys.modules["shop"] = shop
            exec('''
            from time import sleep
            from threading import Lock, Thread, Event as Signal
            from socket import socket, create_connection
            def retry(wait=sleep):
                return wait
            class Socket(socket):
                def __init__(self):
                    socket.__init__(self)
            '''.replace("\\n            ", "\\n"), vars(shop))
            from time import sleep
            from txgreenwsgi import monkey
            monkey.patch_all()
            import socket, threading, time
            assert sleep is shop.sleep is shop.retry() is time.sleep
            assert shop.Lock is threading.Lock and shop.Thread is threading.Thread
            assert shop.Signal is threading.Event
            assert shop.create_connection is socket.create_connection
            assert monkey.early_importers() == {"shop": ["socket"]}
            shop.Socket().close()
            """
        )
        self.assertEqual(done.stderr.count("shop (socket)"), 1, done.stderr)

    def test_tls(self) -> None:
        """Contexts, subclasses and urllib3 from before patching connect in tasks."""
        write_certificate(self.folder)
        done = self.run_code(
            """
            import http.server, ssl, threading, time
            import urllib3
            from ssl import SSLContext, SSLSocket

            class Subclass(SSLContext):
                pass

            class OldSocket(SSLSocket):
                pass

            class OldSockets(SSLContext):
                sslsocket_class = OldSocket

            contexts = [ssl.create_default_context(cafile="certificate.pem")]
            for kind in (SSLContext, Subclass, OldSockets):
                contexts.append(kind(ssl.PROTOCOL_TLS_CLIENT))
                contexts[-1].load_verify_locations("certificate.pem")
            serving = SSLContext(ssl.PROTOCOL_TLS_SERVER)
            serving.load_cert_chain("certificate.pem", "key.pem")

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    time.sleep(0.2)
                    self.send_response(200)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"hi")
                def log_message(self, *args):
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.socket = serving.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()

            from txgreenwsgi import monkey
            monkey.patch_all()
            import http.client, txgreenwsgi
            assert SSLContext is ssl.SSLContext
            assert all(isinstance(each, ssl.SSLContext) for each in contexts)
            fresh = ssl.create_default_context(cafile="certificate.pem")
            fresh.minimum_version = ssl.TLSVersion.TLSv1_2
            urls = [f"https://127.0.0.1:{server.server_port}/"] * 10

            def get(context):
                connection = http.client.HTTPSConnection(
                    "127.0.0.1", server.server_port, context=context, timeout=20)
                connection.request("GET", "/")
                kind = type(connection.sock)
                body = connection.getresponse().read()
                connection.close()
                return body, kind

            def main():
                pool = urllib3.PoolManager(ca_certs="certificate.pem", maxsize=10)
                several = [txgreenwsgi.spawn(pool.request, "GET", url) for url in urls]
                for context in (*contexts, fresh):
                    body, kind = get(context)
                    assert body == b"hi"
                    old = isinstance(context, OldSockets)
                    assert kind is (OldSocket if old else ssl.SSLSocket), kind
                assert [task.wait().data for task in several] == [b"hi"] * 10

            from twisted.internet.task import react
            react(lambda reactor: txgreenwsgi.spawn(main).deferred())
            """
        )
        self.assertNotIn("Traceback", done.stderr)


class ServerTests(SynchronousTestCase):
    """The command, under an agent whose `sitecustomize` creates objects."""

    def setUp(self) -> None:
        """Write the agent and the application."""
        self.folder = short_folder(self)
        (self.folder / "sitecustomize.py").write_text(_AGENT)
        (self.folder / "early_app.py").write_text(_APP)
        self.environ = {"PYTHONPATH": str(self.folder)}

    def serves(self, *wrapper: str) -> str:
        """Send concurrent requests, which need the agent's locks; return the log."""
        server = start(
            self,
            "greenwsgi",
            "--app=early_app:app",
            f"--listen=tcp:0:interface={LOOPBACK}",
            environ=self.environ,
            wrapper=wrapper,
        )
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda n: server.fetch(f"/{n}"), range(REQUESTS)))
        self.assertEqual({answer.text for answer in answers}, {"done"}, server.log())
        server.ask_to_stop()
        server.wait_ended()
        return server.log()

    def test_lock_held_during_a_wait(self) -> None:
        """Requests wait for a lock of the agent; the log names what remains."""
        log = self.serves()
        self.assertEqual(log.count("agent.held_in_a_set (Lock)"), 1, log)

    def test_patched_first(self) -> None:
        """Under `txgreenwsgi.patched`, the agent's objects are green from the start."""
        log = self.serves(sys.executable, "-m", "txgreenwsgi.patched")
        self.assertNotIn("Warning", log)

    def test_check(self) -> None:
        """`--check` warns of objects that were not replaced."""
        command = [*TWISTD, "-n", "--pidfile=", "greenwsgi", "--check"]
        for wrapper, expected in (
            ((), 1),
            ((sys.executable, "-m", "txgreenwsgi.patched"), 0),
        ):
            done = subprocess.run(
                [*wrapper, *command, "--app=early_app:app"],
                capture_output=True,
                text=True,
                timeout=60,
                cwd=self.folder,
                env={**os.environ, **self.environ},
            )
            lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
            self.assertEqual(
                lines.count(["warning", "agent.held_in_a_set"]), expected, done.stdout
            )
            self.assertEqual(done.returncode, 0, done.stdout)
