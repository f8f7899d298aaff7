"""The public names and signatures.

A change here is a change for every user: it belongs in CHANGELOG.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

import txgreenwsgi
from txgreenwsgi.settings import Settings

PUBLIC: dict[str, set[str]] = {
    "txgreenwsgi": {
        *("GreenSite", "GreenWSGIResource", "service", "GreenProxy"),
        *("offload", "offloaded"),
        *("wait", "sleep", "spawn", "in_greenlet", "react", "suspend"),
        *("in_thread", "to_thread"),
        *("wait_readable", "wait_writable", "poll", "select"),
        *("timeout", "shield", "current_task", "recv"),
        *("Task", "Suspension"),
        *("NotInGreenlet", "TimedOut", "ClientDisconnected"),
        *("RequestTimeout", "Cancelled", "StartError", "Stopping"),
        *("websocket", "WebSocketClosed", "WebSocketRefused"),
    },
    "txgreenwsgi.testing": {
        *("LeakCheckMixin", "MemoryServer", "MemoryClient", "MemoryReactor"),
        *("Response", "MemoryWebSocket"),
    },
    "txgreenwsgi.settings": {
        *("Setting", "SettingError", "Settings", "SettingsKeywords", "Pairs"),
        *("described", "parse", "refuse_settings", "shown", "typed"),
    },
    "txgreenwsgi.web": {"GreenWSGIResource"},
    "txgreenwsgi.proxy": {"GreenProxy"},
    "txgreenwsgi.gunicorn": {"GreenWorker"},
    "txgreenwsgi.net": {
        *("connect", "listen", "Connection", "Listener", "BUFFER_BYTES")
    },
    "txgreenwsgi.green": {"offload", "offloaded"},
    "txgreenwsgi.isolation": {"isolate_loaded"},
    "txgreenwsgi.pools": {
        *("ConnectionPool", "PoolStatistics", "PoolTimeout", "PoolClosed"),
        "was_interrupted",
    },
    "txgreenwsgi.django": {"pool_statistics"},
    "txgreenwsgi.monitoring": {
        *("AccessLog", "ExchangeRecord", "Observer", "BlockedLine", "blocked_lines"),
        *("ProcessSnapshot", "RequestInFlight", "Requests", "RouteStatistics"),
        *("RecentFailure", "recent_failures"),
    },
}

#: The parameters of the most used functions.
SIGNATURES = {
    "wait": ["awaitable", "timeout"],
    "sleep": ["seconds"],
    "spawn": ["function", "args", "kwargs"],
    "in_greenlet": ["function"],
    "suspend": ["timeout"],
    "timeout": ["seconds"],
    "shield": [],
    "wait_readable": ["fd", "timeout"],
    "wait_writable": ["fd", "timeout"],
    "select": ["rlist", "wlist", "xlist", "timeout"],
    "current_task": [],
    "recv": ["environ", "size"],
    "websocket": [
        *("environ", "subprotocols", "max_message", "ping", "origins"),
        *("compress", "headers", "interrupt"),
    ],
    "service": [
        *("app", "listen", "patch", "gc", "access_log", "access_log_format"),
        *("observers", "reactor", "settings"),
    ],
    "GreenSite": [
        *("application", "settings", "observers", "reactor"),
        *("access_log", "access_log_format", "keywords"),
    ],
    "GreenWSGIResource": [
        *("application", "observers", "reactor"),
        *("access_log", "access_log_format", "settings"),
    ],
}


class PublicNameTests(SynchronousTestCase):
    """`__all__` of the public modules."""

    def test_names(self) -> None:
        """Each module has exactly these public names."""
        for module_name, names in PUBLIC.items():
            module = import_module(module_name)
            self.assertEqual(set(module.__all__), names, module_name)
            for name in names:
                self.assertIsNotNone(getattr(module, name))

    def test_signatures(self) -> None:
        """Functions have these parameters."""
        for name, expected in SIGNATURES.items():
            signature = inspect.signature(getattr(txgreenwsgi, name))
            self.assertEqual(list(signature.parameters), expected, name)

    def test_signature_of_a_resource(self) -> None:
        """`inspect.signature` shows the preferred call, with types and defaults."""
        signature = inspect.signature(txgreenwsgi.GreenWSGIResource)
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        self.assertEqual(kinds[0], inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.assertEqual(set(kinds[1:-1]), {inspect.Parameter.KEYWORD_ONLY})
        self.assertEqual(kinds[-1], inspect.Parameter.VAR_KEYWORD)
        for text in (
            "(application: 'Application', *, observers: 'Iterable[Observer]' = (), "
            "reactor: 'IReactorTime | None' = None, access_log: ",
            "access_log_format: 'AccessLogFormat' = 'combined', "
            "**settings: 'Unpack[SettingsKeywords]')",
        ):
            self.assertIn(text, str(signature))

    def test_version(self) -> None:
        """`__version__` is the version of the installed distribution."""
        self.assertEqual(txgreenwsgi.__version__, version("txgreenwsgi"))
        self.assertRegex(txgreenwsgi.__version__, r"\A\d+\.\d+\.\d+")

    def test_unknown_name(self) -> None:
        """An unknown name raises AttributeError, as in any module."""
        error = self.assertRaises(AttributeError, getattr, txgreenwsgi, "nothing")
        self.assertIn("'nothing'", str(error))

    def test_errors(self) -> None:
        """Exceptions of interrupted waits have the base classes that drivers expect."""
        self.assertTrue(issubclass(txgreenwsgi.TimedOut, TimeoutError))
        self.assertTrue(issubclass(txgreenwsgi.RequestTimeout, TimeoutError))
        self.assertTrue(
            issubclass(txgreenwsgi.ClientDisconnected, ConnectionResetError)
        )
        self.assertTrue(issubclass(txgreenwsgi.Cancelled, Exception))
        self.assertTrue(issubclass(txgreenwsgi.NotInGreenlet, RuntimeError))

    def test_errors_of_a_start(self) -> None:
        """The errors of a start are `StartError`s, and what Twisted's users catch."""
        errors = import_module("txgreenwsgi._server.errors")
        self.assertTrue(issubclass(errors.ListenError, txgreenwsgi.StartError))
        self.assertTrue(issubclass(errors.ListenError, CannotListenError))
        self.assertTrue(issubclass(errors.EndpointError, txgreenwsgi.StartError))
        self.assertTrue(issubclass(errors.EndpointError, ValueError))

    def test_settings(self) -> None:
        """No setting disappears."""
        names = {field.name for field in dataclasses.fields(Settings)}
        self.assertLessEqual(
            {
                *("max_in_flight", "max_queued", "queue_timeout", "max_connections"),
                *("max_body", "request_timeout", "graceful_timeout", "keep_alive"),
                "drain_idle",
                *("header_timeout", "body_timeout", "write_timeout", "min_body_rate"),
                *("max_trailer_size", "max_chunk_extensions", "max_handshakes"),
                *("max_header_size", "max_headers", "max_target", "input_window"),
                *("on_disconnect", "display_tracebacks", "add_header", "environ"),
                *("server_header", "url_scheme", "blocked_after"),
                *("health_path", "drain_delay"),
            },
            names,
        )

    def test_import_is_light(self) -> None:
        """Importing the package imports neither a reactor nor twisted.web."""
        code = (
            "import sys, txgreenwsgi, txgreenwsgi.testing; "
            "print([name for name in ('twisted.internet.reactor', 'twisted.web') "
            "if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("[]\n", ""))
