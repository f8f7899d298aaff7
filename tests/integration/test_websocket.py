"""WebSockets with the libraries, clients and proxies that users have."""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import socketio
import websocket as websocket_client
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync import client as websockets_client
from websockets.typing import Origin

from tests.certificate import Authority

from .browser import NAMES, Browser, find_browser
from .processes import LOOPBACK, ServerProcess, serve, shared, start, wait_for
from .services import HAProxy, Nginx

if TYPE_CHECKING:
    from .processes import LoggedProcess

APPS = "tests.integration.websocket_apps"
SECONDS = 60.0
connect = partial(websockets_client.connect, open_timeout=60.0)
#: A WebSocket handshake without its key, which the application of a test answers.
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGVzdGluZyBpbiBtZW1vcg==\r\n\r\n"
)


def url(server: LoggedProcess, path: str = "/ws", scheme: str = "ws") -> str:
    """Return the address of a WebSocket."""
    return f"{scheme}://{LOOPBACK}:{server.port}{path}"


class ServerCase(SynchronousTestCase):
    """A case with a server."""

    def assert_echoes(self, address: str, **options: Any) -> None:
        """Fail unless messages of all kinds are sent back."""
        # An additional field would make the origin of a browser.
        with connect(address, **options) as client:
            for message in ("text", b"bytes", "ü" * 100_000, b"\0" * 1_000_000, ""):
                client.send(message)
                self.assertEqual(client.recv(SECONDS), message)

    def assert_no_request(self, server: LoggedProcess) -> None:
        """Fail unless the request that asks is soon the only one in flight."""
        wait_for(
            lambda: server.fetch("/requests").text == "1",
            lambda: f"the end of {server.fetch('/requests').text} requests",
        )


class FlaskSockTests(ServerCase):
    """Unmodified Flask-Sock."""

    APP = f"{APPS}:flask_sock"

    def test_clients(self) -> None:
        """`websockets` and `websocket-client` speak to it."""
        server = shared(self.APP)
        self.assert_echoes(url(server))
        self.assert_echoes(url(server), compression=None)
        client = websocket_client.create_connection(url(server), timeout=SECONDS)
        client.send("hi")
        self.assertEqual(client.recv(), "hi")
        client.close()
        with connect(url(server, "/clock")) as pushed:
            self.assertEqual([pushed.recv(SECONDS) for _ in range(3)], ["0", "1", "2"])
            with self.assertRaises(ConnectionClosed):
                pushed.recv(SECONDS)
        self.assert_no_request(server)

    def test_many(self) -> None:
        """Many WebSockets are open beside plain requests."""
        server = shared(self.APP)
        clients = [connect(url(server)) for _ in range(50)]
        self.assertEqual(server.fetch("/requests").text, "51")
        for number, client in enumerate(clients):
            client.send(str(number))
        for number, client in enumerate(clients):
            self.assertEqual(client.recv(SECONDS), str(number))
        for client in clients[::2]:
            client.close()
        for client in clients[1::2]:
            client.socket.close()
        self.assert_no_request(server)

    def test_pings(self) -> None:
        """`ping_interval`, which polls the socket: pings keep a client, or lose it."""
        server = shared(f"{APPS}:pinging")
        pings = 0

        def count(client: Any, data: Any) -> None:
            nonlocal pings
            pings += 1
            client.sock.pong(data)
            if pings == 2:
                client.send("alive")

        said: list[object] = []

        def keep(client: Any, message: object) -> None:
            said.append(message)
            client.close()

        app = websocket_client.WebSocketApp(url(server), on_message=keep, on_ping=count)
        app.run_forever()
        self.assertEqual(said, ["alive"])
        with server.connect() as silent:
            silent.send(HANDSHAKE)
            silent.read_until(b"\r\n\r\n")
            self.assertIn(b"Ping/Pong timeout", silent.read_all())

    def test_threads(self) -> None:
        """It runs in request threads, with pings too."""
        for app in ("flask_sock", "pinging"):
            server = serve(self, f"{APPS}:{app}", "--threads-for=all")
            self.assert_echoes(url(server))
            server.ask_to_stop()
            server.wait_ended()

    def test_unpatched(self) -> None:
        """It runs in request threads with an unpatched standard library."""
        server = serve(
            self, self.APP, "--threads-for=all", "--patch=none", "--threads=4"
        )
        self.assert_echoes(url(server))
        client = connect(url(server))
        client.socket.close()
        self.assert_no_request(server)

    def test_tls(self) -> None:
        """It works over TLS."""
        authority = Authority()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        cert, key = authority.issue("localhost").write(folder)
        server = start(
            self,
            "greenwsgi",
            f"--app={self.APP}",
            f"--listen=https:0:interface={LOOPBACK}",
            f"--tls-cert={cert}",
            f"--tls-key={key}",
        )
        context = ssl.create_default_context(cadata=authority.pem.decode())
        address = url(server, scheme="wss")
        self.assert_echoes(address, ssl=context, server_hostname="localhost")

    def test_shutdown(self) -> None:
        """An open WebSocket is cancelled at the end of the grace period."""
        server = serve(self, self.APP, "--graceful-timeout=1")
        with connect(url(server)) as client:
            client.send("hi")
            client.recv(SECONDS)
            server.ask_to_stop()
            server.wait_ended()
        self.assertNotIn("failed", server.log())


class RawTests(ServerCase):
    """An application that uses `gunicorn.socket` itself."""

    def test_half_closed(self) -> None:
        """Clients that close their sending side only receive an answer after it."""
        for options in ((), ("--half-close=serve",)):
            server = serve(self, f"{APPS}:raw", *options)
            clients = [server.connect() for _ in range(5)]
            for client in clients:
                client.send(HANDSHAKE + b"early")
                client.read_until(b"\r\n\r\n")
            for client in clients:
                client.send(bytes(200_000))
                client.socket.shutdown(socket.SHUT_WR)
            for client in clients:
                with client:
                    self.assertEqual(client.read_all(), b"early" + bytes(200_000))
            self.assert_no_request(server)
            server.ask_to_stop()
            server.wait_ended()
            self.assertNotIn("Traceback", server.log())


class SocketIOTests(ServerCase):
    """Flask-SocketIO with async_mode="threading"."""

    APP = f"{APPS}:socket_io"

    def talk(self, server: ServerProcess, transports: list[str]) -> None:
        """Send events both ways."""
        client = socketio.Client(request_timeout=SECONDS)
        got: list[object] = []
        enough = threading.Event()

        def note(value: object) -> None:
            got.append(value)
            if len(got) == 4:
                enough.set()

        client.on("said", note)
        client.on("counted", note)
        client.connect(
            f"http://{LOOPBACK}:{server.port}",
            transports=transports,
            wait_timeout=SECONDS,
        )
        self.assertEqual(client.call("say", "hello", timeout=SECONDS), "told")
        client.emit("count")
        self.assertTrue(enough.wait(SECONDS), got)
        self.assertEqual(got, ["hello", 0, 1, 2])
        self.assertEqual(client.transport(), "websocket")
        client.disconnect()

    def test_websocket(self) -> None:
        """Over WebSocket from the start."""
        server = shared(self.APP)
        self.talk(server, ["websocket"])
        self.assert_no_request(server)

    def test_upgrade(self) -> None:
        """Begun with long polling, upgraded to WebSocket."""
        server = shared(self.APP)
        self.talk(server, ["polling", "websocket"])
        self.assert_no_request(server)


class OwnTests(ServerCase):
    """`txgreenwsgi.websocket`."""

    APP = f"{APPS}:echo"

    def test_clients(self) -> None:
        """`websockets`, with and without compression, and `websocket-client`."""
        server = shared(self.APP)
        self.assert_echoes(url(server), max_size=None)
        self.assert_echoes(url(server), compression=None, max_size=None)
        with connect(url(server), subprotocols=["other", "echo"]) as chosen:
            self.assertEqual(chosen.subprotocol, "echo")
        client = websocket_client.create_connection(
            url(server), timeout=SECONDS, header={"Origin": "http://other.example"}
        )
        client.send_binary(b"hi")
        self.assertEqual(client.recv(), b"hi")
        client.close(4000)
        with connect(url(server, "/push")) as pushed:
            self.assertEqual([pushed.recv(SECONDS) for _ in range(3)], ["0", "1", "2"])
        self.assert_no_request(server)

    def test_refused(self) -> None:
        """An invalid handshake gets 400 from the server."""
        server = shared(self.APP)
        self.assertEqual(server.fetch("/").status, 400)
        with self.assertRaises(InvalidStatus):
            connect(
                url(server), additional_headers={"Sec-WebSocket-Version": "9"}
            ).close()

    def test_connects_and_aborts(self) -> None:
        """A thousand WebSockets that end in every way leave nothing behind."""
        server = shared(self.APP)
        chance = random.Random(1)
        for _ in range(1000):
            with server.connect() as client:
                client.send(HANDSHAKE[: chance.randrange(1, 2 * len(HANDSHAKE))])
                if chance.random() < 0.5:
                    client.send(bytes([0x81, 0x83, 0, 0, 0, 0, 65, 66]))
                if chance.random() < 0.3:
                    client.send(bytes([67, 0x88, 0x80, 0, 0, 0, 0]))
        self.assert_no_request(server)
        self.assertNotIn("Traceback", server.log())

    def test_shutdown(self) -> None:
        """SIGTERM closes with 1001, and the server ends at the client's answer."""
        server = serve(self, self.APP)
        with connect(url(server)) as client:
            client.send("hi")
            self.assertEqual(client.recv(SECONDS), "hi")
            server.ask_to_stop()
            with self.assertRaises(ConnectionClosed) as raised:
                client.recv(SECONDS)
            received = raised.exception.rcvd
            assert received is not None
            self.assertEqual(received.code, 1001)
        server.wait_ended()

    def test_browser(self) -> None:
        """A page of the own host connects; closing the page leaves no task."""
        executable = find_browser()
        if executable is None:
            raise SkipTest(f"no browser is installed: none of {', '.join(NAMES)}")
        server = shared("txgreenwsgi.demo:app")
        browser = Browser(self, executable)
        browser.open(f"http://{LOOPBACK}:{server.port}/")
        browser.run(
            "(() => { window.heard = [];"
            f"window.own = new WebSocket({json.dumps(url(server, '/echo'))});"
            "own.onopen = () => own.send('grün ' + 'x'.repeat(2000));"
            "own.onmessage = (event) => heard.push(event.data); })()"
        )
        browser.wait_true("heard.length === 1")
        self.assertEqual(browser.run("heard[0]"), "grün " + "x" * 2000)
        self.assertEqual(
            browser.run("own.extensions").split(";")[0], "permessage-deflate"
        )
        browser.call("Page.navigate", url="about:blank")
        wait_for(
            lambda: json.loads(server.fetch("/requests").text)["count"] == 1,
            "the end of the WebSocket",
        )


class WebSocketNginx(Nginx):
    """nginx with the lines for WebSockets of the documentation."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._upstream = port

    def configuration(self, folder: str) -> str:
        """Pass everything to the server."""
        places = "".join(
            f"    {kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
http {{
    access_log off;
{places}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ""      "";
    }}
    server {{
        listen {LOOPBACK}:{self.port};
        location / {{
            proxy_pass http://{LOOPBACK}:{self._upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


class ProxyTests(ServerCase):
    """Both APIs behind nginx and HAProxy."""

    def assert_works(self, proxy: Any, server: ServerProcess) -> None:
        """Fail unless WebSockets and plain requests pass the proxy."""
        address = f"ws://{LOOPBACK}:{proxy.port}/ws"
        self.assert_echoes(address, max_size=None)
        own = Origin(f"http://{LOOPBACK}:{proxy.port}")
        with connect(address, origin=own) as client:
            client.send("hi")
            self.assertEqual(client.recv(SECONDS), "hi")
        with socket.create_connection((LOOPBACK, proxy.port)) as skt:
            skt.sendall(b"GET /requests HTTP/1.0\r\nHost: a\r\n\r\n")
            self.assertTrue(skt.recv(1000).startswith(b"HTTP/1.1 200"))
        self.assert_no_request(server)

    def test_nginx(self) -> None:
        """Nginx with `Upgrade` passed on."""
        for app in ("echo", "flask_sock"):
            server = shared(f"{APPS}:{app}")
            with WebSocketNginx(server.port) as proxy:
                self.assert_works(proxy, server)

    def test_haproxy(self) -> None:
        """HAProxy, which needs no configuration for WebSockets."""
        for app in ("echo", "flask_sock"):
            server = shared(f"{APPS}:{app}")
            with HAProxy([server.port]) as proxy:
                proxy.wait_up(1)  # type: ignore[attr-defined]
                self.assert_works(proxy, server)
