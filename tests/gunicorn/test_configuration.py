"""gunicorn's options as settings."""

from __future__ import annotations

import ssl
from typing import Any

from gunicorn.config import Config
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._gunicorn.configuration import WorkerConfiguration, configuration_for
from txgreenwsgi._launch.patching import PATCHABLE
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi.settings import Settings


def configured(
    environ: dict[str, str] | None = None, **options: Any
) -> WorkerConfiguration:
    """Return the configuration for options of gunicorn and variables of ours."""
    cfg = Config()
    for name, value in options.items():
        cfg.set(name, value)
    return configuration_for(cfg, environ or {})


class OptionTests(SynchronousTestCase):
    """Options of gunicorn."""

    def test_defaults(self) -> None:
        """Gunicorn's defaults apply; there are no warnings."""
        found = configured()
        self.assertEqual(found.warnings, ())
        settings = found.settings
        self.assertEqual(settings.keep_alive, 2)
        self.assertEqual(settings.graceful_timeout, 28)
        self.assertEqual(settings.max_connections, 1000)
        self.assertEqual(settings.max_headers, 100)
        self.assertEqual(settings.max_target, 4094)
        self.assertEqual(settings.max_header_size, Settings().max_header_size)
        self.assertEqual(settings.threads_for, ("auto",))
        self.assertEqual(found.command.patch, PATCHABLE)

    def test_grace(self) -> None:
        """The grace period ends before gunicorn's, however short that is."""
        for seconds, expected in ((60, 58), (4, 2), (1, 0.5), (0, 0)):
            settings = configured(graceful_timeout=seconds).settings
            self.assertEqual(settings.graceful_timeout, expected)

    def test_head_limits(self) -> None:
        """Limits that gunicorn does not have are as large as the head."""
        settings = configured(limit_request_line=0).settings
        self.assertEqual(settings.max_target, settings.max_header_size)
        self.assertEqual(configured(limit_request_fields=0).settings.max_headers, 32768)
        settings = configured(limit_request_field_size=0).settings
        self.assertGreater(settings.max_header_size, Settings().max_header_size)
        settings = configured(limit_request_field_size=200_000).settings
        self.assertGreater(settings.max_header_size, 200_000)

    def test_ignored(self) -> None:
        """Each option without effect is named, with a remedy."""
        found = configured(threads=4, header_map="refuse")
        self.assertEqual(len(found.warnings), 2)
        self.assertIn("gunicorn's option threads has no effect", found.warnings[0])

    def test_tls(self) -> None:
        """The TLS options of gunicorn."""
        self.assertIsNone(configured().tls)
        found = configured(certfile=__file__, keyfile=__file__, ciphers="HIGH").tls
        self.assertEqual(found, TLSOptions(cert=__file__, key=__file__, ciphers="HIGH"))
        for mode, expected in (
            (ssl.CERT_NONE, ""),
            (ssl.CERT_OPTIONAL, "optional"),
            (ssl.CERT_REQUIRED, "required"),
        ):
            found = configured(
                {"TXGREENWSGI_TLS_MIN": "1.3"},
                certfile=__file__,
                ca_certs=__file__,
                cert_reqs=mode,
            ).tls
            assert found is not None
            self.assertEqual(found.client, expected)
            self.assertEqual(found.client_ca, __file__ if expected else "")
            self.assertEqual(found.min, "1.3")

    def test_proxy_protocol(self) -> None:
        """The PROXY protocol of gunicorn, with its peers and UNIX sockets."""
        self.assertEqual(configured().settings.proxy_protocol, "off")
        settings = configured(proxy_protocol="v2", proxy_allow_ips="10.0.0.1").settings
        self.assertEqual(settings.proxy_protocol, "v2")
        self.assertEqual(settings.proxy_protocol_from, ("10.0.0.1", "unix"))

    def test_refused(self) -> None:
        """Options that would be necessary are refused."""
        error = self.assertRaises(StartError, configured, protocol="uwsgi")
        self.assertIn("'uwsgi' is not supported", str(error))
        error = self.assertRaises(
            StartError, configured, ssl_context=lambda config, factory: factory()
        )
        self.assertIn("ssl_context", str(error))


class VariableTests(SynchronousTestCase):
    """Environment variables of ours."""

    def test_override(self) -> None:
        """A variable overrides an option of gunicorn."""
        found = configured(
            {
                "TXGREENWSGI_KEEP_ALIVE": "60",
                "TXGREENWSGI_PATCH": "none",
                "TXGREENWSGI_MAX_BODY": "1K",
            },
            keepalive=5,
        )
        self.assertEqual(found.settings.keep_alive, 60)
        self.assertEqual(found.settings.max_body, 1024)
        self.assertEqual(found.command.patch, ())
        self.assertEqual(found.warnings, ())

    def test_prefix(self) -> None:
        """Gunicorn's SCRIPT_NAME is the prefix."""
        settings = configured({"SCRIPT_NAME": "/app/"}).settings
        self.assertEqual(settings.prefix, "/app")

    def test_platform(self) -> None:
        """Variables that gunicorn reads itself have no second effect."""
        found = configured({"PORT": "x", "FORWARDED_ALLOW_IPS": "*"})
        self.assertEqual(found.settings.trusted_proxy, ())

    def test_without_effect(self) -> None:
        """Variables for what gunicorn does are named."""
        found = configured({"TXGREENWSGI_LISTEN": "tcp:80"})
        self.assertEqual(
            found.warnings,
            ("TXGREENWSGI_LISTEN has no effect: gunicorn has an option for it",),
        )

    def test_invalid(self) -> None:
        """An invalid value is refused with its name."""
        error = self.assertRaises(StartError, configured, {"TXGREENWSGI_GC": "x"})
        self.assertIn("TXGREENWSGI_GC 'x'", str(error))
        error = self.assertRaises(StartError, configured, {"SCRIPT_NAME": "app"})
        self.assertIn("'app'", str(error))
