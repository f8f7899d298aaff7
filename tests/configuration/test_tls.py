"""The TLS options of the command, together with its endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.certificate import DAY, Authority
from txgreenwsgi._configuration import (
    Conditions,
    Given,
    check_tls,
    printed,
    tls_options,
    unused_tls,
    uses_tls,
)
from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi.settings import SettingError

from .test_sources import SourceTestCase

CA = Authority()


class TLSTests(SourceTestCase):
    """Endpoints and certificates."""

    def setUp(self) -> None:
        """Write a certificate."""
        super().setUp()
        self.directory = Path(self.path).parent
        self.cert, self.key = CA.issue("shop.test").write(self.directory)

    def message(self, **options: Any) -> str:
        """Return the message for options of the command line that are refused."""
        configuration = self.resolved(None, {}, **options)
        error = self.assertRaises(
            SettingError,
            lambda: (
                check_tls(configuration.command(), Conditions()),
                unused_tls(configuration),
            ),
        )
        return str(error)

    def test_defaults(self) -> None:
        """Without a certificate, no endpoint uses TLS."""
        configuration = self.resolved()
        command = configuration.command()
        self.assertEqual(tls_options(command), TLSOptions())
        self.assertFalse(uses_tls(command))
        self.assertEqual(check_tls(command, Conditions()), ())
        self.assertEqual(unused_tls(configuration), ())

    def test_default_endpoint(self) -> None:
        """With a certificate, the default endpoint and that of PORT use TLS."""
        for name in ("tls_cert", "tls_dir"):
            for environ, expected in (
                ({}, ("https:8443",)),
                ({"PORT": "5000"}, ("https:5000",)),
            ):
                command = self.resolved(None, environ, **{name: self.cert}).command()
                self.assertEqual(command.listen, expected)
                self.assertTrue(uses_tls(command))
        command = self.resolved(None, {}, tls_cert="a", listen=("tcp:1",)).command()
        self.assertEqual(command.listen, ("tcp:1",))

    def test_sources(self) -> None:
        """A file and the environment give the options too; paths are of the file."""
        configuration = self.resolved(
            'tls_cert = "site.crt"\nlisten = ["https:1", "tcp:2"]',
            {"TXGREENWSGI_TLS_KEY": self.key, "TXGREENWSGI_TLS_MIN": "1.3"},
        )
        self.assertEqual(
            tls_options(configuration.command()),
            TLSOptions(cert=self.cert, key=self.key, min="1.3"),
        )
        self.assertEqual(check_tls(configuration.command(), Conditions())[1:], ())
        text = printed(configuration, "/")
        self.assertIn(f'tls_cert = "{self.cert}"', text)
        self.assertIn("# tls_dir: not set", text)

    def test_unused(self) -> None:
        """An option that no endpoint uses is an error."""
        self.assertEqual(
            self.message(tls_cert="a.pem", listen=("tcp:80",)),
            "--tls-cert 'a.pem' is used by no endpoint: give --listen https:8443 in "
            "place of --listen tcp:80, or beside it",
        )
        self.assertIn("--tls-min '1.3' is used by no", self.message(tls_min="1.3"))
        self.assertIn("is used by no", self.message(tls_ciphers="X"))

    def test_unused_in_a_file(self) -> None:
        """If --listen overrides the endpoints of a file, it is a warning."""
        configuration = self.resolved(
            'tls_cert = "a.pem"\nlisten = "https:443"', listen=("tcp:8000",)
        )
        [warning] = unused_tls(configuration)
        self.assertIn("is used by no endpoint", warning)
        self.assertIn(f"(from {self.path}", warning)
        configuration = self.resolved('tls_cert = "a.pem"\nlisten = "tcp:80"')
        self.assertRaises(SettingError, unused_tls, configuration)

    def test_refusals(self) -> None:
        """Options and files that cannot be used are refused."""
        self.assertIn("has no certificate", self.message(tls_key="key.pem"))
        self.assertIn("has no authority", self.message(tls_client="optional"))
        self.assertIn(
            "--listen 'https:8443' uses --tls-cert '/no', which cannot be read",
            self.message(tls_cert="/no"),
        )
        self.assertIn(
            "--listen 'https:1' has no certificate", self.message(listen=("https:1",))
        )

    def test_empty(self) -> None:
        """An empty value, as of an unset variable in a script, is refused."""
        for name in ("tls_cert", "tls_key", "tls_dir", "tls_client_ca", "tls_ciphers"):
            self.assertIn("is empty: give a value", self.refusal(f'{name} = ""'))

    def test_paths_that_are_not_final(self) -> None:
        """Files that are not there yet pass if paths may change before the start."""
        command = self.resolved(None, {}, tls_cert="/no").command()
        self.assertEqual(check_tls(command, Conditions(paths_are_final=False)), ())

    def test_findings(self) -> None:
        """Findings about files are returned once, however many endpoints use them."""
        cert, key = CA.issue("a.test", lifetime=-DAY).write(self.directory, "old")
        listen = ("https:1", "https:2")
        configuration = self.resolved(
            None, {}, tls_cert=cert, tls_key=key, listen=listen
        )
        findings = check_tls(configuration.command(), Conditions())
        self.assertEqual(len([each for each in findings if "expired" in each]), 1)
        self.assertEqual(configuration.given["tls_cert"], Given(cert, "--tls_cert"))
