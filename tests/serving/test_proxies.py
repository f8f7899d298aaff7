"""The client behind trusted proxies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._serving import proxies
from txgreenwsgi._serving.proxies import ProxyFieldError, TrustedProxies
from txgreenwsgi._serving.stream import Ends

PEER = Ends("10.0.0.2", "8080", "10.0.0.1", "4321", "http")
SEPARATE = tuple(f"x-forwarded-{name}" for name in ("for", "proto", "host", "port"))


class PeerTests(SynchronousTestCase):
    """Peers that are trusted, and peers that are not."""

    def test_peers(self) -> None:
        """Addresses, networks and UNIX sockets."""
        made = TrustedProxies(["10.0.0.0/8", "::1", "192.0.2.7/24", "unix"], 1, [])
        for address in ("10.9.9.9", "::1", "192.0.2.200", ""):
            self.assertTrue(made.is_trusted(address), address)
        for address in ("11.0.0.1", "::2", "fe80::1%eth0", "not an address"):
            self.assertFalse(made.is_trusted(address), address)
        self.assertFalse(TrustedProxies(["0.0.0.0/0"], 1, []).is_trusted(""))
        for address in ("11.0.0.1", "::2", ""):
            self.assertTrue(TrustedProxies(["*"], 1, []).is_trusted(address))

    def test_mapped_network(self) -> None:
        """A network of IPv4-mapped addresses contains IPv4 peers (RFC 4291)."""
        for network in ("::ffff:10.0.0.0/104", "::ffff:10.0.0.1"):
            made = TrustedProxies([network], 1, [])
            self.assertTrue(made.is_trusted("10.0.0.1"), network)
            self.assertFalse(made.is_trusted("11.0.0.1"), network)
        self.assertTrue(TrustedProxies(["::/0"], 1, []).is_trusted("::1"))
        self.assertFalse(TrustedProxies(["::/0"], 1, []).is_trusted("10.0.0.1"))

    def test_many_peers(self) -> None:
        """The memory for peers is limited."""
        self.patch(proxies, "MAX_PEERS", 3)
        made = TrustedProxies(["10.0.0.0/8"], 1, [])
        for last in range(20):
            self.assertTrue(made.is_trusted(f"10.0.0.{last}"))
            self.assertFalse(made.is_trusted(f"11.0.0.{last}"))

    def test_untrusted(self) -> None:
        """All forwarding fields of another peer are removed."""
        variables = {
            "HTTP_FORWARDED": "for=1.2.3.4",
            "HTTP_X_FORWARDED_FOR": "1.2.3.4",
            "HTTP_X_FORWARDED_PREFIX": "/admin",
            "HTTP_X_FORWARDED_SSL": "on",
            "HTTP_X_REAL_IP": "1.2.3.4",
            "HTTP_HOST": "shop.test",
            "HTTP_X_OTHER": "kept",
        }
        made = TrustedProxies(["10.0.0.99"], 1, SEPARATE)
        self.assertEqual(made.ends_behind(variables, PEER), PEER)
        self.assertEqual(variables, {"HTTP_HOST": "shop.test", "HTTP_X_OTHER": "kept"})

    def test_other_fields_of_a_proxy(self) -> None:
        """Of a trusted peer, known fields that it does not set are removed."""
        variables = {
            "HTTP_FORWARDED": "for=1.2.3.4",
            "HTTP_X_FORWARDED_FOR": "192.0.2.1",
            "HTTP_X_FORWARDED_HOST": "forged.test",
            "HTTP_X_FORWARDED_BY": "forged",
            "HTTP_X_FORWARDED_PREFIX": "/app",
            "HTTP_X_REAL_IP": "192.0.2.1",
        }
        made = TrustedProxies(["*"], 1, ["x-forwarded-for"])
        self.assertEqual(
            made.ends_behind(variables, PEER),
            Ends("10.0.0.2", "8080", "192.0.2.1", "", "http"),
        )
        self.assertEqual(
            variables,
            {
                "HTTP_X_FORWARDED_FOR": "192.0.2.1",
                "HTTP_X_FORWARDED_PREFIX": "/app",
                "HTTP_X_REAL_IP": "192.0.2.1",
            },
        )


class Reading(SynchronousTestCase):
    """Reads the fields of a trusted peer."""

    fields: tuple[str, ...] = ()

    def seen(self, count: int = 1, **given: str) -> tuple[Ends, dict[str, str]]:
        """Return the ends and the fields that are left."""
        variables = {f"HTTP_{name}": value for name, value in given.items()}
        made = TrustedProxies(["10.0.0.1"], count, self.fields)
        return made.ends_behind(variables, PEER), variables

    def refused(self, **given: str) -> str:
        """Return the message for malformed fields."""
        return str(self.assertRaises(ProxyFieldError, self.seen, **given))


class SeparateTests(Reading):
    """The X-Forwarded-* fields."""

    fields = SEPARATE

    def client(self, text: str, count: int = 1) -> tuple[str, str, str]:
        """Return address, port and the field for a value of X-Forwarded-For."""
        ends, variables = self.seen(count, X_FORWARDED_FOR=text)
        return ends.remote_addr, ends.remote_port, variables["HTTP_X_FORWARDED_FOR"]

    def test_none(self) -> None:
        """Without fields the client is the peer."""
        self.assertEqual(self.seen(), (PEER, {}))

    def test_last_entry(self) -> None:
        """The proxy's entry is the last one; the client may have forged others."""
        for text in ("192.0.2.1", "6.6.6.6,192.0.2.1", '", 6.6.6.6 ,\t 192.0.2.1 '):
            self.assertEqual(self.client(text), ("192.0.2.1", "", "192.0.2.1"))

    def test_count(self) -> None:
        """With several proxies, the first of them has seen the client."""
        two = "192.0.2.1, 10.0.0.5"
        self.assertEqual(self.client(f"6.6.6.6, {two}", 2), ("192.0.2.1", "", two))
        self.assertEqual(self.client(two, 2), ("192.0.2.1", "", two))
        self.assertEqual(self.client("192.0.2.1", 2), ("192.0.2.1", "", "192.0.2.1"))

    def test_addresses(self) -> None:
        """Addresses with and without port and brackets."""
        for text, address, port in (
            ("192.0.2.1:55", "192.0.2.1", "55"),
            ("2001:DB8::1", "2001:db8::1", ""),
            ("[2001:db8::1]", "2001:db8::1", ""),
            ("[2001:db8::1]:55", "2001:db8::1", "55"),
            ('"[2001:db8::1]:55"', "2001:db8::1", "55"),
            ("192.0.2.1:_hidden", "192.0.2.1", ""),
            ("::ffff:192.0.2.1", "192.0.2.1", ""),
            ("[::ffff:c000:201]:65535", "192.0.2.1", "65535"),
            ("fe80::1%eth0", "fe80::1%eth0", ""),
        ):
            self.assertEqual(self.client(text)[:2], (address, port))

    def test_port_of_the_client(self) -> None:
        """A port out of range is refused."""
        self.assertEqual(
            self.refused(X_FORWARDED_FOR="192.0.2.1:65536"),
            "the port of the forwarded client is out of range",
        )

    def test_hidden_client(self) -> None:
        """A proxy that hides its client leaves its own address."""
        for text in ("unknown", "Unknown", "_secret", "unknown:55", ""):
            self.assertEqual(self.client(text)[:2], ("10.0.0.1", "4321"))

    def test_not_an_address(self) -> None:
        """Other clients are refused, and not repeated in the message."""
        for text in (
            "evil",
            "1.2.3",
            "1.2.3.4:x",
            "[::1",
            "::1]",
            "1.2.3.4 5",
            "a:b:c",
            "::1%<b>",
            "[::1%' or]:5",
        ):
            self.assertRegex(
                self.refused(X_FORWARDED_FOR=text), "^the forwarded client is [a-z ]+$"
            )

    def test_scheme(self) -> None:
        """The scheme sets the port to its default."""
        for text, scheme, port in (("https", "https", "443"), ("HTTP", "http", "80")):
            ends, _ = self.seen(X_FORWARDED_PROTO=text)
            self.assertEqual((ends.url_scheme, ends.server_port), (scheme, port))
        for text in ("ftp", "https:", "https http"):
            self.assertIn("neither http nor", self.refused(X_FORWARDED_PROTO=text))

    def test_host(self) -> None:
        """The host is SERVER_NAME and, with a port that is not the default, Host."""
        for given, name, port, host in (
            ({"HOST": "shop.test"}, "shop.test", "80", "shop.test"),
            ({"HOST": "shop.test:81"}, "shop.test", "81", "shop.test:81"),
            ({"HOST": "[::1]:81"}, "[::1]", "81", "[::1]:81"),
            ({"HOST": "a", "PROTO": "https"}, "a", "443", "a"),
            ({"HOST": "a:443", "PROTO": "https"}, "a", "443", "a"),
            ({"HOST": "a", "PORT": "81"}, "a", "81", "a:81"),
            ({"HOST": "a:82", "PORT": "81"}, "a", "81", "a:81"),
            ({"HOST": "forged, a"}, "a", "80", "a"),
        ):
            fields = {f"X_FORWARDED_{key}": value for key, value in given.items()}
            fields["HOST"] = "backend"
            ends, variables = self.seen(1, **fields)
            self.assertEqual((ends.server_name, ends.server_port), (name, port))
            self.assertEqual(variables["HTTP_HOST"], host)
        for text in ("a b", "a/b", "a:b", "a@b", "[::1", "a:1:2"):
            self.assertEqual(
                self.refused(X_FORWARDED_HOST=text), "the forwarded host is malformed"
            )

    def test_port(self) -> None:
        """The port alone changes SERVER_PORT."""
        ends, variables = self.seen(HOST="shop.test", X_FORWARDED_PORT="444")
        self.assertEqual(ends.server_port, "444")
        self.assertEqual(variables["HTTP_HOST"], "shop.test")
        for text in ("x", "-1", "\xb2", "65536", "000080"):
            self.assertIn("the forwarded port is", self.refused(X_FORWARDED_PORT=text))
        self.assertIn("out of range", self.refused(X_FORWARDED_HOST="a:99999"))


class ForwardedTests(Reading):
    """The field Forwarded (RFC 7239)."""

    fields = ("forwarded",)

    def test_parameters(self) -> None:
        """All parameters, in any case and order, as tokens or quoted strings."""
        for text in (
            'for="[2001:db8::1]:55";proto=https;host="shop.test:81";by=_proxy',
            'Host="shop.te\\st:81"; PROTO=https ;For="[2001:db8::1]:55"',
        ):
            ends, variables = self.seen(FORWARDED=text, HOST="backend")
            self.assertEqual(
                ends, Ends("shop.test", "81", "2001:db8::1", "55", "https")
            )
            self.assertEqual(variables["HTTP_HOST"], "shop.test:81")
            self.assertEqual(variables["HTTP_FORWARDED"], text)

    def test_last_element(self) -> None:
        """Elements that the client has forged are removed."""
        for forged in ("for=6.6.6.6", 'for=6.6.6.6;by="a, b;c"', "a=b, c=d"):
            ends, variables = self.seen(FORWARDED=f"{forged} , for=192.0.2.1")
            self.assertEqual(ends.remote_addr, "192.0.2.1")
            self.assertEqual(variables["HTTP_FORWARDED"], "for=192.0.2.1")

    def test_count(self) -> None:
        """With several proxies, the first of them has seen the client."""
        text = "for=6.6.6.6, for=192.0.2.1;proto=https, for=10.0.0.5"
        ends, variables = self.seen(2, FORWARDED=text)
        self.assertEqual((ends.remote_addr, ends.url_scheme), ("192.0.2.1", "https"))
        self.assertEqual(
            variables["HTTP_FORWARDED"], "for=192.0.2.1;proto=https, for=10.0.0.5"
        )

    def test_other_fields(self) -> None:
        """X-Forwarded-* fields are removed."""
        ends, variables = self.seen(
            FORWARDED="for=192.0.2.1", X_FORWARDED_FOR="6.6.6.6"
        )
        self.assertEqual(ends.remote_addr, "192.0.2.1")
        self.assertEqual(variables, {"HTTP_FORWARDED": "for=192.0.2.1"})

    def test_malformed(self) -> None:
        """Text that is not Forwarded is refused; a quote cannot hide an element."""
        for text in (
            "",
            "192.0.2.1",
            "for",
            'for="',
            'for=", for=192.0.2.1',
            'for="a, for="[::1]"',
            "for=a b",
            "for=1.2.3.4;for=6.6.6.6",
            "for=1.2.3.4,",
            ", for=1.2.3.4",
        ):
            self.assertEqual(
                self.refused(FORWARDED=text), "the field Forwarded is malformed"
            )
