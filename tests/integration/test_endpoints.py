"""The kinds of endpoints that a server is likely to listen on."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .processes import ANSWER_SECONDS, LOOPBACK, RawClient, start

if TYPE_CHECKING:
    from .processes import ServerProcess

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def write_certificate(directory: Path, *hosts: str) -> tuple[Path, Path]:
    """Create a key and a certificate for the loopback address, valid for an hour.

    Args:
        directory: of the files.
        hosts: names that the certificate is also valid for.

    Returns:
        The paths of the certificate and of the key, both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    names += [x509.DNSName(host) for host in hosts]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path = directory / "certificate.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path = directory / "key.pem"
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path


class EndpointTests(SynchronousTestCase):
    """The same application on different endpoints."""

    def test_unix_socket(self) -> None:
        """A UNIX socket is served; the server removes its file when it stops."""
        path = short_folder(self) / "web"
        app = "--app=examples.hello:app"
        server = start(self, "greenwsgi", app, f"--listen=unix:{path}")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(ANSWER_SECONDS)
        with RawClient(sock) as client:
            sock.connect(str(path))
            client.send(GET)
            answer = client.read_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nHello, world!\n"), answer)
        server.ask_to_stop()
        server.wait_ended()
        self.assertFalse(path.exists())

    def start_tls(self, *options: str) -> tuple[ServerProcess, Path]:
        """Return a server that listens for TLS, and the path of its certificate."""
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        certificate, key = write_certificate(directory)
        server = start(
            self,
            "greenwsgi",
            *options,
            f"--listen=ssl:0:interface={LOOPBACK}"
            f":certKey={certificate.absolute()}:privateKey={key.absolute()}",
        )
        return server, certificate

    def test_tls(self) -> None:
        """TLS is served with HTTP/1.1 and a certificate that the client verifies."""
        server, certificate = self.start_tls("--app=examples.flask_app:app")
        context = ssl.create_default_context(cafile=str(certificate))
        context.set_alpn_protocols(["h2", "http/1.1"])
        plain = server.connect().socket
        secure = context.wrap_socket(plain, server_hostname=LOOPBACK)
        with RawClient(secure) as client:
            client.send(
                b"GET /stream?lines=3 HTTP/1.1\r\nHost: localhost\r\n"
                b"Connection: close\r\n\r\n"
            )
            answer = client.read_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertIn(b"line 3 of 3\n", answer)
        self.assertNotEqual(secure.selected_alpn_protocol(), "h2")

    def test_no_common_protocol(self) -> None:
        """A client that offers only unknown protocols gets the alert of RFC 7301."""
        server, certificate = self.start_tls("--app=examples.hello:app")
        context = ssl.create_default_context(cafile=str(certificate))
        context.set_alpn_protocols(["h2", "spdy/3"])
        with server.connect() as client:
            error = self.assertRaises(
                ssl.SSLError,
                context.wrap_socket,
                client.socket,
                server_hostname=LOOPBACK,
            )
        self.assertIn("NO_APPLICATION_PROTOCOL", str(error).upper().replace(" ", "_"))
        server.wait_logged("TLS refused: .*no common protocol, .*h2, spdy/3")

    def test_plain_text_on_a_tls_port(self) -> None:
        """A client that does not speak TLS is disconnected at once."""
        server, _ = self.start_tls("--app=examples.hello:app", "--keep-alive=1000")
        with server.connect() as client:
            client.send(GET)
            self.assertNotIn(b"HTTP", client.read_all())

    def test_several_at_once(self) -> None:
        """One process listens on all the endpoints of its command line."""
        listen = f"--listen=tcp:0:interface={LOOPBACK}"
        app = "--app=examples.hello:app"
        server = start(self, "greenwsgi", app, listen, listen, endpoints=2)
        for port in server.ports:
            with server.connect(port) as client:
                client.send(GET)
                self.assertIn(b"Hello, world!", client.read_all())
