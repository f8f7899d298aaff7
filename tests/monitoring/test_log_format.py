"""Formats of the access log with directives."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.monitoring.accesslog import common, format_named
from txgreenwsgi.monitoring.log_format import (
    DIRECTIVES,
    FormatError,
    compiled,
    needs_of_format,
    user_of,
)

from .records import STARTED, record

DOCS = Path(__file__).resolve().parents[2] / "docs"

ENVIRON = {
    "SERVER_NAME": "shop.example",
    "SERVER_PORT": "8080",
    "REMOTE_USER": "ada",
    "HTTP_X_TRACE": "t 1",
    "CONTENT_TYPE": "text/plain",
    "HTTP_COOKIE": "a=1; session=s%20x; b",
    "shop.tenant": 7,
}


def line(form: str, **changed: Any) -> str:
    """Return the line for a format, without its newline."""
    changed.setdefault("environ", ENVIRON)
    changed.setdefault(
        "response_headers",
        [("Content-Type", "text/html"), ("X-A", "1"), ("x-a", "2")],
    )
    text = compiled(form)(record(**changed))
    assert text.endswith("\n")
    return text[:-1]


class DirectiveTests(SynchronousTestCase):
    """The value of each directive."""

    def test_values(self) -> None:
        """Each directive has the value of Apache's, or of gunicorn's."""
        for form, value in {
            "%%": "%",
            "%a": "192.0.2.1",
            "%h": "192.0.2.1",
            "%b": "512",
            "%B": "512",
            "%D": "12345",
            "%H": "HTTP/1.1",
            "%l": "-",
            "%L": "0.012346",
            "%m": "GET",
            "%M": "12",
            "%p": "8080",
            "%P": str(os.getpid()),
            "%q": "?b=c%20d",
            '"%r"': '"GET /a?b=c%20d HTTP/1.1"',
            "%s": "200",
            "%>s": "200",
            "%<s": "200",
            "%t": "[22/Nov/2026:09:24:03 +0000]",
            "%T": "0",
            "%u": "ada",
            "%U": "/a",
            "%U%q": "/a?b=c%20d",
            "%v": "shop.example",
            "%V": "shop.example",
            "%{session}C": "s%20x",
            "%{b}C": "-",
            "%{shop.tenant}e": "7",
            '"%{X-Trace}i"': '"t 1"',
            "%{Content-Type}i": "text/plain",
            "%{content-type}o": "text/html",
            '"%{X-A}o"': '"1, 2"',
            "%{s}T": "0",
            "%{ms}T": "12",
            "%{us}T": "12345",
            "%{sec}t": str(int(STARTED)),
            "%{msec}t": str(int(STARTED * 1000)),
            "%{usec}t": str(int(STARTED * 1000000)),
            "%{msec_frac}t": "250",
            "%{usec_frac}t": "250000",
            "%{end:msec_frac}t": "262",
            "%{%Y-%m-%dT%H:%M:%SZ}t": "2026-11-22T09:24:03Z",
            "%{begin:%S}t": "03",
            "%{duration}x": "0.012346",
            "%{blocked}x": "0.345679",
            "%{outcome}x": "finished",
            "%{remote_port}x": "4321",
            "%{request_id}x": "4f2a",
            "%200s": "200",
            "%404,500{X-Trace}i": "-",
            '"%!404{X-Trace}i"': '"t 1"',
            "%!200,304{X-Trace}i": "-",
            r"a\tb\"c\\d": 'a\tb"c\\d',
            "plain %s text": "plain 200 text",
        }.items():
            self.assertEqual(line(form), value, form)

    def test_missing(self) -> None:
        """A missing value is a hyphen, a missing query is nothing."""
        empty: dict[str, Any] = {
            "remote_addr": "",
            "method": "",
            "target": "",
            "version": "",
            "status": 0,
            "bytes_sent": 0,
            "request_id": "",
            "environ": {},
            "response_headers": (),
        }
        for form, value in {
            "%h": "-",
            "%b": "-",
            "%B": "0",
            "%s": "000",
            '"%r"': '"-"',
            "%m": "-",
            "%H": "-",
            "%U": "-",
            "%q": "",
            "%p": "-",
            "%u": "-",
            "%{x}i": "-",
            "%{x}o": "-",
            "%{x}e": "-",
            "%{x}C": "-",
            "%{request_id}x": "-",
        }.items():
            self.assertEqual(line(form, **empty), value, form)

    def test_common(self) -> None:
        """The format `common` is the Common Log Format."""
        one = record(environ={"REMOTE_USER": "ada"})
        self.assertEqual(common(one)[:-1], line('%h %l %u %t "%r" %>s %b'))
        self.assertIs(format_named("common"), common)

    def test_unknown(self) -> None:
        """An unknown directive is an error that names it and lists the known ones."""
        for form, directive in {
            "%h %z": "%z",
            "%f": "%f",
            "%n": "%n",
            "%{x}n": "%{x}n",
            "%{x}h": "%{x}h",
            "%{}i": "%{}i",
            "%i": "%i",
            "%": "%",
            "a%": "%",
            "% h": "% ",
            "%{x": "%{",
            "%{x}%": "%{x}%",
            "%200%": "%200%",
        }.items():
            error = self.assertRaises(FormatError, compiled, form)
            self.assertEqual(
                error.problem, f"contains {directive}, which is no directive"
            )
            self.assertIn("give some of %%, %a, %h, %b", error.remedy)

    def test_wrong_names(self) -> None:
        """A wrong field, unit or pattern of a directive is an error."""
        for form, message in {
            "%{status}x": "contains %{status}x, which is no field of the record: give",
            "%{min}T": "contains %{min}T, which is no unit of time: give s, ms or us",
            "%(h)s %h": "is in the syntax of gunicorn",
            "caf\xe9 %h": "contains '\xe9': give printable ASCII",
            "%h\n%h": r"contains '\n'",
        }.items():
            error = self.assertRaises(FormatError, compiled, form)
            self.assertIn(message, str(error))

    def test_unknown_name(self) -> None:
        """A word that is no format gets the names of the formats."""
        error = self.assertRaises(FormatError, format_named, "clf")
        self.assertEqual(
            str(error),
            "is not a format: give combined, common, json, or directives of Apache, "
            "such as '%h %r %s'",
        )

    def test_needs(self) -> None:
        """Only formats with response headers need these."""
        self.assertEqual(needs_of_format("%h %{a}i"), {"environ"})
        for form in ("%{a}o", "%200{a}o", "x%!200,404{a b}o"):
            self.assertEqual(needs_of_format(form), {"environ", "response_headers"})

    def test_documentation(self) -> None:
        """docs/logging.md has the table of the directives."""
        page = (DOCS / "logging.md").read_text("utf-8")
        for signature, meaning in DIRECTIVES.items():
            cells = ", ".join(f"`{one}`" for one in signature.split(", "))
            self.assertIn(f"| {cells} | {meaning} |", page)
        self.assertEqual(len(re.findall(r"^\| `%", page, re.M)), len(DIRECTIVES))


class ForgeryTests(SynchronousTestCase):
    """Text from clients cannot add or split fields and lines."""

    #: The directives with text from outside.
    FORMS = (
        *("%h", "%m", "%H", "%U", "%q", "%r", "%u", "%v"),
        *("%{x}i", "%{x}o", "%{x}e", "%{x}C", "%{request_id}x"),
    )

    def record_of(self, text: str, form: str) -> str:
        """Return the line for a record whose texts are all the given one."""
        return line(
            form,
            remote_addr=text,
            method=text or "GET",
            target=f"/{text}?{text}",
            version=text,
            request_id=text,
            environ={
                "REMOTE_USER": text,
                "SERVER_NAME": text,
                "HTTP_X": text,
                "x": text,
                "HTTP_COOKIE": f"x={text}",
            },
            response_headers=[("x", text)],
        )

    @settings(deadline=None)
    @given(some.text(some.characters(max_codepoint=0x2FFF)))
    def test_any_text(self, text: str) -> None:
        """Every line has the fields of its format, whatever the text is."""
        bare = self.record_of(text, " ".join(self.FORMS))
        self.assertRegex(bare, r"\A[!-~]*( [!-~]*)*\Z")
        self.assertEqual(bare.count(" "), len(self.FORMS) - 1)
        inside = self.record_of(text, " ".join(f'"{one}"' for one in self.FORMS))
        field = r'"(?:[ !#-\[\]-~]|\\["\\xu])*"'
        self.assertRegex(inside, rf"\A{field}( {field}){{{len(self.FORMS) - 1}}}\Z")

    def test_examples(self) -> None:
        """Quotes, backslashes, newlines and control characters are escaped."""
        for evil, escaped in (
            ('a" 200', r"a\" 200"),
            ("a\r\nb", r"a\x0d\x0ab"),
            ("\x1b[2J", r"\x1b[2J"),
            ("\u2028", r"\u2028"),
            ("\\", r"\\"),
        ):
            self.assertEqual(
                line('"%u"', environ={"REMOTE_USER": evil}), f'"{escaped}"'
            )
            self.assertEqual(
                line("%u", environ={"REMOTE_USER": evil}), escaped.replace(" ", r"\x20")
            )


class UserTests(SynchronousTestCase):
    """The user of a request."""

    def user(self, **environ: Any) -> str:
        """Return the user for an environ."""
        return user_of(record(environ=environ))

    def basic(self, text: bytes, scheme: str = "Basic") -> str:
        """Return the value of an Authorization field."""
        return f"{scheme} {base64.b64encode(text).decode()}"

    def test_remote_user(self) -> None:
        """REMOTE_USER wins over the claim of the client."""
        self.assertEqual(self.user(REMOTE_USER="ada"), "ada")
        authorization = self.basic(b"eve:secret")
        self.assertEqual(
            self.user(REMOTE_USER="ada", HTTP_AUTHORIZATION=authorization), "ada"
        )
        self.assertEqual(self.user(REMOTE_USER=7), "7")

    def test_basic(self) -> None:
        """Otherwise the user is the one of an Authorization field."""
        for value, user in {
            self.basic(b"ada:secret"): "ada",
            self.basic(b"ada:a:b", "bAsIc"): "ada",
            self.basic(b"ada"): "ada",
            self.basic(b":x"): "",
            self.basic(b"\xc3\xa4:x"): "\xc3\xa4",
            "Basic ====": "",
            "Basic a": "",
            "Basic \xff": "",
            "Basic": "",
            "Bearer YWRhOng=": "",
            "": "",
        }.items():
            self.assertEqual(self.user(HTTP_AUTHORIZATION=value), user, value)
        self.assertEqual(self.user(), "")
        self.assertEqual(self.user(HTTP_AUTHORIZATION=None), "")
