"""Patching, in child processes, because it cannot be undone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import TestCase

from .processes import serve

_VIEW = """
import time
import threading
import http.client

seen = threading.local()

def app(environ, start_response):
    assert not hasattr(seen, "path"), seen.path
    seen.path = environ["PATH_INFO"]
    time.sleep(1)
    assert seen.path == environ["PATH_INFO"]
    if seen.path.startswith("/outer"):
        connection = http.client.HTTPConnection(environ["HTTP_HOST"], timeout=30)
        connection.request("GET", "/inner")
        body = connection.getresponse().read()
        connection.close()
    else:
        body = b"inner"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


#: Reads a line of its standard input, while a thread counts.
_ASKING = """
import sys, threading, time

count = 0

def run():
    global count
    while True:
        time.sleep(0.01)
        count += 1

threading.Thread(target=run, daemon=True).start()
print("name?", flush=True)
name = input()
assert count > 10, count
print("hello", name, sys.stdin.readline().strip(), sys.stdin.read().split())
assert (sys.stdin.name, sys.stdin.mode) == ("<stdin>", "r")
"""


class MonkeyTests(TestCase):
    """`txgreenwsgi.monkey`."""

    timeout = 120

    def run_code(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program, which must end with status 0."""
        script = Path(self.mktemp()).with_suffix(".py").resolve()
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(textwrap.dedent(code))
        done = subprocess.run(
            [sys.executable, *arguments, str(script), "argument"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_twice(self) -> None:
        """Patching twice changes nothing; the originals remain available."""
        self.run_code(
            """
            import time, socket, threading
            before = time.sleep, socket.socket, threading.Thread
            from txgreenwsgi import monkey
            assert not monkey.is_patched("socket")
            monkey.patch_all()
            once = time.sleep, socket.socket, threading.Thread
            monkey.patch_all()
            assert (time.sleep, socket.socket, threading.Thread) == once
            assert not set(once) & set(before)
            assert monkey.is_patched("socket") and monkey.is_patched("threading")
            assert monkey.original("time", "sleep") is before[0]
            assert monkey.original("socket", "socket") is before[1]
            assert monkey.original("time", "monotonic") is time.monotonic
            """
        )

    def test_some(self) -> None:
        """Only the named modules are patched; an unknown name is refused."""
        self.run_code(
            """
            import socket, time
            from txgreenwsgi import monkey
            sleep = time.sleep
            monkey.patch_all(["socket"])
            assert time.sleep is sleep and not monkey.is_patched("time")
            try:
                monkey.patch_all(["sockets"])
            except ValueError as error:
                assert "'sockets'" in str(error) and "socket, ssl" in str(error)
            else:
                raise AssertionError
            """
        )

    def test_too_late(self) -> None:
        """A module that derives from an original is named once, with its names."""
        done = self.run_code(
            """
            import sys, types
            early = types.ModuleType("early")
            exec("from time import sleep; from socket import socket\\n"
                 "class Early(socket): pass", vars(early))
            sys.modules["early"] = early
            from txgreenwsgi import monkey
            monkey.patch_all()
            """
        )
        self.assertEqual(done.stderr.count("early (socket)"), 1)

    def test_twisted_works(self) -> None:
        """With patches, Twisted serves, connects, resolves and runs threads."""
        self.run_code(
            """
            from txgreenwsgi import monkey
            monkey.patch_all()
            import threading
            from twisted.internet import reactor, protocol, endpoints, threads, task

            class Echo(protocol.Protocol):
                def dataReceived(self, data):
                    self.transport.write(data)

            async def main(reactor):
                server = endpoints.serverFromString(
                    reactor, "tcp:0:interface=127.0.0.1")
                port = await server.listen(protocol.Factory.forProtocol(Echo))
                from twisted.internet.defer import Deferred
                got = Deferred()
                class Client(protocol.Protocol):
                    def connectionMade(self):
                        self.transport.write(b"hello")
                    def dataReceived(self, data):
                        self.transport.loseConnection()
                        got.callback(data)
                client = endpoints.HostnameEndpoint(
                    reactor, b"localhost", port.getHost().port)
                await client.connect(protocol.Factory.forProtocol(Client))
                assert await got == b"hello"
                real = monkey.original("threading", "get_ident")
                assert await threads.deferToThread(real) != real()
                await port.stopListening()

            task.react(lambda reactor: __import__("twisted").internet.defer
                       .Deferred.fromCoroutine(main(reactor)))
            """
        )

    def test_a_program(self) -> None:
        """`python -m txgreenwsgi.monkey` runs a program whose threads are tasks."""
        done = self.run_code(
            """
            import sys, threading, time, signal, os
            assert sys.argv[1:] == ["argument"]
            assert threading.current_thread() is threading.main_thread()
            began = time.monotonic()
            threads = [threading.Thread(target=time.sleep, args=(0.5,))
                       for _ in range(300)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert time.monotonic() - began < 30

            def handler(*_):
                raise LookupError("interrupted")

            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            try:
                time.sleep(30)
            except LookupError:
                print("interrupted")
            pid = os.fork()
            if pid == 0:
                time.sleep(0.1)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            """,
            "-m",
            "txgreenwsgi.monkey",
        )
        self.assertEqual(done.stdout, "interrupted\n")

    def asking(self, stdin: int) -> subprocess.Popen[str]:
        """Start a program that reads its standard input, and wait until it does."""
        script = Path(self.mktemp()).resolve()
        script.write_text(_ASKING)
        program = subprocess.Popen(
            [sys.executable, "-m", "txgreenwsgi.monkey", str(script)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(program.kill)
        assert program.stdout is not None
        self.addCleanup(program.stdout.close)
        self.assertEqual(program.stdout.readline(), "name?\n")
        time.sleep(1)
        return program

    def test_standard_input(self) -> None:
        """`input()` from a pipe waits while the threads of the program run."""
        program = self.asking(subprocess.PIPE)
        output, _ = program.communicate("anna\nsecond\nthird fourth", timeout=30)
        self.assertEqual(output, "hello anna second ['third', 'fourth']\n")
        self.assertEqual(program.returncode, 0)

    def test_a_terminal(self) -> None:
        """`input()` from a terminal waits too, with the terminal's line editing."""
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        program = self.asking(slave)
        os.close(slave)
        for typed in (b"annx\x7fa\n", b"second\n", b"third\n", b"\x04"):
            os.write(master, typed)
        assert program.stdout is not None
        self.assertEqual(program.stdout.read(), "hello anna second ['third']\n")
        self.assertEqual(program.wait(30), 0)

    def test_daemon_threads(self) -> None:
        """Daemon threads that still wait when a program ends do so silently."""
        done = self.run_code(
            """
            import _thread, socket, threading, time

            def wait():
                one, other = socket.socketpair()
                one.recv(1)

            threading.Thread(target=wait, daemon=True).start()
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            _thread.start_new_thread(wait, ())
            time.sleep(0.05)
            """,
            "-m",
            "txgreenwsgi.monkey",
        )
        self.assertEqual(done.stderr + done.stdout, "")

    def test_a_driver_imported_late(self) -> None:
        """psycopg2 and psycopg 3 are green even if a view imports them."""
        self.run_code(
            """
            import sys
            from txgreenwsgi import monkey
            monkey.patch_all()
            assert not {"psycopg", "psycopg2"} & set(sys.modules)
            import psycopg, psycopg2.extensions
            assert psycopg2.extensions.get_wait_callback() is not None
            assert psycopg.waiting.wait.__module__ == "txgreenwsgi.green.drivers"
            """
        )

    def test_exit_status(self) -> None:
        """The program's exit status is the process's; an exception is printed."""
        for code, status, output in (
            ("raise SystemExit(5)", 5, ""),
            ("raise SystemExit('sorry')", 1, "sorry"),
            ("{}['missing']", 1, "KeyError: 'missing'"),
        ):
            script = Path(self.mktemp()).resolve()
            script.write_text(code)
            done = subprocess.run(
                [sys.executable, "-m", "txgreenwsgi.monkey", str(script)],
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(output, done.stderr)

    def test_views(self) -> None:
        """In the command's server, blocking views overlap."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "blocking_views.py").write_text(_VIEW)
        server = serve(self, "blocking_views:app", f"--chdir={folder.resolve()}")
        began = time.monotonic()
        with ThreadPoolExecutor(60) as pool:
            answers = list(
                pool.map(lambda n: server.fetch(f"/outer/{n}").body, range(60))
            )
        self.assertEqual(set(answers), {b"inner"})
        # Sequentially they take two minutes.
        self.assertLess(time.monotonic() - began, 40)
