"""Settings: every value is checked, and every error gives the remedy."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from typing import Any
from wsgiref.simple_server import demo_app

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import service
from txgreenwsgi.settings import (
    Setting,
    SettingError,
    Settings,
    SettingsKeywords,
    described,
    parse,
    refuse_settings,
    shown,
)


def setting_named(name: str) -> Setting:
    """Return the description of a setting."""
    return {each: setting for each, setting, _default in described()}[name]


class SettingsTests(SynchronousTestCase):
    """Settings given as keyword arguments."""

    def refusal(self, **keywords: Any) -> str:
        """Return the error message for invalid settings."""
        return str(self.assertRaises(SettingError, Settings.from_keywords, **keywords))

    def test_defaults(self) -> None:
        """By default, a server has limits that protect it."""
        settings = Settings()
        self.assertEqual(settings.max_in_flight, 10000)
        self.assertEqual(settings.max_queued, 1000)
        self.assertEqual(settings.max_body, 1024 * 1024 * 1024)
        self.assertEqual(settings.header_timeout, 20.0)
        self.assertEqual(settings.graceful_timeout, 30.0)
        self.assertEqual(settings.request_timeout, 0.0)
        self.assertEqual(settings.on_disconnect, "continue")
        self.assertFalse(settings.display_tracebacks)

    def test_every_default_is_allowed(self) -> None:
        """Each default has a text on the command line, which parses to the default."""
        for name, setting, default in described():
            if setting.kind in ("flag", "pairs", "words"):
                continue
            self.assertEqual(parse(setting, shown(setting, default)), default, name)

    def test_settings_do_not_change(self) -> None:
        """Settings are immutable."""
        settings = Settings()
        with self.assertRaises(dataclasses.FrozenInstanceError):
            settings.max_body = 1  # type: ignore[misc]

    def test_route_patterns(self) -> None:
        """Route patterns are one str, or any iterable of str."""
        given: Any
        for given in ("/a b/*", ["/a b/*"], iter(["/a b/*"])):
            settings = Settings.from_keywords(threads_for=given)
            self.assertEqual(settings.threads_for, ("/a b/*",))

    def test_wrong_route_patterns(self) -> None:
        """The error names the pattern and the remedy."""
        for given in ("reports", "", "GET", "GET reports", "*", "G T /x"):
            message = self.refusal(threads_for=given)
            self.assertIn(f"threads_for {given!r} is not a route pattern", message)
            self.assertIn("'POST /upload', 'all', 'auto' or 'none'", message)
        message = self.refusal(threads_for=["none", "/a"])
        self.assertIn("contains none and other patterns: remove one", message)
        wrong: Any
        for wrong in (5, None, ["/a", 5], [b"/a"]):
            self.assertIn("give a list of str", self.refusal(threads_for=wrong))

    def test_methods(self) -> None:
        """Methods are any iterable of tokens, or a str with commas."""
        given: Any
        for given in (
            ["GET", "BREW"],
            ("GET", "BREW"),
            iter(["GET", "BREW"]),
            "GET,BREW",
            " GET , BREW ",
        ):
            settings = Settings.from_keywords(methods=given)
            self.assertEqual(settings.methods, ("GET", "BREW"))
        for given in ((), [], "", " "):
            self.assertEqual(Settings.from_keywords(methods=given).methods, ())

    def test_wrong_methods(self) -> None:
        """A method that no request can have, or that cannot be served, is refused."""
        given: Any
        for given, message in (
            ("GET,,PUT", "does not consist of request methods: give names such as GET"),
            ("GET PUT", "does not consist of request methods"),
            (["G(T"], "does not consist of request methods"),
            ([""], "does not consist of request methods"),
            (["GET\n"], "does not consist of request methods"),
            ([b"GET"], "does not consist of strings: give a list of str"),
            (5, "does not consist of strings"),
            (None, "does not consist of strings"),
            ("GET,CONNECT", "contains CONNECT, which no application can serve: remove"),
            ("PRI", "contains PRI, which no application can serve"),
            ("get", "contains get, but methods are case-sensitive: give GET"),
            (["Post"], "contains Post, but methods are case-sensitive: give POST"),
        ):
            self.assertIn(f"methods={given!r} {message}", self.refusal(methods=given))
        self.assertEqual(Settings.from_keywords(methods=["brew"]).methods, ("brew",))

    def test_unknown_name(self) -> None:
        """For a misspelled setting, the message suggests the most similar name."""
        self.assertEqual(
            self.refusal(max_inflight=5),
            "max_inflight=5 is not a setting: did you mean max_in_flight?",
        )

    def test_unknown_name_near_none(self) -> None:
        """For an unknown name, the message lists all settings."""
        message = self.refusal(zzz=5)
        self.assertIn("zzz=5 is not a setting: give one of max_in_flight, ", message)

    def test_below_minimum(self) -> None:
        """For a number below the minimum, the message gives the minimum."""
        self.assertEqual(
            self.refusal(max_in_flight=0),
            "max_in_flight=0 is out of range: give a whole number, at least 1",
        )

    def test_meaning_of_zero(self) -> None:
        """If 0 has a special meaning, the message explains it."""
        self.assertEqual(
            self.refusal(max_body=-1),
            "max_body=-1 is out of range: give a number of bytes, at least 0 "
            "(0: no limit)",
        )

    def test_wrong_types(self) -> None:
        """For a value of the wrong type, the message gives the right one."""
        cases: list[tuple[dict[str, Any], str]] = [
            ({"max_headers": "5"}, "max_headers='5' is not a whole number: give"),
            ({"max_headers": 5.0}, "max_headers=5.0 is not a whole number: give"),
            ({"max_headers": True}, "max_headers=True is not a whole number: give"),
            ({"keep_alive": "5"}, "keep_alive='5' is not a number of seconds: give"),
            ({"keep_alive": None}, "keep_alive=None is not a number of seconds: "),
            ({"keep_alive": True}, "keep_alive=True is not a number of seconds: "),
            ({"max_body": 1e9}, "max_body=1000000000.0 is not a number of bytes: "),
            ({"display_tracebacks": 1}, "display_tracebacks=1 is not a flag: give"),
            ({"server_header": b"x"}, "server_header=b'x' is not a string: give a str"),
            ({"on_disconnect": 1}, "on_disconnect=1 is not a string: give a str"),
        ]
        for keywords, message in cases:
            self.assertIn(message, self.refusal(**keywords))

    def test_seconds_out_of_range(self) -> None:
        """nan, infinity and negative numbers are refused as times."""
        for value in (float("nan"), float("inf"), -0.1):
            self.assertIn(
                f"keep_alive={value!r} is out of range: give a number of seconds, at "
                "least 0 (0: close after each response)",
                self.refusal(keep_alive=value),
            )

    def test_whole_seconds(self) -> None:
        """Seconds may be given as a whole number."""
        keep_alive = Settings(keep_alive=5).keep_alive
        self.assertEqual((keep_alive, type(keep_alive)), (5.0, float))

    def test_choice(self) -> None:
        """For an invalid choice, the message lists the valid ones."""
        self.assertEqual(
            self.refusal(on_disconnect="stop"),
            "on_disconnect='stop' is not a valid value: give continue or cancel",
        )
        self.assertEqual(Settings(on_disconnect="cancel").on_disconnect, "cancel")

    def test_pairs_of_any_form(self) -> None:
        """Pairs are accepted as a dict or as any iterable of pairs."""
        expected = (("X-A", "1"), ("X-B", "2"))
        forms: list[Any] = [
            {"X-A": "1", "X-B": "2"},
            [("X-A", "1"), ("X-B", "2")],
            [["X-A", "1"], ["X-B", "2"]],
            iter([("X-A", "1"), ("X-B", "2")]),
        ]
        for given in forms:
            settings = Settings.from_keywords(add_header=given)
            self.assertEqual(settings.add_header, expected)

    def test_invalid_pairs(self) -> None:
        """Anything but pairs of strings is refused."""
        for given in ("X-A: 1", [("a", "b", "c")], 5, None, [("X-A", 1)], [(1, "x")]):
            self.assertEqual(
                self.refusal(add_header=given),
                f"add_header={given!r} does not consist of pairs of strings: give a "
                "list of (name, value) tuples of str",
            )

    def test_headers_that_would_split_a_response(self) -> None:
        """A header that would split the response is refused."""
        for value in ("a\r\nSet-Cookie: x", "a\nb", "a\0b", "a\x7fb", " a", "a ", "é"):
            self.assertIn(
                "is not a valid header value: give visible ASCII characters",
                self.refusal(add_header=[("X-A", value)]),
            )
        for name in ("", "X A", "X:A", "X\r\nA", "Ä"):
            self.assertIn(
                "has no valid header name: give letters, digits and hyphens",
                self.refusal(add_header=[(name, "a")]),
            )

    def test_headers_that_frame_a_message(self) -> None:
        """Headers that frame a message are refused: the server sets them."""
        for name in ("Content-Length", "transfer-encoding", "Connection", "UPGRADE"):
            self.assertIn(
                f"add_header '{name}': '1' is set by the server for each response: "
                "remove it",
                self.refusal(add_header=[(name, "1")]),
            )

    def test_environ(self) -> None:
        """Variables for the environ are stored unchanged."""
        settings = Settings(environ=(("app.mode", "a = b"), ("EMPTY", "")))
        self.assertEqual(settings.environ, (("app.mode", "a = b"), ("EMPTY", "")))

    def test_reserved_environ(self) -> None:
        """Variables that PEP 3333 reserves for the server are refused."""
        self.assertEqual(
            self.refusal(environ={"wsgi.input": "x"}),
            "environ 'wsgi.input'='x' is reserved for the server (PEP 3333): give a "
            "name that does not begin with 'wsgi.'",
        )

    def test_invalid_environ(self) -> None:
        """A name with spaces, or a value with a NUL, is refused."""
        for pair in (("", "x"), ("a b", "x"), ("a=b", "x"), ("a", "x\0")):
            self.assertIn("is not a valid variable: give", self.refusal(environ=[pair]))

    def test_server_header(self) -> None:
        """The Server header may be changed or omitted, but must be valid."""
        self.assertEqual(Settings(server_header="").server_header, "")
        self.assertEqual(Settings(server_header="a/1 (b)").server_header, "a/1 (b)")
        self.assertEqual(
            self.refusal(server_header="a\r\nb: c"),
            "server_header='a\\r\\nb: c' is not a valid header value: give visible "
            "ASCII characters, or an empty string to send no such header",
        )

    def test_prefix(self) -> None:
        """The prefix is an absolute path; a slash at its end is ignored."""
        for given, prefix in {
            "/app": "/app",
            "/app/": "/app",
            "/a/b.c/~d": "/a/b.c/~d",
            "/caf\xe9": "/caf\xe9",
            "/": "",
            "": "",
        }.items():
            self.assertEqual(Settings(prefix=given).prefix, prefix)
        for given in ("app", "//app", "/a//b", "/a?b", "/a#b", "/a%20b", "/a\n", "/.."):
            self.assertEqual(
                self.refusal(prefix=given),
                f"prefix={given!r} is not the path of a URL: give a path such as /app, "
                "decoded, without '?', '#' or '//'",
            )
        self.assertEqual(Settings(prefix="/..a/.b").prefix, "/..a/.b")

    def test_health_path(self) -> None:
        """The path of health checks is absolute, and not the root."""
        for given, path in {"/-": "/-", "/-/": "/-", "/a/b": "/a/b", "": ""}.items():
            self.assertEqual(Settings(health_path=given).health_path, path)
        for given in ("-", "//-", "/a//b", "/a?b", "/%2d", "/..", " "):
            self.assertEqual(
                self.refusal(health_path=given),
                f"health_path={given!r} is not the path of a URL: give a path that the "
                "application does not use, such as /-",
            )
        for given in ("/", "//"):
            self.assertEqual(
                self.refusal(health_path=given),
                f"health_path={given!r} is the root: give a path that the application "
                "does not use, such as /-",
            )

    def test_static(self) -> None:
        """Static files have paths below the root, and a directory each."""
        for given in (
            {"/static/": "/srv/static", "/media": "media"},
            [("/static", "/srv/static"), ("/media//", "media")],
        ):
            self.assertEqual(
                Settings.from_keywords(static=given).static,
                (("/static", "/srv/static"), ("/media", "media")),
            )
        for pair, problem in (
            (
                ("/", "x"),
                "static '/=x' is the root, and would hide the application: give a path "
                "such as /static",
            ),
            (
                ("static", "x"),
                "static 'static=x' does not begin with the path of a URL: give a path "
                "and a directory, such as /static=/srv/shop/static",
            ),
            (("/a//b", "x"), "does not begin with the path of a URL"),
            (("/%41", "x"), "does not begin with the path of a URL"),
            (("/..", "x"), "does not begin with the path of a URL"),
            (("/a", ""), "static '/a=' names no directory: give one"),
            (("/a", "x\0"), "names no directory: give one"),
        ):
            self.assertIn(problem, self.refusal(static=[pair]))
        self.assertIn(
            "static '/a/=y' repeats a path: give each path one directory",
            self.refusal(static=[("/a", "x"), ("/a/", "y")]),
        )
        self.assertIn("pairs of strings", self.refusal(static=[("/a",)]))
        self.assertIn("out of range", self.refusal(static_expires=-1))

    def test_proxy_protocol(self) -> None:
        """Versions are words; peers are addresses, networks, unix or all."""
        self.assertIn(
            "proxy_protocol='on' is not a valid value: give off or v1 or v2 or auto",
            self.refusal(proxy_protocol="on"),
        )
        self.assertEqual(
            Settings.from_keywords(
                proxy_protocol_from="10.0.0.1, ::1/64,unix,*"
            ).proxy_protocol_from,
            ("10.0.0.1", "::1/64", "unix", "*"),
        )
        for peer in ("localhost", "10.0.0.0/33", "", "unix:/run/x"):
            self.assertIn(
                f"contains {peer!r}, which is no address or network",
                self.refusal(proxy_protocol_from=[peer]),
            )

    def test_trusted_proxies(self) -> None:
        """Proxies are addresses, networks, unix or *, as a list or a text."""
        for given in ("10.0.0.0/8,::1,unix", ["10.0.0.0/8", "::1", "unix"]):
            self.assertEqual(
                Settings.from_keywords(trusted_proxy=given).trusted_proxy,
                ("10.0.0.0/8", "::1", "unix"),
            )
        self.assertEqual(Settings(trusted_proxy=("*",)).trusted_proxy, ("*",))
        self.assertEqual(
            self.refusal(trusted_proxy="localhost"),
            "trusted_proxy='localhost' contains 'localhost', which is no address or "
            "network: give addresses such as 127.0.0.1 or 10.0.0.0/8, unix or *",
        )
        self.assertIn("does not consist of strings", self.refusal(trusted_proxy=[1]))
        self.assertIn("does not consist of strings", self.refusal(trusted_proxy=1))

    def test_headers_of_trusted_proxies(self) -> None:
        """The headers are known ones, and of one kind."""
        kept = Settings.from_keywords(trusted_proxy_headers="X-Forwarded-For")
        self.assertEqual(kept.trusted_proxy_headers, ("x-forwarded-for",))
        for given, problem in (
            ("x-real-ip", "contains 'x-real-ip', which is unknown: give some of forw"),
            ("", "is empty: give some of forwarded"),
            ("forwarded,x-forwarded-for", "contains forwarded and older headers, whi"),
        ):
            self.assertIn(problem, self.refusal(trusted_proxy_headers=given))

    def test_script_name(self) -> None:
        """SCRIPT_NAME is refused in favour of `prefix`."""
        message = self.refusal(environ={"SCRIPT_NAME": "/x"})
        self.assertIn("would leave the prefix in PATH_INFO: use --prefix /x", message)
        self.assertIn("(prefix='/x'), which removes it", message)
        self.assertIn("--prefix /app", self.refusal(environ={"SCRIPT_NAME": ""}))

    def test_url_scheme(self) -> None:
        """The value of wsgi.url_scheme is a scheme without "://"."""
        self.assertEqual(Settings(url_scheme="https").url_scheme, "https")
        self.assertEqual(
            self.refusal(url_scheme="https://"),
            "url_scheme='https://' is not a URL scheme: give https or http, or an "
            "empty string for the connection's scheme",
        )


class KeywordTests(SynchronousTestCase):
    """`SettingsKeywords`, the type of settings passed as keywords."""

    def test_same_fields_as_settings(self) -> None:
        """Every setting is a keyword of the same type, in the same order.

        Pairs, names and words are the exception: a keyword takes them in any form.
        """
        forms = {
            "pairs": "Pairs",
            "names": "Iterable[str]",
            "words": "Iterable[str]",
        }
        kinds = {name: setting.kind for name, setting, _default in described()}
        expected = {
            field.name: forms.get(kinds[field.name], field.type)
            for field in dataclasses.fields(Settings)
        }
        annotations = {
            name: getattr(annotation, "__forward_arg__", annotation)
            for name, annotation in SettingsKeywords.__annotations__.items()
        }
        self.assertEqual(list(annotations.items()), list(expected.items()))
        self.assertEqual(SettingsKeywords.__required_keys__, frozenset())

    def test_type_checkers_refuse_wrong_keywords(self) -> None:
        """A misspelled name and a value of the wrong type are type errors.

        mypy checks this file with `warn_unused_ignores`: it reports each comment
        below that suppresses no error.
        """
        with self.assertRaises(SettingError):
            Settings.from_keywords(max_inflight=5)  # type: ignore[call-arg]
        with self.assertRaises(SettingError):
            Settings.from_keywords(keep_alive="5")  # type: ignore[arg-type]
        with self.assertRaises(SettingError):
            Settings.from_keywords(on_disconnect="stop")  # type: ignore[arg-type]
        with self.assertRaises(SettingError):
            service(demo_app, max_inflight=5)  # type: ignore[call-arg]
        with self.assertRaises(SettingError):
            service(demo_app, add_header=["X-A: 1"])  # type: ignore[list-item]

    def test_type_checkers_accept_settings(self) -> None:
        """Settings of the right types pass the type checker and are applied."""
        settings = Settings.from_keywords(
            keep_alive=5,
            max_body=0,
            on_disconnect="cancel",
            add_header={"X-A": "1"},
            environ=[("A", "b")],
        )
        self.assertEqual(
            settings.changed(),
            {
                "keep_alive": 5.0,
                "max_body": 0,
                "on_disconnect": "cancel",
                "add_header": (("X-A", "1"),),
                "environ": (("A", "b"),),
            },
        )
        self.assertEqual(Settings().changed(), {})

    def test_refused_by_a_transport(self) -> None:
        """A setting that a transport cannot honour is refused with its remedy."""
        remedies = {"keep_alive": "set the timeOut of its Site"}
        refuse_settings({"max_body": 5}, remedies, "twisted.web")
        error = self.assertRaises(
            SettingError,
            refuse_settings,
            {"max_body": 5, "keep_alive": 5.0},
            remedies,
            "twisted.web",
        )
        self.assertEqual(
            str(error),
            "keep_alive=5.0 is not supported by twisted.web: set the timeOut of its "
            "Site",
        )


class ParseTests(SynchronousTestCase):
    """Settings as text on the command line."""

    def test_bytes(self) -> None:
        """Sizes accept a suffix in upper or lower case."""
        setting = setting_named("max_body")
        for text, value in [
            ("0", 0),
            ("65536", 65536),
            ("64K", 65536),
            ("64k", 65536),
            ("10M", 10 * 1024 * 1024),
            ("10MB", 10 * 1024 * 1024),
            ("10MiB", 10 * 1024 * 1024),
            ("1G", 1024**3),
        ]:
            self.assertEqual(parse(setting, text), value, text)

    def test_bytes_refused(self) -> None:
        """For an invalid size, the message gives examples."""
        for text in ("", "x", "1.5M", "-", "-x", "1T", "1 M", "1M\n", "0x10", "\u0661"):
            error = self.assertRaises(
                SettingError, parse, setting_named("max_body"), text
            )
            self.assertEqual(
                str(error),
                f"{text!r} is not a number of bytes: give 65536, 64K, 10M or 1G",
            )

    def test_negative_numbers(self) -> None:
        """For a negative number, the message gives the minimum."""
        for name, text, kind in [
            ("max_body", "-1M", "number of bytes, at least 0 (0: no limit)"),
            ("max_headers", "-5", "whole number, at least 1"),
            (
                "keep_alive",
                "-0.5",
                "number of seconds, at least 0 (0: close after each response)",
            ),
        ]:
            error = self.assertRaises(SettingError, parse, setting_named(name), text)
            self.assertEqual(str(error), f"'{text}' is out of range: give a {kind}")

    def test_digits(self) -> None:
        """A number of more digits than Python converts is out of range."""
        for name, suffix in (("max_headers", ""), ("max_body", "M")):
            text = "9" * 5000 + suffix
            error = self.assertRaises(SettingError, parse, setting_named(name), text)
            self.assertIn("is out of range: give a", str(error))

    def test_seconds(self) -> None:
        """Times are seconds, with an optional fraction and an optional "s"."""
        setting = setting_named("keep_alive")
        for text, value in [("30", 30.0), ("0.5", 0.5), (".5", 0.5), ("2.", 2.0)]:
            self.assertEqual(parse(setting, text), value)
        self.assertEqual(parse(setting, "30s"), 30.0)
        for text in ("", ".", "nan", "inf", "-1", "1m", "1e3", "1_0"):
            self.assertRaises(SettingError, parse, setting, text)

    def test_counts(self) -> None:
        """Counts consist of decimal digits."""
        setting = setting_named("max_headers")
        self.assertEqual(parse(setting, "5"), 5)
        for text in ("", "five", "1_000", "+5", "-5", " 5", "5.0", "\u0665"):
            self.assertRaises(SettingError, parse, setting, text)

    def test_pairs(self) -> None:
        """A header contains a colon, a variable an equals sign."""
        header, variable = setting_named("add_header"), setting_named("environ")
        self.assertEqual(parse(header, "X-A:  b: c "), ("X-A", "b: c"))
        self.assertEqual(parse(variable, "A=b = c "), ("A", "b = c "))
        error = self.assertRaises(SettingError, parse, header, "X-A=b")
        self.assertEqual(str(error), "'X-A=b' contains no ':': give \"Name: value\"")

    def test_shown(self) -> None:
        """Values are shown as they are given on the command line."""
        body, wait = setting_named("max_body"), setting_named("keep_alive")
        for setting, value, text in [
            (body, 1024**3, "1G"),
            (body, 1536 * 1024, "1536K"),
            (body, 1000, "1000"),
            (body, 0, "0"),
            (wait, 15.0, "15"),
            (wait, 0.25, "0.25"),
            (setting_named("max_in_flight"), 10000000, "10000000"),
            (setting_named("display_tracebacks"), False, "off"),
            (setting_named("display_tracebacks"), True, "on"),
            (setting_named("add_header"), (("A", "b"), ("C", "d")), "A: b, C: d"),
            (setting_named("environ"), (("A", "b"),), "A=b"),
            (setting_named("server_header"), "x", "x"),
        ]:
            self.assertEqual(shown(setting, value), text)


class ImportTests(SynchronousTestCase):
    """The imports of the module."""

    def test_light(self) -> None:
        """Importing the settings imports neither Twisted nor greenlet."""
        program = (
            "import importlib.util, sys\n"
            "spec = importlib.util.spec_from_file_location('settings', sys.argv[1])\n"
            "module = importlib.util.module_from_spec(spec)\n"
            "sys.modules['settings'] = module\n"
            "spec.loader.exec_module(module)\n"
            "print(sorted({'twisted', 'greenlet', 'txgreenwsgi'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, inspect.getfile(Settings)],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(done.stdout, "[]\n")
