"""The PROXY protocol of real proxies: HAProxy and nginx."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPResponse
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.folders import short_folder

from .processes import LOOPBACK, ServerProcess, start, wait_for
from .services import HAProxy, Nginx, Service
from .test_endpoints import write_certificate

APP = "tests.integration.edges_app:app"
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
PATIENCE_SECONDS = 30.0


class SendingHAProxy(HAProxy):
    """HAProxy with one server, to which it sends the header.

    Args:
        server: address of the server.
        options: of the server.
        mode: "tcp" or "http".
        bind: options of the frontend.
    """

    def __init__(
        self, server: str, options: str, mode: str = "tcp", bind: str = ""
    ) -> None:
        super().__init__([])
        self._server = server
        self._options = options
        self._mode = mode
        self._bind = bind

    def _configuration(self, folder: str) -> str:
        check = "option httpchk GET /-/ready" if self._mode == "http" else ""
        return f"""
global
    stats socket {folder}/stats
defaults
    mode {self._mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend web
    bind {LOOPBACK}:{self.port} {self._bind}
    bind {folder}/web {self._bind}
    default_backend servers
backend servers
    {check}
    server web {self._server} {self._options} check inter 200ms rise 1 fall 1
"""

    def wait_checked(self) -> None:
        """Wait until the server has passed a check: before the first one it is up."""
        wait_for(
            lambda: "L7OK" in self._stats(),
            lambda: f"a check\n{self._stats()}",
            PATIENCE_SECONDS,
        )

    @property
    def socket_path(self) -> str:
        """The UNIX socket on which HAProxy listens too."""
        return f"{self._folder}/web"


class SendingNginx(Nginx):
    """nginx that passes on TCP connections with a header of version 1."""

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server

    def configuration(self, folder: str) -> str:
        """Pass the connections on to the server."""
        if not STREAM_MODULE.exists():
            raise SkipTest("nginx's stream module is not installed")
        return (
            f"load_module {STREAM_MODULE};\nstream {{\n"
            f"    server {{\n        listen {LOOPBACK}:{self.port};\n"
            f"        proxy_pass {self._server};\n        proxy_protocol on;\n"
            "    }\n}\n"
        )


class ProxyProtocolTests(SynchronousTestCase):
    """A server behind a real proxy."""

    def serve(self, *options: str, tls: bool = False) -> ServerProcess:
        """Start a server that believes the proxies on the loopback interface."""
        self.folder = short_folder(self)
        self.log = self.folder / "access.log"
        self.folder.chmod(0o755)
        kind = "tcp"
        words = list(options)
        if tls:
            kind = "https"
            certificate, key = write_certificate(self.folder)
            words += [f"--tls-cert={certificate}", f"--tls-key={key}"]
        return start(
            self,
            *("greenwsgi", f"--app={APP}", f"--access-log={self.log}"),
            f"--listen={kind}:0:interface={LOOPBACK}",
            f"--proxy-protocol-from={LOOPBACK}",
            "--health-path=/-",
            *words,
        )

    def fetch(
        self, address: tuple[str, int] | str, *, tls: bool = False, count: int = 2
    ) -> tuple[str, list[str]]:
        """Return the client's own address and the bodies that it gets."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        client = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(address)
        own = "" if isinstance(address, str) else "{} {}".format(*client.getsockname())
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            client = context.wrap_socket(client)
            self.addCleanup(client.close)
        bodies = []
        for _ in range(count):
            client.sendall(b"GET /scheme HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            response = HTTPResponse(client)
            response.begin()
            self.assertEqual(response.status, 200)
            bodies.append(response.read().decode())
        return own, bodies

    def assert_client(self, proxy: Service, scheme: str, tls: bool = False) -> None:
        """Fail unless the application and the access log get the client's address."""
        own, bodies = self.fetch((LOOPBACK, proxy.port), tls=tls)
        self.assertEqual(bodies, [f"{own} {scheme}"] * 2)

    def test_haproxy_tcp(self) -> None:
        """HAProxy in TCP mode, with version 1, version 2, and a checksum."""
        for version, options in (
            ("v1", "send-proxy"),
            ("v2", "send-proxy-v2"),
            ("auto", "send-proxy"),
            ("auto", "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
        ):
            server = self.serve(f"--proxy-protocol={version}")
            with SendingHAProxy(f"{LOOPBACK}:{server.port}", options) as proxy:
                self.assert_client(proxy, "http")
            server.ask_to_stop()
            server.wait_ended()
            self.assertNotIn("PROXY protocol:", server.log())

    def test_haproxy_tls_below(self) -> None:
        """HAProxy passes on TLS that the server terminates, behind the header."""
        server = self.serve("--proxy-protocol=auto", tls=True)
        for options in ("send-proxy", "send-proxy-v2"):
            with SendingHAProxy(f"{LOOPBACK}:{server.port}", options) as proxy:
                self.assert_client(proxy, "https", tls=True)

    def test_haproxy_tls_above(self) -> None:
        """HAProxy terminates TLS and says so; the scheme is https."""
        server = self.serve("--proxy-protocol=v2")
        certificate, key = write_certificate(self.folder)
        pem = self.folder / "both.pem"
        pem.write_bytes(certificate.read_bytes() + key.read_bytes())
        pem.chmod(0o644)
        for options, scheme in (
            ("send-proxy-v2-ssl", "https"),
            ("send-proxy-v2", "http"),
        ):
            with SendingHAProxy(
                f"{LOOPBACK}:{server.port}", options, bind=f"ssl crt {pem}"
            ) as proxy:
                self.assert_client(proxy, scheme, tls=True)

    def test_haproxy_http(self) -> None:
        """HAProxy in HTTP mode: its health checks pass, as LOCAL or by a header."""
        for options in ("send-proxy check-send-proxy", "send-proxy-v2"):
            server = self.serve("--proxy-protocol=auto")
            proxy = SendingHAProxy(f"{LOOPBACK}:{server.port}", options, mode="http")
            with proxy:
                proxy.wait_checked()
                self.assert_client(proxy, "http")
            self.assertIn("/-/ready", self.log.read_text())
            self.assertNotIn("PROXY protocol:", server.log())

    def test_haproxy_unix(self) -> None:
        """A client of HAProxy on a UNIX socket, and a server on one."""
        folder = short_folder(self)
        folder.chmod(0o755)
        server = start(
            self,
            *("greenwsgi", f"--app={APP}", "--proxy-protocol=auto"),
            f"--listen=unix:{folder}/web:mode=666",
        )
        for options in ("send-proxy", "send-proxy-v2"):
            proxy = SendingHAProxy(f"unix@{folder}/web", options)
            with proxy:
                self.assert_client(proxy, "http")
                _, bodies = self.fetch(proxy.socket_path)
                self.assertEqual(bodies, ["  http"] * 2)
        self.assertNotIn("PROXY protocol:", server.log())

    def test_haproxy_without_header(self) -> None:
        """A proxy that sends no header is closed; the log says what to do."""
        server = self.serve("--proxy-protocol=auto")
        with SendingHAProxy(f"{LOOPBACK}:{server.port}", "") as proxy:
            self.assertRaises(
                (AssertionError, OSError), self.fetch, (LOOPBACK, proxy.port)
            )
        server.wait_logged("let it send the PROXY protocol, or remove it")

    def test_nginx(self) -> None:
        """Nginx passes on TCP connections, also of TLS."""
        for tls in (False, True):
            server = self.serve("--proxy-protocol=v1", tls=tls)
            with SendingNginx(f"{LOOPBACK}:{server.port}") as proxy:
                self.assert_client(proxy, "https" if tls else "http", tls=tls)
