"""HTTP/2 with the clients that users have: curl, nghttp, h2load, httpx, Chromium."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.certificate import Authority

from .browser import NAMES, Browser, find_browser
from .http2_app import LARGE
from .processes import ANSWER_SECONDS, LOOPBACK, start, wait_for
from .services import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .processes import ServerProcess

APP = "--app=tests.integration.http2_app:app"
CA = Authority()


def run(*words: str) -> str:
    """Run a client, and return its output."""
    find_program(words[0])
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
    )
    if done.returncode:
        raise AssertionError(f"{words}: {done.stdout}{done.stderr}")
    return done.stdout


class Http2TestCase(SynchronousTestCase):
    """A case with a server over TLS, or on plain connections."""

    def serve_tls(self, *options: str, app: str = APP) -> ServerProcess:
        """Serve over TLS; the base URL is `base`."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        cert, key = CA.issue("localhost").write(directory)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(CA.pem)
        server = start(
            self,
            "greenwsgi",
            app,
            f"--listen=https:0:interface={LOOPBACK}:cert={cert}:key={key}",
            "--http2=tls",
            *options,
        )
        server.wait_logged("serves")
        self.base = f"https://localhost:{server.port}"
        return server

    def serve_plain(self, *options: str) -> ServerProcess:
        """Serve on plain connections; the base URL is `base`."""
        listen = f"--listen=tcp:0:interface={LOOPBACK}"
        server = start(self, "greenwsgi", APP, listen, "--http2=h2c", *options)
        server.wait_logged("serves")
        self.base = f"http://{LOOPBACK}:{server.port}"
        return server

    def wait_sleepers(self, count: int) -> None:
        """Wait until requests of /sleep have arrived: later ones may be refused."""
        wait_for(
            lambda: int(httpx.get(self.base + "/sleepers").text) >= count or None,
            f"{count} requests of /sleep",
        )


class CurlTests(Http2TestCase):
    """curl."""

    def curl(self, path: str, *options: str) -> tuple[str, str]:
        """Return the version of the response, and its body."""
        words = ["curl", "-sS", "-w", "\n%{http_version}", *options, self.base + path]
        if self.base.startswith("https"):
            words += ["--cacert", str(self.ca)]
        body, _, version = run(*words).rpartition("\n")
        return version, body

    def test_tls(self) -> None:
        """The version is negotiated; a download and an upload are complete."""
        self.serve_tls()
        version, body = self.curl("/", "--http2", "-b", "a=b; c=d")
        facts = json.loads(body)
        self.assertEqual(version, "2")
        self.assertEqual(facts["SERVER_PROTOCOL"], "HTTP/2.0")
        self.assertEqual(facts["wsgi.url_scheme"], "https")
        self.assertEqual(facts["HTTP_COOKIE"], "a=b; c=d")
        self.assertEqual(facts["HTTP_HOST"], self.base.removeprefix("https://"))
        self.assertEqual(self.curl("/", "--http1.1")[0], "1.1")
        self.assertEqual(len(self.curl("/large", "--http2")[1]), LARGE)
        upload = Path(self.mktemp()).absolute()
        upload.write_bytes(os.urandom(3_000_000))
        version, body = self.curl("/", "--http2", "--data-binary", f"@{upload}")
        self.assertEqual((version, json.loads(body)["size"]), ("2", 3_000_000))

    def test_plain(self) -> None:
        """Prior knowledge works beside HTTP/1.1 on the same port."""
        self.serve_plain()
        version, body = self.curl("/", "--http2-prior-knowledge")
        self.assertEqual(version, "2")
        self.assertEqual(json.loads(body)["wsgi.url_scheme"], "http")
        self.assertEqual(self.curl("/")[0], "1.1")
        self.assertEqual(self.curl("/", "--http2")[0], "1.1")
        size = len(self.curl("/large", "--http2-prior-knowledge")[1])
        self.assertEqual(size, LARGE)

    def test_off(self) -> None:
        """By default, only HTTP/1.1 is offered."""
        self.serve_tls("--http2=off")
        self.assertEqual(self.curl("/", "--http2")[0], "1.1")


class NghttpTests(Http2TestCase):
    """nghttp and h2load."""

    def test_nghttp(self) -> None:
        """Several requests, an upload, trailers and hints."""
        self.serve_plain()
        output = run("nghttp", "-nv", self.base + "/", self.base + "/hints")
        self.assertEqual(output.count(":status: 200"), 2)
        self.assertEqual(output.count(":status: 103"), 1)
        upload = Path(self.mktemp()).absolute()
        upload.write_bytes(bytes(300_000))
        words = ["--trailer=checksum: 1", f"-d{upload}", self.base + "/"]
        self.assertEqual(json.loads(run("nghttp", *words))["size"], 300_000)

    def test_h2load(self) -> None:
        """Many streams on several connections, with bodies in both directions."""
        upload = Path(self.mktemp()).absolute()
        upload.write_bytes(bytes(100_000))
        for serve in (self.serve_plain, self.serve_tls):
            serve()
            for path, count, *more in (
                ("/", 2000),
                ("/large", 20),
                ("/", 200, f"-d{upload}"),
            ):
                words = [f"-n{count}", "-c4", "-m20", *more, f"{self.base}{path}"]
                output = run("h2load", *map(str, words))
                self.assertIn(f" {count} succeeded, 0 failed", output)

    def test_sleepers(self) -> None:
        """A thousand requests that sleep share a connection, and a second or two."""
        self.serve_plain("--http2-max-streams=1000")
        output = run("h2load", "-n1000", "-c1", "-m1000", self.base + "/sleep")
        self.assertIn(" 1000 succeeded, 0 failed", output)
        finished = re.search(r"finished in ([\d.]+)s", output)
        assert finished is not None
        self.assertLess(float(finished[1]), 20)

    def test_stop(self) -> None:
        """Requests in flight are answered when the server stops."""
        server = self.serve_plain()
        find_program("h2load")
        client = subprocess.Popen(
            ["h2load", "-n100", "-c1", "-m100", self.base + "/sleep"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wait_sleepers(100)
        server.ask_to_stop()
        output, _ = client.communicate(timeout=ANSWER_SECONDS)
        server.wait_ended()
        # Those that had arrived; h2load opens no further connection.
        self.assertIn("0 failed, 0 errored", output)


class HttpxTests(Http2TestCase):
    """httpx, which is built on h2."""

    def test_requests(self) -> None:
        """Concurrent requests share a connection; bodies are complete."""
        self.serve_tls()
        import ssl

        context = ssl.create_default_context(cafile=str(self.ca))
        with (
            httpx.Client(http2=True, http1=False, verify=context) as client,
            ThreadPoolExecutor(20) as threads,
        ):
            replies = list(
                threads.map(lambda _: client.get(self.base + "/sleep"), range(20))
            )
            self.assertEqual({reply.http_version for reply in replies}, {"HTTP/2"})
            self.assertEqual({reply.status_code for reply in replies}, {200})
            self.assertEqual(len(client.get(self.base + "/large").content), LARGE)

            def pieces() -> Iterator[bytes]:
                for _ in range(100):
                    yield b"x" * 10_000

            reply = client.post(self.base + "/", content=pieces())
            self.assertEqual(reply.json()["size"], 1_000_000)

    def test_stop(self) -> None:
        """Requests in flight are answered when the server stops."""
        server = self.serve_plain()
        with (
            httpx.Client(http2=True, http1=False) as client,
            ThreadPoolExecutor(20) as threads,
        ):
            futures = [
                threads.submit(client.get, self.base + "/sleep") for _ in range(20)
            ]
            self.wait_sleepers(20)
            server.ask_to_stop()
            replies = [future.result() for future in futures]
        self.assertEqual({reply.status_code for reply in replies}, {200})
        server.wait_ended()


class BrowserTests(Http2TestCase):
    """Chromium with the page of the demonstration."""

    def test_demo(self) -> None:
        """The page works over one HTTP/2 connection."""
        executable = find_browser()
        if executable is None:
            raise SkipTest(f"no browser is installed: none of {', '.join(NAMES)}")
        self.serve_tls(app="--app=txgreenwsgi.demo:app")
        browser = Browser(self, executable, "--ignore-certificate-errors")
        browser.open(self.base + "/")
        found: Any = browser.run(
            "performance.getEntriesByType('navigation')[0].nextHopProtocol"
        )
        self.assertEqual(found, "h2")
        browser.run("document.querySelector('#sleep-form button').click()")
        browser.wait_true(
            "/200 sleeps/.test(document.getElementById('sleep-result').innerText)"
        )
        browser.run("document.querySelector('#upload-form button').click()")
        browser.wait_true(
            "/counted 4,194,304 bytes/"
            ".test(document.getElementById('upload-result').innerText)"
        )
        self.assertEqual(browser.complaints, [])
