"""The `https:` endpoint: its strings, its errors, and requests through it."""

from __future__ import annotations

import json
import ssl
import sys
from functools import partial
from http.client import HTTPResponse
from io import BytesIO
from typing import Any
from unittest.mock import patch

from twisted.logger import LogLevel

from tests.certificate import DAY
from tests.tls.handshakes import client_context, listener
from tests.tls.test_certificates import CA, INTERMEDIATE, FilesTestCase
from txgreenwsgi import service
from txgreenwsgi._server import collection
from txgreenwsgi._server.client_hello import ClientHelloFactory
from txgreenwsgi._server.endpoints import check_endpoint, make_endpoint
from txgreenwsgi._server.errors import EndpointError
from txgreenwsgi._server.https import HTTPSListeners, check_certificates, parse_https
from txgreenwsgi._server.service import GreenService
from txgreenwsgi._server.site import GreenSite
from txgreenwsgi._tls.listener import Loaded, TLSListener
from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi._tls.renewal import CHECK_SECONDS, SETTLE_SECONDS

from .application import application
from .test_service import Reactor
from .tls import TLSClient
from .wire import WireTestCase, get


class StringTests(FilesTestCase):
    """Endpoint strings that begin with `https:`."""

    def refusal(self, text: str, tls: TLSOptions | None = None) -> str:  # type: ignore[override]
        """Return the message for a wrong string."""
        error = self.assertRaises(
            EndpointError, check_endpoint, text, tls=tls or TLSOptions()
        )
        self.assertTrue(str(error).startswith(f"listen={text!r} "), str(error))
        return f"{error.problem}: {error.remedy}"

    def test_inner(self) -> None:
        """A port stands for tcp:; any other endpoint may follow instead."""
        for text, inner in {
            "https:443": "tcp:443",
            "https:port=443": "tcp:port=443",
            "https:443:interface=127.0.0.1": "tcp:443:interface=127.0.0.1",
            "https:1:interface=\\:\\:1:v6only=0": "tcp:1:interface=\\:\\:1:v6only=0",
            "https:tcp6:443": "tcp6:443",
            "https:unix:/run/app.sock:mode=660": "unix:/run/app.sock:mode=660",
            "https:systemd:name=web": "systemd:name=web",
            "https:fd:3": "fd:3",
            "https:cert=a:443:key=b": "tcp:443",
        }.items():
            self.assertEqual(parse_https(text).inner, inner)

    def test_arguments(self) -> None:
        """Arguments have the names of the options, and escaped colons."""
        self.assertEqual(
            parse_https(
                "https:443:cert=C\\:/a.pem:client-ca=b:client_ca=c".rpartition(":")[0]
                + ":ciphers=A\\:B:min=1.3:dir=d:key=k:client=optional"
            ).arguments,
            {
                "cert": "C:/a.pem",
                "client_ca": "b",
                "ciphers": "A:B",
                "min": "1.3",
                "dir": "d",
                "key": "k",
                "client": "optional",
            },
        )

    def test_wrong_strings(self) -> None:
        """A wrong string is refused with an example."""
        for text, message in {
            "https:": "has neither a port nor an endpoint after 'https:': give one",
            "https:ssl:443": "has neither a port nor an endpoint after 'https:'",
            "https:interface=127.0.0.1": "has neither a port nor an endpoint",
            "https:127.0.0.1:443": "give https:443:interface=127.0.0.1",
            "https:localhost:443": "give https:443:interface=127.0.0.1",
            "https:[::1]:443": "give https:tcp6:443:interface=\\:\\:1",
            "https:443:certKey=a": "has the argument certKey= of another endpoint: "
            "give cert=",
            "https:443:privateKey=a": "give key=",
            "https:443:cert=a:cert=b": "has more than one cert=: give one value",
            "https:443:cert=": "has no value for cert=: give one value",
            "https:70000:cert=a": "has no valid port number",
            "https:443:x=y:cert=a": "is not a valid endpoint string (",
            "https:fd:x": "is not the number of a descriptor",
            "https:443": "has no certificate: give --tls-cert or --tls-dir, or cert=",
            "https:443:key=a": "uses key='a', which has no certificate: give",
            "https:443:cert=a:min=1": "uses min='1', which is not a minimum version",
            "https:443:cert=/no": "uses cert='/no', which cannot be read (No such",
        }.items():
            self.assertIn(message, self.refusal(text), text)

    def test_options(self) -> None:
        """The options of the command are the defaults of the arguments."""
        cert, key = INTERMEDIATE.issue("shop.test").write(self.directory)
        tls = TLSOptions(cert=cert, key=key)
        check_endpoint("https:443", tls=tls)
        check_endpoint(f"https:443:cert={cert}:key={key}")
        text = self.refusal(f"https:443:cert={cert}", tls)
        self.assertIn(f"uses cert={cert!r}, which contains no private key", text)
        text = self.refusal("https:443", TLSOptions(cert=key))
        self.assertIn(
            f"uses --tls-cert {key!r}, which contains a private key but", text
        )

    def test_syntax_only(self) -> None:
        """While the options are not known, only the syntax is checked."""
        check_endpoint("https:443", tls=None)
        self.assertRaises(EndpointError, check_endpoint, "https:x", tls=None)

    def test_paths_that_are_not_final(self) -> None:
        """Unreadable files pass, if paths may change before the start."""
        check_endpoint("https:443:cert=/no", paths_are_final=False)
        path = self.write("wrong.pem", b"nonsense")
        self.assertRaises(
            EndpointError,
            check_endpoint,
            f"https:443:cert={path}",
            paths_are_final=False,
        )

    def test_findings(self) -> None:
        """Findings about usable files are returned."""
        cert, key = INTERMEDIATE.issue("a.test", lifetime=-DAY).write(self.directory)
        [finding] = check_certificates("https:443", TLSOptions(cert=cert, key=key))
        self.assertIn("has expired", finding)

    def test_missing_package(self) -> None:
        """Without pyOpenSSL, the message gives the command that installs it."""
        missing = {"txgreenwsgi._tls.listener": None}
        with patch.dict(sys.modules, missing):
            text = self.refusal("https:443:cert=a")
        self.assertIn("needs a package that is not installed (", text)
        self.assertIn("run pip install 'txgreenwsgi[tls]'", text)

    def test_twisteds_endpoint(self) -> None:
        """`tls:443`, a directory for Twisted, is refused with the right string."""
        self.assertEqual(
            self.refusal("tls:443:interface=127.0.0.1"),
            "is Twisted's endpoint for a directory of certificates, and '443' is no "
            "directory: give https:443:interface=127.0.0.1 with --tls-cert or "
            "--tls-dir",
        )


class ServiceTests(FilesTestCase, WireTestCase):
    """`https:` endpoints of a service."""

    def setUp(self) -> None:
        """Write a certificate, and make a reactor in memory."""
        WireTestCase.setUp(self)
        FilesTestCase.setUp(self)
        self.cert, self.key = INTERMEDIATE.issue("shop.test").write(self.directory)
        self.reactor = Reactor()
        self.addCleanup(self.stop_freezers)

    def stop_freezers(self) -> None:
        """Undo the freezing by services that a test does not stop."""
        for freezer in list(collection.started):
            freezer.stop()

    def test_listens(self) -> None:
        """The first message is read before TLS, with our backlog and our clock."""
        made = service(
            application,
            [f"https:443:cert={self.cert}:key={self.key}:interface=127.0.0.1"],
            reactor=self.reactor,
        )
        made.startService()
        [(port, made_factory, backlog, interface)] = self.reactor.tcpServers
        factory: Any = made_factory
        self.assertEqual((port, backlog, interface), (443, 1024, "127.0.0.1"))
        self.assertIs(type(factory), ClientHelloFactory)
        self.assertIs(factory.site, made.site)
        self.assertIs(factory.below.wrappedFactory, made.site)
        self.assert_logged("TLS certificate: shop.test, expires")

    def test_shared(self) -> None:
        """Endpoints with the same options share their certificates."""
        text = f"cert={self.cert}:key={self.key}"
        listeners = HTTPSListeners(
            TLSOptions(), GreenSite(application, reactor=self.reactor)
        )
        first, second, third = (
            listeners.endpoint(each, partial(make_endpoint, self.reactor)).tls
            for each in (
                f"https:1:{text}",
                f"https:2:{text}",
                f"https:3:{text}:min=1.3",
            )
        )
        self.assertIs(first, second)
        self.assertIsNot(first, third)

    def test_options(self) -> None:
        """The options of the service are the defaults."""
        made = GreenService(
            lambda: application,
            ["https:443"],
            reactor=self.reactor,
            tls=TLSOptions(cert=self.cert, key=self.key),
        )
        made.privilegedStartService()
        self.assertEqual(len(self.reactor.tcpServers), 1)

    def test_refusals(self) -> None:
        """A wrong file prevents the start, and no port stays open."""
        made = GreenService(
            lambda: application,
            ["tcp:80", "https:443"],
            reactor=self.reactor,
            tls=TLSOptions(cert=self.key),
        )
        error = self.assertRaises(EndpointError, made.privilegedStartService)
        self.assertIn("listen='https:443' uses --tls-cert", str(error))
        self.assertEqual(made.ports, [])

    def test_wrong_inner_string(self) -> None:
        """An error of the endpoint below names the whole string."""
        text = f"https:unix::cert={self.cert}:key={self.key}:x=y"
        made = GreenService(lambda: application, [text], reactor=self.reactor)
        error = self.assertRaises(EndpointError, made.privilegedStartService)
        self.assertTrue(str(error).startswith(f"listen={text!r} is not a valid"))

    def test_renewal(self) -> None:
        """Renewal begins with the service, and ends with it."""
        made = GreenService(
            lambda: application,
            ["https:443"],
            reactor=self.reactor,
            tls=TLSOptions(cert=self.cert, key=self.key),
        )
        made.startService()
        new = INTERMEDIATE.issue("shop.test")
        new.write(self.directory)
        for _ in range(int(CHECK_SECONDS + SETTLE_SECONDS)):
            self.reactor.advance(1)
        self.assert_logged("TLS certificate renewed: shop.test")
        made.read_certificates()
        self.assert_logged("TLS certificates are unchanged")
        self.successResultOf(made.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_change_while_reading(self) -> None:
        """A certificate that changes while the service starts is read again."""
        made = GreenService(
            lambda: application,
            ["https:443"],
            reactor=self.reactor,
            tls=TLSOptions(cert=self.cert, key=self.key),
        )
        load = TLSListener.load

        def load_and_change(listener: TLSListener) -> Loaded:
            loaded = load(listener)
            if listener.loaded is None:
                INTERMEDIATE.issue("new.test").write(self.directory)
            return loaded

        self.patch(TLSListener, "load", load_and_change)
        made.startService()
        for _ in range(int(CHECK_SECONDS + SETTLE_SECONDS)):
            self.reactor.advance(1)
        self.assert_logged("TLS certificate renewed: new.test")
        self.successResultOf(made.stopService())

    def test_restarted(self) -> None:
        """A service that starts again reads its certificates again."""
        made = GreenService(
            lambda: application,
            ["https:443"],
            reactor=self.reactor,
            tls=TLSOptions(cert=self.cert, key=self.key),
        )
        made.startService()
        self.successResultOf(made.stopService())
        INTERMEDIATE.issue("new.test").write(self.directory)
        made.startService()
        self.assert_logged("TLS certificate: new.test")
        self.successResultOf(made.stopService())

    def test_twisteds_endpoint(self) -> None:
        """Twisted's `tls:` still serves a directory, on IPv4 and IPv6."""
        self.write("all.pem", INTERMEDIATE.issue("shop.test").chain_pem)
        text = f"tls:{self.directory}:port=4430"
        check_endpoint(text)
        seen: list[bool] = []

        def listening(reactor: object, ipv6_only: bool) -> object:
            seen.append(ipv6_only)
            return reactor

        self.patch(
            sys.modules["txgreenwsgi._server.endpoints"],
            "listening_reactor",
            lambda reactor, *, ipv6_only: listening(reactor, ipv6_only),
        )
        check_endpoint(text)
        check_endpoint(f"{text}:interface=\\:\\:1")
        check_endpoint(f"{text}:v6only=1")
        self.assertEqual(seen, [False, True, True])


class EnvironTests(FilesTestCase, WireTestCase):
    """The environ of requests through `https:`."""

    def setUp(self) -> None:
        """Write the certificates of the server and of its clients' authority."""
        WireTestCase.setUp(self)
        FilesTestCase.setUp(self)
        cert, key = INTERMEDIATE.issue("shop.test").write(self.directory)
        self.ca = self.write("ca.pem", CA.pem)
        self.files: dict[str, Any] = {"cert": cert, "key": key}

    def environ(self, client: TLSClient, *fields: str) -> dict[str, Any]:
        """Return the environ that the application has seen."""
        client.received = b""
        client.send(get("/environ", *fields))

        class Sock:
            def makefile(self, mode: str) -> BytesIO:
                return BytesIO(client.received)

        response = HTTPResponse(Sock())  # type: ignore[arg-type]
        response.begin()
        found: dict[str, Any] = json.loads(response.read())
        return found

    def client(
        self, tls: Any, mine: tuple[str, str] | None, **settings: Any
    ) -> TLSClient:
        """Return a client of a new server."""
        server = self.recorded(application, **settings)
        return TLSClient(
            server, tls=tls, context=client_context(CA, mine), name="shop.test"
        )

    def test_server_variables(self) -> None:
        """Every request has the variables of its connection."""
        client = self.client(listener(**self.files), None)
        for _ in range(2):
            found = self.environ(client)
            self.assertEqual(found["wsgi.url_scheme"], "https")
            self.assertEqual(found["HTTPS"], "on")
            self.assertEqual(found["SSL_PROTOCOL"], "TLSv1.3")
            self.assertEqual(found["SSL_TLS_SNI"], "shop.test")
            self.assertEqual(found["SSL_CLIENT_VERIFY"], "NONE")
            self.assertNotIn("SSL_CLIENT_CERT", found)

    def test_client_variables(self) -> None:
        """A client certificate is in the environ, and a header cannot forge it."""
        tls = listener(**self.files, client_ca=self.ca, client="optional")
        mine = CA.issue("ann.test", serial=255).write(self.directory, "ann")
        found = self.environ(self.client(tls, mine))
        self.assertEqual(found["SSL_CLIENT_VERIFY"], "SUCCESS")
        self.assertEqual(found["SSL_CLIENT_M_SERIAL"], "FF")
        self.assertIn("BEGIN CERTIFICATE", found["SSL_CLIENT_CERT"])
        found = self.environ(
            self.client(tls, None), "SSL-Client-Verify: SUCCESS", "Ssl_Client_S_Dn: x"
        )
        self.assertEqual(found["SSL_CLIENT_VERIFY"], "NONE")
        self.assertNotIn("SSL_CLIENT_S_DN", found)

    def test_deployment_variables(self) -> None:
        """`--environ` overrides the variables of the connection."""
        client = self.client(listener(**self.files), None, environ={"HTTPS": "off"})
        self.assertEqual(self.environ(client)["HTTPS"], "off")

    def test_behind_a_proxy(self) -> None:
        """Behind a trusted proxy, the variables are those of its connection."""
        client = self.client(listener(**self.files), None, trusted_proxy="*")
        found = self.environ(client, "X-Forwarded-For: 192.0.2.9")
        self.assertEqual(found["REMOTE_ADDR"], "192.0.2.9")
        self.assertEqual(found["SSL_CLIENT_VERIFY"], "NONE")

    def test_other_tls(self) -> None:
        """Over `ssl:`, nothing is said about client certificates."""
        found = self.environ(TLSClient(self.recorded(application)))
        self.assertEqual(found["HTTPS"], "on")
        self.assertNotIn("SSL_CLIENT_VERIFY", found)

    def test_plain(self) -> None:
        """A plain connection has none of these variables."""
        server = self.recorded(application)
        found = json.loads(server.request("GET", "/environ").body)
        self.assertFalse([name for name in found if name.startswith("SSL_")])
        self.assertNotIn("HTTPS", found)

    def test_refused_client(self) -> None:
        """A client without the required certificate reaches no application."""
        tls = listener(**self.files, client_ca=self.ca)
        server = self.recorded(application)
        error = self.assertRaises(
            ssl.SSLError, TLSClient, server, tls=tls, context=client_context(CA)
        )
        self.assertIn("certificate required", str(error))
        self.assertEqual(server.site.server.shutdown.connections, set())
        self.assertEqual(self.records, [])
        self.assertEqual(self.logged(LogLevel.warn), [])
