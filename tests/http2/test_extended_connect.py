"""WebSockets over HTTP/2: extended CONNECT (RFC 8441)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from twisted.trial.unittest import SynchronousTestCase
from wsproto.frame_protocol import FrameProtocol

from tests.metrics.sums import series_by_label
from txgreenwsgi import sleep, websocket
from txgreenwsgi._metrics.families import SIZE
from txgreenwsgi._metrics.process import measure
from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi import WebSocket
    from txgreenwsgi._metrics.sampler import Sampler
    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.testing import MemoryServer

Environ = dict[str, Any]


class Client:
    """One HTTP/2 connection with WebSockets on its streams.

    Attributes:
        heads: the status and the fields of the responses, by stream.
        protocols: the parsers of the frames of each stream.
        payloads: the payloads of the frames received on each stream.
        ended: the streams that the server has ended, or reset.
    """

    def __init__(self, server: MemoryServer, reads: bool = True) -> None:
        self._client = server.connect()
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(header_encoding="utf-8")
        )
        self._parsed = 0
        self._reads = reads
        self.heads: dict[int, dict[str, str]] = {}
        self.protocols: dict[int, FrameProtocol] = {}
        self.payloads: dict[int, list[Any]] = {}
        self.ended: list[int] = []
        self._h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Exchange bytes with the server until both are idle."""
        while True:
            data = self._h2.data_to_send()
            if data:
                self._client.send(data)
            self._client.settle()
            received = self._client.received[self._parsed :]
            self._parsed += len(received)
            if not data and not received:
                return
            for event in self._h2.receive_data(received):
                self._handle(event)

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            assert event.stream_id is not None
            assert event.headers is not None
            fields = {str(name): str(value) for name, value in event.headers}
            self.heads[event.stream_id] = fields
        elif isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            assert event.data is not None
            if self._reads:
                size = event.flow_controlled_length or 0
                self._h2.acknowledge_received_data(size, event.stream_id)
            if self.heads[event.stream_id][":status"] != "200":
                return
            protocol = self.protocols[event.stream_id]
            protocol.receive_bytes(event.data)
            self.payloads[event.stream_id] += [
                frame.payload for frame in protocol.received_frames()
            ]
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            assert event.stream_id is not None
            self.ended.append(event.stream_id)

    @property
    def offered(self) -> bool:
        """Whether the server accepts extended CONNECT."""
        code = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
        return bool(self._h2.remote_settings.get(code))

    def open(self, path: str = "/", *fields: tuple[str, str]) -> int:
        """Send a handshake; return the number of its stream."""
        stream: int = self._h2.get_next_available_stream_id()
        self.protocols[stream] = FrameProtocol(client=True, extensions=[])
        self.payloads[stream] = []
        head = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
            ("sec-websocket-version", "13"),
            *fields,
        ]
        self._h2.send_headers(stream, head)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """Send bytes on a stream, as its window allows."""
        while len(data) > (window := self._h2.local_flow_control_window(stream)):
            size = min(window, self._h2.max_outbound_frame_size)
            if not size:
                raise AssertionError("the window of the server is closed")
            self._h2.send_data(stream, data[:size])
            data = data[size:]
            self.flush()
        most = self._h2.max_outbound_frame_size
        for start in range(0, len(data), most):
            self._h2.send_data(stream, data[start : start + most])
        if end:
            self._h2.end_stream(stream)
        self.flush()

    def message(self, stream: int, text: str) -> None:
        """Send a text message."""
        self.send(stream, bytes(self.protocols[stream].send_data(text, fin=True)))

    def close(self, stream: int, code: int) -> None:
        """Send a close frame."""
        self.send(stream, bytes(self.protocols[stream].close(code)))

    def reset(self, stream: int) -> None:
        """Reset a stream."""
        self._h2.reset_stream(stream, 8)
        self.flush()

    def text(self, stream: int) -> str:
        """Return the text received on a stream."""
        return "".join(part for part in self.payloads[stream] if type(part) is str)


class Http2WebSocketTests(LeakCheckMixin, SynchronousTestCase):
    """`websocket()` on a stream of an HTTP/2 connection."""

    def connect(
        self,
        use: Callable[[WebSocket], object],
        reads: bool = True,
        **settings: Any,
    ) -> Client:
        """Return a client of a server whose requests call `use`."""
        self.environs: list[Environ] = []
        self.records: list[ExchangeRecord] = []
        self.closed: list[int | None] = []

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            self.environs.append(environ)
            if environ["PATH_INFO"] == "/plain":
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"not here"]
            with websocket(environ) as opened:
                use(opened)
            self.closed.append(opened.close_code)
            return []

        self.server = self.serve(
            app, [self.records.append], **{"http2": "h2c", **settings}
        )
        return Client(self.server, reads)

    @staticmethod
    def echo(opened: WebSocket) -> None:
        """Send each message back."""
        for message in opened:
            opened.send(message)

    def test_echo(self) -> None:
        """Messages of all lengths are sent back, on several streams at once."""
        client = self.connect(self.echo)
        self.assertTrue(client.offered)
        streams = [client.open(f"/{number}") for number in range(3)]
        for stream in streams:
            self.assertEqual(client.heads[stream][":status"], "200")
            self.assertNotIn("sec-websocket-accept", client.heads[stream])
            for size in (0, 10, 1000, 200_000):
                client.payloads[stream].clear()
                client.message(stream, "x" * size)
                self.assertEqual(len(client.text(stream)), size)
        for stream in streams:
            client.close(stream, 4000)
        self.assertEqual(self.closed, [4000] * 3)
        self.assertEqual(client.ended, streams)
        facts = {(r.method, r.status, r.outcome, r.version) for r in self.records}
        self.assertEqual(facts, {("CONNECT", 200, "finished", "HTTP/2.0")})

    def test_metrics(self) -> None:
        """Messages and close codes of all streams are counted, while they are open."""
        values = [0.0] * SIZE
        samplers: list[Sampler] = []

        def use(opened: WebSocket) -> None:
            if not samplers:
                server = self.environs[0]["txgreenwsgi.stopping"].__self__.server
                samplers.append(measure(server, values, self.server.reactor))
                self.addCleanup(samplers[0].stop)
            self.echo(opened)

        client = self.connect(use)
        client.open()  # it is not counted
        first, second = client.open(), client.open()
        client.message(first, "x" * 1000)
        client.message(second, "hello")

        def by_label(name: str) -> dict[str, float]:
            samplers[0].count()
            return series_by_label(values, f"txgreenwsgi_websocket_{name}_total")

        self.assertEqual(by_label("messages"), {"received": 2, "sent": 2})
        self.assertEqual(by_label("message_bytes"), {"received": 1005, "sent": 1005})
        client.close(first, 4000)
        client.reset(second)
        self.assertEqual(by_label("closes"), {"4xxx": 1, "1006": 1})

    def test_environ(self) -> None:
        """The environ is that of a handshake; there is no socket to take over."""
        client = self.connect(self.echo)
        stream = client.open("/chat?a=b", ("origin", "http://test"))
        client.close(stream, 1000)
        [environ] = self.environs
        self.assertEqual(environ["REQUEST_METHOD"], "GET")
        self.assertEqual(environ["PATH_INFO"], "/chat")
        self.assertEqual(environ["QUERY_STRING"], "a=b")
        self.assertEqual(environ["HTTP_UPGRADE"], "websocket")
        self.assertEqual(environ["HTTP_HOST"], "test")
        self.assertNotIn("gunicorn.socket", environ)

    def test_subprotocol_and_compression(self) -> None:
        """The fields of the handshake are those of HTTP/1.1."""
        client = self.connect(self.echo)
        stream = client.open("/", ("sec-websocket-extensions", "permessage-deflate"))
        self.assertIn(
            "permessage-deflate", client.heads[stream]["sec-websocket-extensions"]
        )
        client.reset(stream)

    def test_refused(self) -> None:
        """A wrong origin gets 403; a plain response is passed on."""
        client = self.connect(self.echo)
        stream = client.open("/", ("origin", "http://evil.example"))
        self.assertEqual(client.heads[stream][":status"], "403")
        self.flushLoggedErrors()
        stream = client.open("/plain")
        self.assertEqual(client.heads[stream][":status"], "404")
        stream = client.open()
        client.message(stream, "alive")
        self.assertEqual(client.text(stream), "alive")
        client.close(stream, 1000)

    def test_reset(self) -> None:
        """A reset stream is a lost client; other streams go on."""
        client = self.connect(self.echo)
        first, second = client.open(), client.open()
        client.reset(first)
        self.assertEqual(self.closed, [1006])
        client.message(second, "alive")
        self.assertEqual(client.text(second), "alive")
        client.close(second, 1000)
        self.assertEqual(
            [record.outcome for record in self.records], ["disconnected", "finished"]
        )

    def test_end_of_the_stream(self) -> None:
        """END_STREAM without a close frame is a lost client."""
        client = self.connect(self.echo)
        stream = client.open()
        client.send(stream, b"", end=True)
        self.assertEqual(self.closed, [1006])
        self.assertIn(stream, client.ended)

    def test_by_the_server(self) -> None:
        """The end of the call sends a close frame and ends the stream."""
        client = self.connect(lambda opened: opened.send("bye"))
        stream = client.open()
        self.assertEqual(client.payloads[stream], ["bye", (1000, "")])
        client.close(stream, 1000)
        self.assertEqual(client.ended, [stream])
        self.assertEqual(self.server.tasks, [])

    def test_slow_reader(self) -> None:
        """A client without a window parks the sender."""
        sent: list[int] = []

        def use(opened: WebSocket) -> None:
            for _ in range(20):
                opened.send(bytes(10_000))
                sent.append(1)

        client = self.connect(use, reads=False)
        stream = client.open()
        self.assertLess(len(sent), 10)
        client.reset(stream)
        self.assertEqual(self.records[0].outcome, "disconnected")

    def test_slow_application(self) -> None:
        """While the application takes nothing, the window of the stream closes."""

        def use(opened: WebSocket) -> None:
            sleep(10)
            self.echo(opened)

        client = self.connect(use)
        stream = client.open()
        protocol = client.protocols[stream]
        data = b"".join(bytes(protocol.send_data("x" * 1000, True)) for _ in range(500))
        with self.assertRaisesRegex(AssertionError, "window .* is closed"):
            client.send(stream, data)
        self.server.advance(10)
        client.flush()
        self.assertGreater(len(client.payloads[stream]), 50)
        client.reset(stream)

    def test_shutdown(self) -> None:
        """The shutdown closes with 1001."""
        client = self.connect(self.echo)
        stream = client.open()
        done = self.server.site.stop(30)
        client.flush()
        self.assertEqual(client.payloads[stream], [(1001, "the server is stopping")])
        client.close(stream, 1001)
        self.assertEqual(self.closed, [1001])
        self.assertIn(stream, client.ended)
        for _ in range(20):
            self.server.advance(0.5)
            client.flush()
        self.assertTrue(done.called)

    def test_ping_timeout(self) -> None:
        """A client that answers no ping loses its stream, not its connection."""
        client = self.connect(self.echo)
        stream = client.open()
        for _ in range(60):
            self.server.advance(1)
        client.flush()
        self.assertEqual(self.closed, [1006])
        self.assertIn(stream, client.ended)
        again = client.open()
        client.message(again, "alive")
        self.assertEqual(client.text(again), "alive")
        client.close(again, 1000)
