"""The TLS options of a listener."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._tls.errors import TLSError
from txgreenwsgi._tls.options import TLSOptions


class OptionsTests(SynchronousTestCase):
    """`TLSOptions`."""

    def refusal(self, options: TLSOptions) -> str:
        """Return the message for options that do not fit together."""
        return str(self.assertRaises(TLSError, options.check))

    def test_defaults(self) -> None:
        """Without options there is no certificate, and no client certificate."""
        options = TLSOptions()
        options.check()
        self.assertFalse(options.has_certificate)
        self.assertEqual(options.given, [])
        self.assertEqual(options.client_mode, "none")

    def test_client_mode(self) -> None:
        """An authority alone means that client certificates are required."""
        self.assertEqual(TLSOptions(client_ca="ca.pem").client_mode, "required")
        options = TLSOptions(client_ca="ca.pem", client="optional")
        options.check()
        self.assertEqual(options.client_mode, "optional")

    def test_refusals(self) -> None:
        """Options that do not fit together are refused."""
        for options, message in {
            TLSOptions(key="key.pem"): "--tls-key 'key.pem' has no certificate: give",
            TLSOptions(min="1.1"): "--tls-min '1.1' is not a minimum version of TLS: "
            "give 1.2 or 1.3",
            TLSOptions(client="maybe"): "--tls-client 'maybe' is not a mode for client "
            "certificates: give optional or required",
            TLSOptions(client="required"): "--tls-client 'required' has no authority",
        }.items():
            self.assertIn(message, self.refusal(options))

    def test_overridden(self) -> None:
        """The certificate of an endpoint replaces all of the command's."""
        command = TLSOptions(cert="a", key="b", dir="c", client_ca="d", min="1.3")
        self.assertEqual(
            command.overridden_by({"cert": "e"}),
            TLSOptions(cert="e", client_ca="d", min="1.3"),
        )
        self.assertEqual(
            command.overridden_by({"client": "optional", "min": "1.2"}),
            TLSOptions(cert="a", key="b", dir="c", client_ca="d", client="optional"),
        )
        self.assertEqual(command.overridden_by({}), command)

    def test_label_of_an_endpoint(self) -> None:
        """Messages name the argument of the endpoint that has given a value."""
        options = TLSOptions(cert="a").overridden_by({"client_ca": "b"})
        self.assertEqual(options.label("client_ca"), "client-ca='b'")
        self.assertEqual(options.label("cert"), "--tls-cert 'a'")

    def test_absolute(self) -> None:
        """Paths are absolute, and still those of the endpoint."""
        options = TLSOptions().overridden_by({"cert": "a"}).absolute()
        self.assertEqual(options.cert, os.path.abspath("a"))
        self.assertEqual((options.key, options.ciphers), ("", ""))
        self.assertTrue(options.label("cert").startswith("cert="))
