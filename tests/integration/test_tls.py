"""TLS by options, with the clients that users have: openssl, curl, requests, httpx."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import requests
from twisted.trial.unittest import SynchronousTestCase

from tests.certificate import DAY, Authority
from tests.folders import short_folder

from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    START_SECONDS,
    TWISTD,
    ServerProcess,
    connect_unix,
    start,
)
from .restart_clients import RestartClients
from .test_workers import Workers

if TYPE_CHECKING:
    from tests.certificate import Issued

APP = "--app=tests.integration.tls_app:app"
LISTEN = f"--listen=https:0:interface={LOOPBACK}"
GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
CA = Authority()
INTERMEDIATE = Authority("Test Intermediate", CA)
CLIENTS = Authority("Clients")


class TLSTestCase(SynchronousTestCase):
    """A case with certificates in a directory."""

    def setUp(self) -> None:
        """Write the certificates of authority, server and client."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.ca = str(self.write("authorities/ca.pem", CA.pem))
        self.clients = str(self.write("authorities/clients.pem", CLIENTS.pem))
        self.site = self.directory / "site"
        self.site.mkdir()
        self.old = INTERMEDIATE.issue("shop.test", "localhost")
        self.cert, self.key = self.old.write(self.site)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file; return its path."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def serve(self, *options: str, app: str = APP) -> ServerProcess:
        """Serve with the certificate and further options."""
        given = [app, f"--tls-cert={self.cert}", f"--tls-key={self.key}"]
        if not any(option.startswith("--listen") for option in options):
            given.append(LISTEN)
        return start(self, "greenwsgi", *given, *options)

    def curl(
        self, server: ServerProcess, *options: str, name: str = "shop.test"
    ) -> tuple[int, Any]:
        """Return curl's status, and the JSON that it has got or its errors."""
        address = f"{name}:{server.port}:{LOOPBACK}"
        done = subprocess.run(
            [
                *("curl", "-sS", "--cacert", self.ca, "--resolve", address),
                *(*options, f"https://{name}:{server.port}/"),
            ],
            capture_output=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
        if done.returncode:
            return done.returncode, done.stderr.decode()
        return 0, json.loads(done.stdout)

    def openssl(self, server: ServerProcess, *options: str, data: bytes = b"") -> str:
        """Return the output of `openssl s_client`, errors included."""
        done = subprocess.run(
            [
                *("openssl", "s_client", "-connect", f"{LOOPBACK}:{server.port}"),
                *("-CAfile", self.ca, *options),
            ],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ANSWER_SECONDS,
            check=False,
        )
        return done.stdout.decode("utf-8", "replace")

    def serial(self, server: ServerProcess, name: str = "shop.test") -> int:
        """Return the serial number of the certificate that a client gets."""
        context = ssl.create_default_context(cafile=self.ca)
        context.check_hostname = False
        address = (LOOPBACK, server.port)
        with (
            socket.create_connection(address, ANSWER_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            certificate: Any = secure.getpeercert()
            return int(certificate["serialNumber"], 16)


class ServerTests(TLSTestCase):
    """Names, versions, ciphers and protocols."""

    def test_names(self) -> None:
        """Curl verifies the certificate of each name of a directory."""
        INTERMEDIATE.issue("*.a.test").write(self.site, "other")
        server = start(self, "greenwsgi", APP, LISTEN, f"--tls-dir={self.site}")
        for name in ("shop.test", "x.a.test"):
            status, found = self.curl(server, name=name)
            self.assertEqual(status, 0, found)
            self.assertEqual(found["SSL_TLS_SNI"], name)
            self.assertEqual(found["wsgi.url_scheme"], "https")
            self.assertEqual(found["REMOTE_ADDR"], LOOPBACK)
        for name in ("a.test", "x.y.a.test", "other.test"):
            status, found = self.curl(server, name=name)
            self.assertEqual(status, 60, found)
        server.wait_logged("no certificate for the server name 'a.test' of 127.0.0.1")

    def test_libraries(self) -> None:
        """Requests and httpx verify the chain and reuse the connection."""
        server = self.serve()
        url = f"https://localhost:{server.port}/"
        with requests.Session() as session:
            session.trust_env = False  # REQUESTS_CA_BUNDLE
            session.verify = self.ca
            for _ in range(3):
                self.assertEqual(session.get(url).json()["HTTPS"], "on")
        context = ssl.create_default_context(cafile=self.ca)
        with httpx.Client(verify=context) as client:
            for _ in range(3):
                self.assertEqual(client.get(url).json()["SSL_PROTOCOL"], "TLSv1.3")

    def test_openssl(self) -> None:
        """The chain is complete, TLS 1.3 is used, and ALPN selects http/1.1."""
        server = self.serve()
        text = self.openssl(
            server, "-servername", "shop.test", "-alpn", "h2,http/1.1", "-showcerts"
        )
        self.assertIn("Verify return code: 0 (ok)", text)
        self.assertIn("New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384", text)
        self.assertIn("ALPN protocol: http/1.1", text)
        self.assertEqual(text.count("BEGIN CERTIFICATE"), 2)
        text = self.openssl(server, "-alpn", "h2")
        self.assertIn("no application protocol", text)
        server.wait_logged("no common protocol, the client offers h2")

    def test_versions(self) -> None:
        """Versions below --tls-min are refused."""
        server = self.serve("--tls-min=1.3")
        self.assertIn("alert protocol version", self.openssl(server, "-tls1_2"))
        self.assertIn("New, TLSv1.3", self.openssl(server))
        server = self.serve()
        self.assertIn("New, TLSv1.2", self.openssl(server, "-tls1_2"))
        old = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        self.assertIn("alert protocol version", self.openssl(server, *old))

    def test_ciphers(self) -> None:
        """Only the ciphers of --tls-ciphers are accepted."""
        server = self.serve(
            "--tls-ciphers=ECDHE-ECDSA-CHACHA20-POLY1305:TLS_AES_128_GCM_SHA256"
        )
        text = self.openssl(server, "-tls1_2")
        self.assertIn("Cipher is ECDHE-ECDSA-CHACHA20-POLY1305", text)
        self.assertIn("Cipher is TLS_AES_128_GCM_SHA256", self.openssl(server))
        text = self.openssl(
            server, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"
        )
        self.assertIn("handshake failure", text)

    def test_renegotiation(self) -> None:
        """A client cannot renegotiate, which would cost the server more than it."""
        server = self.serve()
        text = self.openssl(server, "-tls1_2", data=b"R\n")
        self.assertRegex(text, "no renegotiation|handshake failure|unexpected message")

    def test_sessions(self) -> None:
        """A session is resumed on the next connection; early data is refused."""
        server = self.serve()
        for version in ("-tls1_2", "-tls1_3"):
            path = str(self.directory / version)
            # TLS 1.3 sends tickets behind the handshake: wait for a response.
            request = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            text = self.openssl(
                server, version, "-ign_eof", "-sess_out", path, data=request
            )
            self.assertIn("New, TLSv1", text)
            text = self.openssl(server, version, "-sess_in", path)
            self.assertIn("Reused, TLSv1", text)
        early = self.write("early", GET)
        text = self.openssl(server, "-sess_in", path, "-early_data", str(early))
        self.assertNotIn("Early data was accepted", text)

    def test_unix_socket(self) -> None:
        """TLS is possible on any endpoint, such as a UNIX socket."""
        path = short_folder(self) / "web"
        server = self.serve(f"--listen=https:unix:{path}")
        context = ssl.create_default_context(cafile=self.ca)
        with (
            connect_unix(path) as plain,
            context.wrap_socket(plain.socket, server_hostname="shop.test") as secure,
        ):
            secure.sendall(GET)
            self.assertTrue(secure.recv(65536).startswith(b"HTTP/1.1 200 OK"))
        server.ask_to_stop()
        server.wait_ended()

    def test_inherited_socket(self) -> None:
        """A socket of the parent process is served with TLS, as those of systemd."""
        for workers in ((), ("--workers=2",)):
            with socket.create_server((LOOPBACK, 0)) as listening:
                port = listening.getsockname()[1]
                fd = listening.fileno()
                server = start(
                    self,
                    *("greenwsgi", APP, f"--listen=https:fd:{fd}", *workers),
                    *(f"--tls-cert={self.cert}", f"--tls-key={self.key}"),
                    pass_fds=[fd],
                )
            server.ports = [port]
            status, found = self.curl(server)
            self.assertEqual((status, found["HTTPS"]), (0, "on"))

    def test_stop(self) -> None:
        """At a stop, an idle client is answered once more, and gets close_notify."""
        server = self.serve("--drain-idle=20")
        context = ssl.create_default_context(cafile=self.ca)
        with (
            socket.create_connection((LOOPBACK, server.port), ANSWER_SECONDS) as plain,
            context.wrap_socket(
                plain, server_hostname="shop.test", suppress_ragged_eofs=False
            ) as secure,
        ):
            secure.sendall(GET)
            self.assertNotIn(b"Connection: close", secure.recv(65536))
            server.ask_to_stop()
            server.wait_logged("Port .* Closed")
            secure.sendall(GET)
            received = b""
            while data := secure.recv(65536):  # raises without close_notify
                received += data
        self.assertIn(b"\r\nConnection: close\r\n", received)
        server.wait_ended()


class ClientTests(TLSTestCase):
    """Client certificates."""

    def setUp(self) -> None:
        """Write those of two clients."""
        super().setUp()
        self.mine = CLIENTS.issue("ann.test", serial=0xABC)
        cert, key = self.mine.write(self.directory, "ann")
        self.ann = ("--cert", cert, "--key", key)
        cert, key = CA.issue("eve.test").write(self.directory, "eve")
        self.eve = ("--cert", cert, "--key", key)
        cert, key = CLIENTS.issue("old.test", lifetime=-DAY).write(
            self.directory, "old"
        )
        self.expired = ("--cert", cert, "--key", key)

    def test_required(self) -> None:
        """Without a valid certificate there is no response."""
        server = self.serve(f"--tls-client-ca={self.clients}")
        for options in ((), self.eve, self.expired):
            for version in ("--tls-max", "1.2"), ("--tlsv1.3",):
                status, text = self.curl(server, *options, *version)
                self.assertNotEqual(status, 0, text)
        status, found = self.curl(server, *self.ann)
        self.assertEqual(status, 0, found)
        self.assertEqual(found["SSL_CLIENT_VERIFY"], "SUCCESS")
        self.assertEqual(found["SSL_CLIENT_M_SERIAL"], "0ABC")
        self.assertEqual(found["SSL_CLIENT_S_DN"], "CN=test")
        self.assertEqual(found["SSL_CLIENT_I_DN"], "CN=Clients")
        self.assertEqual(found["SSL_CLIENT_CERT"], self.mine.cert_pem.decode())
        server.wait_logged("TLS refused: 127.0.0.1: the client certificate")

    def test_times(self) -> None:
        """The validity has the format of `openssl x509`."""
        server = self.serve(f"--tls-client-ca={self.clients}")
        _, found = self.curl(server, *self.ann)
        done = subprocess.run(
            ["openssl", "x509", "-in", self.ann[1], "-noout", "-dates", "-serial"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(
            done.stdout.splitlines(),
            [
                f"notBefore={found['SSL_CLIENT_V_START']}",
                f"notAfter={found['SSL_CLIENT_V_END']}",
                f"serial={found['SSL_CLIENT_M_SERIAL']}",
            ],
        )

    def test_optional(self) -> None:
        """A certificate may be missing, but not be invalid."""
        server = self.serve(f"--tls-client-ca={self.clients}", "--tls-client=optional")
        status, found = self.curl(server)
        self.assertEqual((status, found["SSL_CLIENT_VERIFY"]), (0, "NONE"))
        status, found = self.curl(server, *self.ann)
        self.assertEqual((status, found["SSL_CLIENT_VERIFY"]), (0, "SUCCESS"))
        for options in (self.eve, self.expired):
            status, text = self.curl(server, *options)
            self.assertNotEqual(status, 0, text)

    def test_endpoints(self) -> None:
        """Each endpoint may have options of its own."""
        server = start(
            self,
            *("greenwsgi", APP, f"--tls-cert={self.cert}", f"--tls-key={self.key}"),
            *(LISTEN, f"{LISTEN}:client-ca={self.clients}"),
            endpoints=2,
        )
        status, found = self.curl(server)
        self.assertEqual((status, found["SSL_CLIENT_VERIFY"]), (0, "NONE"))
        server.ports.reverse()
        status, found = self.curl(server)
        self.assertNotEqual(status, 0, found)
        status, found = self.curl(server, *self.ann)
        self.assertEqual((status, found["SSL_CLIENT_VERIFY"]), (0, "SUCCESS"))


class RenewalTests(TLSTestCase):
    """Renewed certificates."""

    def renew(self, server: ServerProcess, new: Issued, times: int) -> None:
        """Replace the certificate, tell the server, and wait until it is used."""
        new.write(self.site)
        server.process.send_signal(signal.SIGHUP)
        server.wait_logged(f"(?s)(TLS certificate renewed.*){{{times}}}")
        self.assertEqual(self.serial(server), new.certificate.serial_number)

    def test_under_load(self) -> None:
        """Renewals, also invalid ones, fail no request, kept alive or not."""
        server = self.serve(app="--app=tests.integration.restart_app:app")
        clients = RestartClients(self, [server.port], kept=10, closing=5, tls=True)
        for number in range(1, 4):
            new = INTERMEDIATE.issue("shop.test")
            self.renew(server, new, number)
            self.write("site/site.key", INTERMEDIATE.issue("shop.test").key_pem)
            server.process.send_signal(signal.SIGHUP)
            server.wait_logged(f"(?s)(TLS certificates are not renewed.*){{{number}}}")
            self.assertEqual(self.serial(server), new.certificate.serial_number)
        outcome = clients.finish(21)
        self.assertEqual(outcome.failures, [], server.log())
        self.assertGreater(outcome.answered, 20)

    def test_workers(self) -> None:
        """A reload replaces workers by others with the renewed certificate."""
        server = Workers(
            *("greenwsgi", "--app=tests.integration.restart_app:app", LISTEN),
            *(f"--tls-cert={self.cert}", f"--tls-key={self.key}", "--workers=2"),
        )
        self.addCleanup(server.kill)
        server.wait_ready(2)
        clients = RestartClients(self, [server.port], kept=5, closing=5, tls=True)
        for number in (1, 2):
            new = INTERMEDIATE.issue("shop.test")
            new.write(self.site)
            server.reload(number)
            for _ in range(8):
                self.assertEqual(self.serial(server), new.certificate.serial_number)
        outcome = clients.finish()
        self.assertEqual(outcome.failures, [], server.log())
        server.ask_to_stop()
        server.wait_ended()

    def test_noticed(self) -> None:
        """A certificate behind a link, as those of certbot, is noticed within 20 s."""
        live, archive = self.directory / "live", self.directory / "archive"
        live.mkdir()
        archive.mkdir()

        def point_to(version: int, issued: Issued) -> None:
            for name, content in (
                ("fullchain", issued.chain_pem),
                ("privkey", issued.key_pem),
            ):
                target = archive / f"{name}{version}.pem"
                target.write_bytes(content)
                temporary = live / f".{name}"
                temporary.symlink_to(target)
                os.replace(temporary, live / f"{name}.pem")

        point_to(1, self.old)
        self.cert, self.key = str(live / "fullchain.pem"), str(live / "privkey.pem")
        server = self.serve()
        self.assertEqual(self.serial(server), self.old.certificate.serial_number)
        new = INTERMEDIATE.issue("shop.test")
        point_to(2, new)
        server.wait_logged("TLS certificate renewed: shop.test", 2 * ANSWER_SECONDS)
        self.assertEqual(self.serial(server), new.certificate.serial_number)

    def test_resumed_after_a_renewal(self) -> None:
        """Sessions from before a renewal are resumed."""
        server = self.serve()
        context = ssl.create_default_context(cafile=self.ca)
        address = (LOOPBACK, server.port)

        def connect(session: ssl.SSLSession | None) -> tuple[Any, bool]:
            with (
                socket.create_connection(address, ANSWER_SECONDS) as plain,
                context.wrap_socket(
                    plain, server_hostname="shop.test", session=session
                ) as secure,
            ):
                secure.sendall(GET)
                secure.recv(65536)
                return secure.session, bool(secure.session_reused)

        session, _ = connect(None)
        self.renew(server, INTERMEDIATE.issue("shop.test"), 1)
        self.assertTrue(connect(session)[1])


class CommandTests(TLSTestCase):
    """Errors at the start, and `--check-config`."""

    def command(self, *options: str) -> tuple[int, str]:
        """Run the command with the certificate; return its status and its output."""
        done = subprocess.run(
            [*TWISTD, "-n", "--pidfile=", "greenwsgi", APP, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=START_SECONDS,
            cwd=CHECKOUT,
        )
        return done.returncode, done.stdout

    def test_errors(self) -> None:
        """A wrong file is an error with the option, the value and the remedy."""
        other = str(self.write("other.key", CA.issue("x.test").key_pem))
        secret = str(self.write("secret.key", self.old.encrypted_key_pem))
        cert = f"--tls-cert={self.cert}"
        for options, message in {
            (
                cert,
                f"--tls-key={other}",
            ): "is not the private key of the certificate in",
            (cert, f"--tls-key={secret}"): "decrypt it with: openssl pkey",
            (cert,): "contains no private key",
            ("--tls-cert=/no",): "--tls-cert '/no', which cannot be read",
            (f"--tls-dir={self.directory}/authorities",): "contains no certificate",
            ("--tls-cert=",): "--tls-cert '' is empty",
            (
                cert,
                "--listen=tcp:0",
            ): "is used by no endpoint: give --listen https:8443",
            ("--listen=https:0",): "has no certificate: give --tls-cert",
            ("--tls-key=x",): "--tls-key 'x' has no certificate",
            ("--tls-client=required",): "has no authority to verify",
            ("--tls-min=1.1",): "give 1.2 or 1.3",
        }.items():
            status, text = self.command("--check-config", *options)
            self.assertEqual(status, 1, text)
            self.assertIn(message, text)
            self.assertNotIn("Traceback", text)

    def test_check_config(self) -> None:
        """Valid files are reported, with warnings about them."""
        old = INTERMEDIATE.issue("shop.test", lifetime=-DAY)
        cert, key = old.write(self.directory, "expired")
        status, text = self.command(
            "--check-config", f"--tls-cert={cert}", f"--tls-key={key}"
        )
        self.assertEqual(status, 0, text)
        self.assertIn("warning: the certificate of shop.test in ", text)
        self.assertIn("has expired on", text)
        self.assertIn("on https:8443", text)

    def test_expired_at_the_start(self) -> None:
        """An expired certificate is served, with a warning in the log."""
        old = INTERMEDIATE.issue("shop.test", lifetime=-DAY)
        self.cert, self.key = old.write(self.directory, "expired")
        server = self.serve()
        [line] = re.findall(r".*has expired on.*", server.log())
        self.assertIn("renew it", line)
        self.assertIn("certificate has expired", self.openssl(server))
