"""gunicorn with `-k txgreenwsgi.gunicorn.GreenWorker`, as real processes."""

from __future__ import annotations

import ast
import os
import re
import signal
import ssl
import sys
import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .gunicorns import GunicornProcess, start_gunicorn
from .processes import ANSWER_SECONDS, connect_unix, is_alive
from .restart_clients import RestartClients
from .test_endpoints import write_certificate
from .test_restarts import RESTARTS, UnderLoad

if TYPE_CHECKING:
    from .processes import Answer

APP = "tests.integration.gunicorn_app:app"
RESTART_APP = "tests.integration.restart_app:app"


def facts(answer: Answer) -> dict[str, Any]:
    """Return the facts in a response of the application."""
    found: dict[str, Any] = ast.literal_eval(answer.text)
    return found


class RequestTests(SynchronousTestCase):
    """Requests, and the options that change them."""

    def test_serves(self) -> None:
        """A worker serves in greenlets, and two workers are two processes."""
        server = start_gunicorn(self, APP, workers=2)
        found = facts(server.fetch("/"))
        self.assertIn(found["pid"], server.workers())
        self.assertEqual(found["scheme"], "http")
        self.assertTrue(found["multiprocess"])
        started = time.monotonic()
        threads = [Thread(target=server.fetch, args=("/sleep",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # One after the other, they would take at least five seconds in two workers.
        self.assertLess(time.monotonic() - started, 5.0)
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("Traceback", server.log())

    def test_options(self) -> None:
        """Options of gunicorn and variables of ours reach the server."""
        server = start_gunicorn(
            self,
            "--keep-alive=0",
            "--limit-request-fields=5",
            "--env=SCRIPT_NAME=/app",
            "--env=GREEN_VARIABLE=set",
            "--env=TXGREENWSGI_SERVER_HEADER=ours",
            "--env=TXGREENWSGI_MAX_BODY=1K",
            APP,
        )
        answer = server.fetch("/app/x", headers={"X-Forwarded-Proto": "https"})
        found = facts(answer)
        self.assertEqual(found["scheme"], "https")
        self.assertEqual(found["script_name"], "/app")
        self.assertEqual(found["variable"], "set")
        self.assertFalse(found["multiprocess"])
        self.assertEqual(answer.headers["Server"], "ours")
        self.assertEqual(answer.headers["Connection"], "close")
        many = {f"X-{number}": "" for number in range(6)}
        self.assertEqual(server.fetch("/", headers=many).status, 431)
        self.assertEqual(server.fetch("/", "POST", b"x" * 2000).status, 413)

    def test_untrusted_peer(self) -> None:
        """The scheme of a peer outside `forwarded_allow_ips` is not believed."""
        server = start_gunicorn(self, "--forwarded-allow-ips=192.0.2.1", APP)
        answer = server.fetch("/", headers={"X-Forwarded-Proto": "https"})
        self.assertEqual(facts(answer)["scheme"], "http")

    def test_unix_socket(self) -> None:
        """A UNIX socket is served, and stays when a worker is replaced."""
        path = Path(short_folder(self), "web.sock")
        server = start_gunicorn(self, f"--bind=unix:{path}", APP)
        old = frozenset(server.workers())
        server.send(signal.SIGHUP)
        server.wait_workers(1, without=old)
        with connect_unix(path) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            self.assertIn(b"200 OK", client.read_all())
        self.assertEqual(server.stop(), 0)
        self.assertFalse(path.exists())

    def test_tls(self) -> None:
        """TLS with gunicorn's options."""
        certificate, key = write_certificate(short_folder(self))
        server = start_gunicorn(
            self, f"--certfile={certificate}", f"--keyfile={key}", APP
        )
        context = ssl.create_default_context(cafile=str(certificate))
        answer = server.fetch("/", context=context)
        self.assertEqual(facts(answer)["scheme"], "https")

    def test_proxy_protocol(self) -> None:
        """The PROXY protocol names the client."""
        server = start_gunicorn(self, "--proxy-protocol=v1", "--access-logfile=-", APP)
        with server.connect() as client:
            client.send(
                b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\nGET / HTTP/1.0\r\n\r\n"
            )
            self.assertIn(b"200 OK", client.read_all())
        server.wait_logged(r"(?m)^192\.0\.2\.7 - - .*GET /")

    def test_worker_connections(self) -> None:
        """Connections above the limit wait in the backlog and are then served."""
        server = start_gunicorn(self, "--worker-connections=2", APP)
        held = [server.connect() for _ in range(2)]
        for client in held:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.read_until(b"\r\n\r\n")
        with server.connect() as third:
            third.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            third.socket.settimeout(0.5)
            self.assertRaises(TimeoutError, third.socket.recv, 1)
            third.socket.settimeout(ANSWER_SECONDS)
            for client in held:
                client.socket.close()
            self.assertIn(b"200 OK", third.read_all())


class LogTests(SynchronousTestCase):
    """The logs of gunicorn."""

    def test_access_log(self) -> None:
        """Gunicorn's logger writes the access log, in its own format."""
        layout = '%(h)s "%(r)s" %(s)s %(B)s %({x-kind}o)s %({user-agent}i)s %(L)s'
        server = start_gunicorn(
            self, "--access-logfile=-", f"--access-logformat={layout}", APP
        )
        server.fetch("/a?b=c", headers={"User-Agent": "tester"})
        server.wait_logged(r'127.0.0.1 "GET /a\?b=c HTTP/1.1" 200 \d+ facts tester 0\.')
        server.fetch("/fail")
        server.wait_logged(r'"GET /fail HTTP/1.1" 500 \d+ - ')
        with server.connect() as client:
            client.send(b"BAD\r\n\r\n")
            client.read_all()
        server.wait_logged(r'127.0.0.1 "[^"]*" 400 ')

    def test_error_log(self) -> None:
        """Failures and `wsgi.errors` go to gunicorn's error log, and it is reopened."""
        folder = short_folder(self)
        path = Path(folder, "error.log")
        server = start_gunicorn(self, f"--error-logfile={path}", APP, ready=False)
        server.wait_for(
            lambda: path.exists() and "listening on" in path.read_text(),
            "a worker in the error log",
        )
        server.fetch("/fail")
        server.fetch("/print")
        text = path.read_text()
        self.assertIn("ValueError: the view fails", text)
        self.assertIn("written to wsgi.errors", text)
        self.assertIn("printed by the view", server.log())
        path.rename(Path(folder, "error.log.1"))
        server.send(signal.SIGUSR1)
        server.wait_for(path.exists, "a new error log")

        def logged() -> bool:
            server.fetch("/fail")
            return "the view fails" in path.read_text()

        server.wait_for(logged, "a line in the new error log")

    def test_ignored_options(self) -> None:
        """Options without effect are named, with a remedy."""
        server = start_gunicorn(self, "--threads=4", APP)
        self.assertIn("option threads has no effect", server.log())


class HookTests(SynchronousTestCase):
    """The server hooks of a configuration file."""

    def test_hooks(self) -> None:
        """Hooks are called in gunicorn's order, with objects as gunicorn's."""
        path = Path(short_folder(self), "gunicorn.conf.py")
        path.write_text(HOOKS)
        server = start_gunicorn(self, f"--config={path}", APP)
        server.fetch("/hooked?q=1", headers={"X-Test": "yes"})
        server.wait_logged("hook post_request")
        self.assertEqual(server.stop(signal.SIGINT), 0)
        found = re.findall(r"^hook (.*)$", server.log(), re.MULTILINE)
        self.assertEqual(
            found,
            [
                "post_fork",
                "post_worker_init",
                "pre_request GET /hooked q=1 yes http (1, 1)",
                "post_request 200 OK facts True",
                "worker_int",
                "worker_exit",
            ],
        )


HOOKS = """
def post_fork(server, worker):
    print("hook post_fork", flush=True)


def post_worker_init(worker):
    print("hook post_worker_init", flush=True)


def pre_request(worker, req):
    test = dict(req.headers)["X-TEST"]
    print(
        "hook pre_request", req.method, req.path, req.query, test, req.scheme,
        req.version, flush=True,
    )


def post_request(worker, req, environ, resp):
    kind = dict(resp.headers)["X-Kind"]
    print("hook post_request", resp.status, kind, resp.sent > 10, flush=True)


def worker_int(worker):
    print("hook worker_int", flush=True)


def worker_exit(server, worker):
    print("hook worker_exit", flush=True)
"""


class ProcessTests(UnderLoad):
    """Signals and the life of workers, most of them under load."""

    def start_under_load(
        self, *options: str, workers: int = 2
    ) -> tuple[GunicornProcess, RestartClients]:
        """Start gunicorn and clients that send requests to it."""
        server = start_gunicorn(self, *options, RESTART_APP, workers=workers)
        return server, RestartClients(self, [server.port])

    def test_reload(self) -> None:
        """Reloads by SIGHUP lose no request."""
        server, clients = self.start_under_load()
        for _ in range(RESTARTS):
            old = frozenset(server.workers())
            server.send(signal.SIGHUP)
            server.wait_workers(2, without=old)
        self.assert_answered(clients)
        self.assertEqual(server.stop(), 0)

    def test_scaling(self) -> None:
        """SIGTTIN and SIGTTOU under load lose no request."""
        server, clients = self.start_under_load(workers=1)
        for _ in range(RESTARTS):
            server.send(signal.SIGTTIN)
            server.wait_workers(2)
            server.send(signal.SIGTTOU)
            server.wait_workers(1)
        self.assert_answered(clients)

    def test_max_requests(self) -> None:
        """Workers that are replaced after a number of requests lose none."""
        server, clients = self.start_under_load(
            "--max-requests=150", "--max-requests-jitter=50"
        )
        first = frozenset(server.workers())
        for _ in range(2):
            old = frozenset(server.workers())
            server.wait_workers(2, without=old)
        self.assertTrue(first.isdisjoint(server.workers()))
        self.assert_answered(clients)
        self.assertIn("Autorestarting worker after current request.", server.log())

    def test_kill(self) -> None:
        """A killed worker is replaced; the others go on."""
        server = start_gunicorn(self, APP, workers=2)
        old = frozenset(server.workers())
        os.kill(min(old), signal.SIGKILL)
        server.wait_for(
            lambda: len(found := server.workers()) == 2 and found != old,
            "another worker",
        )
        self.assertIn(facts(server.fetch("/"))["pid"], server.workers())

    def test_arbiter_killed(self) -> None:
        """Workers exit when the arbiter is gone."""
        server = start_gunicorn(self, APP)
        (worker,) = server.workers()
        server.process.kill()
        server.process.wait()
        try:
            server.wait_for(
                lambda: not is_alive(worker),
                "the end of the worker",
                ANSWER_SECONDS,
                may_end=True,
            )
        finally:
            if is_alive(worker):
                os.kill(worker, signal.SIGKILL)
        self.assertIn("Parent changed, shutting down", server.log())

    def assert_replaced(self, path: str) -> GunicornProcess:
        """Fail unless a request that blocks ends its worker, and the log says why."""
        server = start_gunicorn(self, "--timeout=2", APP)
        old = frozenset(server.workers())
        with server.connect() as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            server.wait_workers(1, without=old)
        self.assertIn("WORKER TIMEOUT", server.log())
        self.assertIn('gunicorn_app.py", line ', server.log())
        return server

    def test_busy_worker(self) -> None:
        """A worker that computes for ever is replaced; the log names the request."""
        server = self.assert_replaced("/spin")
        self.assertRegex(
            server.log(), r"GET /spin \(request \S+\) has blocked the worker for"
        )
        self.assertRegex(server.log(), r"exited with code 1")

    def test_blocked_in_c(self) -> None:
        """The stack of C code that holds the interpreter's lock is logged as well."""
        self.assert_replaced("/block-in-c")

    def test_graceful_timeout(self) -> None:
        """SIGTERM ends a worker within gunicorn's graceful timeout, not by SIGKILL."""
        server = start_gunicorn(
            self, "--graceful-timeout=4", "tests.integration.exit_app:app"
        )
        (worker,) = server.workers()
        with server.connect():
            self.assertEqual(server.stop(), 0)
        self.assertFalse(is_alive(worker))
        self.assertNotIn("SIGKILL", server.log())

    def test_signals_of_terminals(self) -> None:
        """SIGHUP and SIGWINCH do not end a worker."""
        server = start_gunicorn(self, APP)
        (worker,) = server.workers()
        for number in (signal.SIGHUP, signal.SIGWINCH):
            os.kill(worker, number)
        self.assertEqual(facts(server.fetch("/"))["pid"], worker)


class PreloadTests(SynchronousTestCase):
    """`gunicorn --preload`."""

    def test_preload(self) -> None:
        """A preloaded application is patched in the worker."""
        server = start_gunicorn(self, "--preload", APP)
        threads = [Thread(target=server.fetch, args=("/sleep",)) for _ in range(10)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLess(time.monotonic() - started, 5.0)

    def test_patched_first(self) -> None:
        """With txgreenwsgi.patched, it is patched before the import."""
        server = start_gunicorn(
            self,
            "--preload",
            APP,
            prefix=(sys.executable, "-m", "txgreenwsgi.patched"),
        )
        self.assertEqual(server.fetch("/sleep").status, 200)

    def test_reactor(self) -> None:
        """A reactor from before the fork is refused, with the importer's name."""
        module = "tests.integration.gunicorn_reactor_app"
        server = start_gunicorn(self, "--preload", f"{module}:app", ready=False)
        self.assertEqual(server.process.wait(ANSWER_SECONDS), 4)
        self.assertIn(
            f"twisted.internet.reactor was imported (by {module}) before the fork",
            server.log(),
        )

    def test_reactor_in_worker(self) -> None:
        """Without --preload, an application may import the reactor."""
        module = "tests.integration.gunicorn_reactor_app"
        server = start_gunicorn(self, f"{module}:app")
        self.assertEqual(server.fetch("/").status, 200)


class RefusalTests(SynchronousTestCase):
    """Invalid configuration."""

    def assert_refused(self, message: str, *arguments: str) -> None:
        """Fail unless gunicorn ends with a message and without a traceback."""
        server = start_gunicorn(self, *arguments, APP, ready=False)
        self.assertEqual(server.process.wait(ANSWER_SECONDS), 4)
        self.assertIn(message, server.log())
        self.assertNotIn("Traceback", server.log())

    def test_variables(self) -> None:
        """An invalid variable of ours is named with its value and a remedy."""
        self.assert_refused(
            "TXGREENWSGI_MAX_BODY 'much'", "--env=TXGREENWSGI_MAX_BODY=much"
        )

    def test_protocol(self) -> None:
        """The uwsgi protocol is refused."""
        self.assert_refused("protocol='uwsgi' is not supported", "--protocol=uwsgi")
