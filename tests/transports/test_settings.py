"""Settings that a transport does not support, and constructor arguments."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from txgreenwsgi import GreenSite, GreenWSGIResource, service
from txgreenwsgi.settings import SettingError, described
from txgreenwsgi.testing import MemoryReactor

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Start

#: Settings of connections and request parsing, which twisted.web controls,
#: each with its default, which is rejected like any other value.
OF_CONNECTIONS: dict[str, Any] = {
    "body_timeout": 30.0,
    "buffer_memory": 1024**2,
    "chunked": "auto",
    "half_close": "disconnect",
    "header_timeout": 20.0,
    "http2": "h2c",
    "http2_max_streams": 100,
    "input_window": 65536,
    "keep_alive": 15.0,
    "max_chunk_extensions": 4096,
    "max_connections": 0,
    "max_handshakes": 1000,
    "max_header_size": 32768,
    "max_headers": 100,
    "max_target": 8192,
    "max_trailer_size": 8192,
    "min_body_rate": 240,
    "prefix": "/app",
    "drain_delay": 0.0,
    "proxy_protocol": "auto",
    "proxy_protocol_from": ["10.0.0.0/8", "unix"],
}

#: All other settings, each with a non-default value.
OF_REQUESTS: dict[str, Any] = {
    "add_header": [("X-Frame-Options", "DENY")],
    "blocked_after": 5,
    "buffer_input": True,
    "display_tracebacks": True,
    "drain_idle": 5,
    "environ": {"MY": "own"},
    "graceful_timeout": 5,
    "health_path": "/-",
    "max_body": 1_000_000,
    "max_in_flight": 5,
    "max_queued": 5,
    "methods": ["GET", "HEAD"],
    "on_disconnect": "cancel",
    "queue_timeout": 5,
    "request_timeout": 5,
    "server_header": "mine",
    "server_timing": True,
    "slow_after": 5,
    "static": {"/static": "."},
    "static_expires": 60,
    "strict": True,
    "threads": 2,
    "threads_for": ["/reports/*", "POST /upload"],
    "trusted_proxy": ["127.0.0.1", "::1", "unix"],
    "trusted_proxy_count": 2,
    "trusted_proxy_headers": ["x-forwarded-for"],
    "url_scheme": "https",
    "write_timeout": 5,
}


def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with one block."""
    start("200 OK", TEXT)
    return [b"hello"]


class ResourceSettingTests(SynchronousTestCase):
    """The arguments of GreenWSGIResource."""

    def test_every_setting_is_listed(self) -> None:
        """Each setting belongs either to requests or to connections."""
        names = {name for name, _, _ in described()}
        self.assertEqual(names, set(OF_CONNECTIONS) | set(OF_REQUESTS))

    def test_settings_of_connections(self) -> None:
        """A setting that twisted.web does not support raises an error with its name."""
        for name, value in OF_CONNECTIONS.items():
            try:
                GreenWSGIResource(hello, reactor=MemoryReactor(), **{name: value})
            except (SettingError, TypeError) as error:  # noqa: PERF203
                self.assertIn(name, str(error))
            else:
                self.fail(f"{name} was accepted")

    def test_settings_of_requests(self) -> None:
        """The settings of requests are accepted."""
        GreenWSGIResource(hello, reactor=MemoryReactor(), **OF_REQUESTS)

    def test_our_own_transports(self) -> None:
        """Our own HTTP/1.1 supports every setting."""
        everything = OF_CONNECTIONS | OF_REQUESTS
        service(hello, ["tcp:0"], reactor=MemoryReactor(), **everything)
        for name in ("drain_delay", "proxy_protocol", "proxy_protocol_from"):
            with self.assertRaises(SettingError) as raised:
                GreenSite(
                    hello, reactor=MemoryReactor(), **{name: everything.pop(name)}
                )
            self.assertIn("use service(), ", str(raised.exception))
        GreenSite(hello, reactor=MemoryReactor(), **everything)

    def test_unknown_setting(self) -> None:
        """The error for an unknown setting suggests the most similar name."""
        makers: tuple[Any, ...] = (GreenSite, GreenWSGIResource)
        for make in makers:
            with self.assertRaises(SettingError) as raised:
                make(hello, reactor=MemoryReactor(), max_in_fligth=5)
            self.assertIn("max_in_fligth", str(raised.exception))
            self.assertIn("max_in_flight", str(raised.exception))

    def test_not_an_application(self) -> None:
        """An application that is not callable raises a TypeError with its repr."""
        application: Any = "myproject.wsgi"
        with self.assertRaises(TypeError) as raised:
            GreenWSGIResource(application, reactor=MemoryReactor())
        self.assertIn("myproject.wsgi", str(raised.exception))

    def test_signature_of_wsgi_resource(self) -> None:
        """(reactor, threadpool, application) works, with one warning."""
        make: Any = GreenWSGIResource
        reactor = MemoryReactor()
        pool = object()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            resource = make(reactor, pool, hello)
        self.assertIsInstance(resource, Resource)
        self.assertEqual(len(caught), 1)
        self.assertIn("GreenWSGIResource(app", str(caught[0].message))
        # The warning refers to the line of the call.
        self.assertEqual(caught[0].filename.rpartition("/")[2], "test_settings.py")

    def test_no_warning(self) -> None:
        """The preferred call does not warn."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            GreenWSGIResource(hello, reactor=MemoryReactor())
        self.assertEqual(caught, [])


class HonouredCases(Cases):
    """Settings of requests, all at once."""

    def test_together(self) -> None:
        """A server with every setting of requests serves."""
        server = self.serve(hello, **OF_REQUESTS)
        reply = server.begin()
        self.assert_complete(reply, b"hello")
        self.assertEqual(reply.values("Server"), ["mine"])
        self.assertEqual(reply.values("X-Frame-Options"), ["DENY"])
        environ = server.app.environs[0]
        self.assertEqual(environ["MY"], "own")
        self.assertEqual(environ["wsgi.url_scheme"], "https")


globals().update(on_every_transport(HonouredCases))
