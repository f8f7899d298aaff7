"""The sources of a value: option, environment, file, default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._configuration import (
    Command,
    Conditions,
    Configuration,
    ConfigurationError,
    Given,
    all_options,
    resolve,
)
from txgreenwsgi.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class SourceTestCase(SynchronousTestCase):
    """Tests with a configuration file."""

    def setUp(self) -> None:
        """Choose the path of the file."""
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir()
        self.path /= "site.toml"

    def resolved(
        self,
        text: str | bytes | None = None,
        environ: Mapping[str, str] | None = None,
        /,
        **options: Any,
    ) -> Configuration:
        """Return the configuration for a file, variables and options."""
        given = {name: Given(value, f"--{name}") for name, value in options.items()}
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            self.path.write_bytes(data)
            given["config"] = Given(str(self.path), "--config")
        return resolve(
            given,
            environ or {},
            Conditions(),
            lambda key, value: f"remedy for {key} {value}",
        )

    def refusal(
        self, text: str | bytes | None = None, environ: Any = None, /, **options: Any
    ) -> str:
        """Return the message of an invalid configuration, with FILE for the path."""
        refused: Callable[..., Any] = self.resolved
        error = self.assertRaises(ConfigurationError, refused, text, environ, **options)
        return str(error).replace(str(self.path), "FILE")


class OrderTests(SourceTestCase):
    """The order of the sources."""

    #: Each kind: the name, and the values by strength as text, TOML and result.
    KINDS = (
        ("keep_alive", 1.0, ("2", 2.0), ("3", 3.0)),
        ("max_body", 1, ("2K", 2048), ('"3K"', 3072)),
        ("max_headers", 1, ("2", 2), ("3", 3)),
        ("strict", False, ("true", True), ("true", True)),
        ("chunked", "auto", ("buffer", "buffer"), ('"stream"', "stream")),
        ("server_header", "a", ("b", "b"), ('"c"', "c")),
        ("app", "a", ("b", "b"), ('"c"', "c")),
        ("methods", ("A",), ("B,C", ("B", "C")), ('["D"]', ("D",))),
        (
            "listen",
            ("tcp:1",),
            ("tcp:2\ntcp:3", ("tcp:2", "tcp:3")),
            ('["tcp:4"]',) * 2,
        ),
        ("offload", ("a.b",), ("c.d", ("c.d",)), ('["e.f", "g.h"]', ("e.f", "g.h"))),
        ("patch", ("time",), ("none", ()), ('["os", "ssl"]', ("os", "ssl"))),
        (
            "add_header",
            (("A", "1"),),
            ("B: 2 3\nC: 4", (("B", "2 3"), ("C", "4"))),
            ('["D: 5", "D: 6"]', (("D", "5"), ("D", "6"))),
        ),
        (
            "environ",
            (("A", "1"),),
            ("B=2=3", (("B", "2=3"),)),
            ('{C = "4"}', (("C", "4"),)),
        ),
    )

    def test_order(self) -> None:
        """The strongest source wins: option, environment, file, default."""
        for name, option, (text, in_environment), (toml, in_file) in self.KINDS:
            if name == "listen":
                in_file = ("tcp:4",)
            file = f"{name} = {toml}"
            environ = {f"TXGREENWSGI_{name.upper()}": text}
            options = {name: option}
            default = all_options()[name].default
            for configuration, value, origin in (
                (self.resolved(), default, "default"),
                (self.resolved(file), in_file, f"{self.path}, line 1"),
                (self.resolved(file, environ), in_environment, next(iter(environ))),
                (self.resolved(file, environ, **options), option, f"--{name}"),
                (self.resolved(file, None, **options), option, f"--{name}"),
                (self.resolved(None, environ), in_environment, next(iter(environ))),
            ):
                self.assertEqual(configuration.given[name], Given(value, origin))

    def test_every_option(self) -> None:
        """Every option that is no action has a variable and a key."""
        for name, each in all_options().items():
            if each.option.is_action or name in ("config", "chdir", "access_log"):
                continue
            text, toml, value = {
                "flag": ("1", "true", True),
                "count": ("7", "7", 7),
                "bytes": ("7K", "7168", 7168),
                "seconds": ("7", "7", 7.0),
            }.get(each.option.kind, ("", "", None))
            if value is None:
                continue
            variable = f"TXGREENWSGI_{name.upper()}"
            for configuration in (
                self.resolved(None, {variable: text}),
                self.resolved(f"{name} = {toml}"),
            ):
                self.assertEqual(configuration.given[name].value, value, name)

    def test_result(self) -> None:
        """The values become the options of the command and the settings."""
        configuration = self.resolved("keep_alive = 5\napp = 'x'", None, strict=True)
        self.assertEqual(
            configuration.command(), Command(app="x", config=str(self.path))
        )
        self.assertEqual(
            configuration.settings(),
            Settings(keep_alive=5.0, strict=True, threads_for=("auto",)),
        )

    def test_pure(self) -> None:
        """The same sources give the same result, and a changed file another one."""
        environ = {"TXGREENWSGI_THREADS": "3"}
        first = self.resolved("keep_alive = 5", environ, strict=True)
        self.assertEqual(self.resolved("keep_alive = 5", environ, strict=True), first)
        changed = self.resolved("keep_alive = 6", environ, strict=True)
        self.assertEqual(changed.given["keep_alive"].value, 6.0)
        self.assertEqual(environ, {"TXGREENWSGI_THREADS": "3"})

    def test_other_names(self) -> None:
        """Other names of an option are variables and keys too."""
        for configuration in (
            self.resolved('wsgi = "a.b"'),
            self.resolved(None, {"TXGREENWSGI_WSGI": "a.b"}),
        ):
            self.assertEqual(configuration.given["app"].value, "a.b")
        self.assertEqual(
            self.refusal('app = "a"\nwsgi = "b"'),
            "FILE, line 2: wsgi and app are the same option: remove one",
        )
        self.assertEqual(
            self.refusal(None, {"TXGREENWSGI_APP": "a", "TXGREENWSGI_WSGI": "b"}),
            "TXGREENWSGI_APP and TXGREENWSGI_WSGI are the same option: remove one",
        )

    def test_replaced_paths(self) -> None:
        """A value that is replaced may name files that do not exist here."""
        text = "chdir = '/no/such'\nlisten = ['ssl:1:privateKey=/no/such']\n"
        configuration = self.resolved(text, None, chdir="/", listen=("tcp:1",))
        self.assertEqual(configuration.given["chdir"].value, "/")
        self.assertIn('chdir = "/no/such" is not a directory', self.refusal(text))
        environ = {"TXGREENWSGI_CHDIR": "/"}
        self.assertIn("needs a file that cannot be read", self.refusal(text, environ))
        # A wrong type is an error all the same.
        self.assertIn("line 1: chdir = 5 is not", self.refusal("chdir = 5", environ))


class EnvironmentTests(SourceTestCase):
    """Environment variables."""

    def test_config(self) -> None:
        """TXGREENWSGI_CONFIG names the file; --config is stronger."""
        self.resolved("keep_alive = 5")
        environ = {"TXGREENWSGI_CONFIG": str(self.path)}
        given = self.resolved(None, environ).given
        self.assertEqual(given["keep_alive"].value, 5.0)
        environ = {"TXGREENWSGI_CONFIG": "/no/such"}
        given = self.resolved("keep_alive = 6", environ).given
        self.assertEqual(given["keep_alive"].value, 6.0)
        self.assertEqual(
            self.refusal(None, environ),
            "TXGREENWSGI_CONFIG '/no/such' cannot be read (No such file or directory): "
            "give the path of a TOML file, such as txgreenwsgi.toml",
        )

    def test_flags(self) -> None:
        """A flag is true or false, in several spellings."""
        for text, value in {
            **dict.fromkeys(("true", "1", "True", "YES", "on"), True),
            **dict.fromkeys(("false", "0", "False", "no", "off"), False),
        }.items():
            given = self.resolved("strict = true", {"TXGREENWSGI_STRICT": text}).given
            self.assertIs(given["strict"].value, value)
        for text in ("", "2", "maybe"):
            self.assertEqual(
                self.refusal(None, {"TXGREENWSGI_STRICT": text}),
                f"TXGREENWSGI_STRICT {text!r} is not a flag: give true or false, or 1 "
                "or 0",
            )

    def test_lists(self) -> None:
        """A list has one value per line; spaces around it do not count."""
        for text, value in {
            "": (),
            "\n\n": (),
            " POST /a b \n\n/c,d": ("POST /a b", "/c,d"),
        }.items():
            given = self.resolved(None, {"TXGREENWSGI_THREADS_FOR": text}).given
            self.assertEqual(given["threads_for"].value, value)

    def test_wrong_values(self) -> None:
        """The message names the variable, the value and the remedy."""
        for name, text, message in (
            ("KEEP_ALIVE", "x", "is not a number of seconds: give 30 or 0.5"),
            ("KEEP_ALIVE", "", "is not a number of seconds: give 30 or 0.5"),
            ("MAX_HEADERS", "0", "is out of range: give a whole number, at least 1"),
            ("GC", "off", "is not a valid value: give freeze or unchanged"),
            ("ADD_HEADER", "A: b\nC", "contains no ':': give \"Name: value\""),
            ("LISTEN", "8080", "is not an endpoint string: give tcp:8080"),
            ("ORIGIN", "nginx", "is not a known server: give awsgi"),
        ):
            variable = f"TXGREENWSGI_{name}"
            self.assertIn(
                f"{variable} {text!r} {message}", self.refusal(None, {variable: text})
            )

    def test_several_values(self) -> None:
        """For several values on a line, the message says how to separate them."""
        for text in ("tcp:80 tcp:81", "tcp:80,tcp:81", "tcp:80, tcp:81"):
            self.assertIn(
                "; several values need one line each",
                self.refusal(None, {"TXGREENWSGI_LISTEN": text}),
            )

    def test_actions(self) -> None:
        """Actions have no variable."""
        environ = {"TXGREENWSGI_CHECK": "1", "TXGREENWSGI_PRINT_CONFIG": "1"}
        configuration = self.resolved(None, environ)
        self.assertFalse(configuration.given["check"].value)
        self.assertFalse(configuration.given["print_config"].value)

    def test_misspelled(self) -> None:
        """A variable that is almost an option is reported; others are ignored."""
        configuration = self.resolved(
            None,
            {
                "TXGREENWSGI_KEEPALIVE": "5",
                "TXGREENWSGI_PORT": "tcp://10.0.0.1:80",
                "TXGREENWSGI_SERVICE_HOST": "10.0.0.1",
                "TXGREENWSGI_PORT_80_TCP_ADDR": "10.0.0.1",
                "KEEP_ALIV": "5",
            },
        )
        self.assertEqual(
            configuration.warnings,
            (
                "TXGREENWSGI_KEEPALIVE is not the variable of an option and has no "
                "effect: did you mean TXGREENWSGI_KEEP_ALIVE?",
            ),
        )


class PlatformTests(SourceTestCase):
    """Variables that platforms set."""

    def test_port(self) -> None:
        """PORT replaces the default address only."""
        environ = {"PORT": "5000"}
        given = self.resolved(None, environ).given
        self.assertEqual(given["listen"], Given(("tcp:5000",), "PORT"))
        for configuration, value in (
            (self.resolved("listen = 'tcp:1'", environ), ("tcp:1",)),
            (self.resolved(None, environ, listen=("tcp:2",)), ("tcp:2",)),
            (
                self.resolved(None, {**environ, "TXGREENWSGI_LISTEN": "tcp:3"}),
                ("tcp:3",),
            ),
            (self.resolved(None, {"PORT": ""}), ("tcp:8080",)),
        ):
            self.assertEqual(configuration.given["listen"].value, value)

    def test_wrong_port(self) -> None:
        """A port that is no port number is an error."""
        for text in ("x", "-1", "65536", "80,81", "tcp:80", "\u0665"):
            self.assertEqual(
                self.refusal(None, {"PORT": text}),
                f"PORT {text!r} is not a port: give a number from 0 to 65535",
            )

    def test_web_concurrency(self) -> None:
        """WEB_CONCURRENCY is the number of workers, if no other is given."""
        environ = {"WEB_CONCURRENCY": "3"}
        given = self.resolved(None, environ).given
        self.assertEqual(given["workers"], Given(3, "WEB_CONCURRENCY"))
        given = self.resolved("workers = 'auto'", environ).given
        self.assertEqual(given["workers"].value, "auto")
        self.assertEqual(self.resolved("workers = 2").given["workers"].value, 2)
        for text in ("-1", "many", "1.5"):
            self.assertIn(
                f"WEB_CONCURRENCY {text!r} is",
                self.refusal(None, {"WEB_CONCURRENCY": text}),
            )
        self.assertIn(
            'workers = "many" is not a whole number: give a number without quotes or '
            '"auto"',
            self.refusal("workers = 'many'"),
        )

    def test_forwarded_allow_ips(self) -> None:
        """FORWARDED_ALLOW_IPS takes gunicorn's syntax."""
        for text, value in {
            "*": ("*",),
            "10.0.0.1, 10.1.0.0/16,::1": ("10.0.0.1", "10.1.0.0/16", "::1"),
            "": (),
        }.items():
            given = self.resolved(None, {"FORWARDED_ALLOW_IPS": text}).given
            self.assertEqual(given["trusted_proxy"].value, value)
        self.assertIn(
            "FORWARDED_ALLOW_IPS 'proxy' contains 'proxy', which is no address",
            self.refusal(None, {"FORWARDED_ALLOW_IPS": "proxy"}),
        )
        given = self.resolved(
            "trusted_proxy = 'unix'", {"FORWARDED_ALLOW_IPS": "*"}
        ).given
        self.assertEqual(given["trusted_proxy"].value, ("unix",))


class FileTests(SourceTestCase):
    """The configuration file."""

    def test_wrong_types(self) -> None:
        """The message names the file, the line, the key, the value and the remedy."""
        for line, message in {
            'keep_alive = "5"': 'keep_alive = "5" is not a number of seconds: give 30 '
            "or 0.5, without quotes",
            "keep_alive = true": "keep_alive = true is not a number of seconds",
            "keep_alive = inf": "keep_alive = inf is out of range",
            "keep_alive = nan": "keep_alive = nan is out of range",
            "keep_alive = -1": "keep_alive = -1 is out of range",
            "max_headers = 1.5": "max_headers = 1.5 is not a whole number: give a "
            "number without quotes",
            "max_headers = 0": "max_headers = 0 is out of range",
            "max_body = '10X'": 'max_body = "10X" is not a number of bytes',
            "max_body = 1.5": "max_body = 1.5 is not a number of bytes: give 65536, "
            '"64K", "10M" or "1G"',
            "strict = 1": "strict = 1 is not a boolean: give true or false",
            "strict = 'yes'": 'strict = "yes" is not a boolean',
            "app = 5": "app = 5 is not a string: put the value in quotes",
            "app = ''": 'app = "" is empty',
            "gc = 'off'": 'gc = "off" is not a valid value: give freeze or unchanged',
            "listen = 8080": 'listen = 8080 is not a list of strings: give ["a", "b"]',
            "listen = [8080]": "listen = [8080] is not a list of strings",
            "listen = '8080'": 'listen = "8080" is not an endpoint string: give '
            "tcp:8080",
            "methods = {a = 1}": "methods = {a = 1} is not a list of strings",
            "add_header = ['A']": "add_header = [\"A\"] contains no ':'",
            "add_header = [['A', 'b']]": 'add_header = [["A", "b"]] is neither a list '
            'of strings nor a table of strings: give ["Name: value"]',
            "environ = {A = 1}": "environ = {A = 1} is neither",
            "environ = {'wsgi.x' = ''}": 'environ = {"wsgi.x" = ""} is reserved',
            "app = 1979-05-27": 'app = "1979-05-27" is not a string',
        }.items():
            text = self.refusal(f"# comment\n\n{line}\n")
            self.assertTrue(text.startswith(f"FILE, line 3: {message}"), text)

    def test_unknown_key(self) -> None:
        """An unknown key is an error, with the place and the remedy."""
        self.assertEqual(
            self.refusal("threads = 1\n\nkeepalive = 5"),
            "FILE, line 3: keepalive is not an option: remedy for keepalive 5",
        )
        self.assertEqual(
            self.refusal("[server]\nkeep_alive = 5"),
            "FILE, line 1: server is not an option: remove the line [server], because "
            "options are in no table",
        )
        self.assertIn("remedy for port 80", self.refusal("port = 80"))
        self.assertIn("l is not an option", self.refusal("l = 'x'"))

    def test_not_in_a_file(self) -> None:
        """Actions and the file itself are not possible in a file."""
        for key, value in (("check", "true"), ("config", "'x'")):
            self.assertEqual(
                self.refusal(f"{key} = {value}"),
                f"FILE, line 1: {key} is not possible in a file: remove it, and give "
                f"--{key} on the command line",
            )

    def test_unreadable(self) -> None:
        """A file that is not TOML, not UTF-8 or not a file is an error."""
        for data, message in (
            (b"a = ", "is not valid TOML: Invalid value (at end of document)"),
            (b"a = 1\na = 2", "is not valid TOML: Cannot overwrite a value (at "),
            (b"[[" + b"[" * 5, "is not valid TOML"),
            (b"a = " + b"[" * 9999, "is n"),
            (b"\xff", "is not UTF-8 text"),
        ):
            self.assertIn(f"--config 'FILE' {message}", self.refusal(data))
        folder = str(self.path.parent)
        error = self.assertRaises(
            ConfigurationError, self.resolved, None, None, config=folder
        )
        self.assertIn("cannot be read (Is a directory)", str(error))

    def test_byte_order_mark(self) -> None:
        """A byte order mark, as editors on Windows write it, is ignored."""
        given = self.resolved(b"\xef\xbb\xbfkeep_alive = 5\r\n").given
        self.assertEqual(given["keep_alive"], Given(5.0, f"{self.path}, line 1"))

    def test_special_file(self) -> None:
        """A FIFO without a writer, and an endless device, do not block the start."""
        os.mkfifo(self.path)
        refused: Callable[..., Any] = self.resolved
        for path, message in (
            (str(self.path), "is a pipe, which can be read only once"),
            ("/dev/zero", "is larger than 1048576 bytes: give the path of a TOML file"),
        ):
            error = self.assertRaises(
                ConfigurationError, refused, None, None, config=path
            )
            self.assertIn(f"--config {path!r} {message}", str(error))

    def test_nul(self) -> None:
        """NUL is refused in every text, before it reaches the system."""
        for key in ("tls_cert", "access_log", "control", "app", "chdir"):
            self.assertEqual(
                self.refusal(f'{key} = "a\\u0000b"'),
                f'FILE, line 1: {key} = "a\\u0000b" contains NUL: remove \\u0000',
            )
        self.assertIn("contains NUL", self.refusal('listen = ["unix:\\u0000"]'))

    def test_digits(self) -> None:
        """A number of more digits than Python converts is an error."""
        self.assertEqual(
            self.refusal(f"max_headers = {'9' * 5000}"),
            "--config 'FILE' contains a number with too many digits: give a smaller "
            "number",
        )
        digits = "9" * 5000
        self.assertIn("is not a port", self.refusal(None, {"PORT": digits}))
        self.assertIn(
            "is out of range",
            self.refusal(None, {"TXGREENWSGI_MAX_BODY": f"{digits}K"}),
        )

    def test_line_of_a_key(self) -> None:
        """The line is that of the key, or left out if it is not certain."""
        string = 'app = """\nstrict = 1\n"""\nstrict = 1\n'
        self.assertTrue(self.refusal(string).startswith("FILE: strict = 1 is"))
        table = "[environ]\nstrict = 'x'\n\n"
        given = self.resolved(f"keep_alive = 1\n{table}").given
        self.assertEqual(given["environ"].origin, f"{self.path}, line 2")
        self.assertIn(
            "FILE, line 2: bad key",
            self.refusal('\n"bad key" = 1').replace(
                "FILE: bad key", "FILE, line 2: bad key"
            ),
        )

    def test_pyproject(self) -> None:
        """Of a pyproject.toml, the table tool.txgreenwsgi is used."""
        # The table is found under any other name too.
        given = self.resolved("[tool.txgreenwsgi]\nkeep_alive = 5\n").given
        self.assertEqual(given["keep_alive"], Given(5.0, f"{self.path}, line 2"))
        self.path = self.path.with_name("pyproject.toml")
        text = "[project]\nstrict = 1\n[tool.txgreenwsgi]\n"
        given = self.resolved(f"{text}keep_alive = 5\n").given
        self.assertEqual(given["keep_alive"], Given(5.0, f"{self.path}, line 4"))
        given = self.resolved(f"{text}[tool.txgreenwsgi.environ]\nA = 'b'\n").given
        self.assertEqual(given["environ"], Given((("A", "b"),), f"{self.path}, line 4"))
        self.assertIn(
            "FILE, line 4: strict = 1 is not", self.refusal(f"{text}strict=1")
        )
        for without in ("", "tool = 1", "[tool]\ntxgreenwsgi = 1"):
            self.assertEqual(
                self.refusal(without),
                "--config 'FILE' has no table [tool.txgreenwsgi]: add it, or give "
                "another file",
            )

    def test_paths(self) -> None:
        """Relative paths are relative to the directory of the file."""
        folder = self.path.parent
        (folder / "src").mkdir()
        text = (
            "chdir = 'src'\naccess_log = 'log/a.log'\n"
            "listen = ['unix:a.sock:mode=660', 'unix:/run/b', 'tcp:80', "
            "'haproxy:unix:c.sock', 'unix:address=d']"
        )
        given = self.resolved(text).given
        self.assertEqual(given["chdir"].value, str(folder / "src"))
        self.assertEqual(given["access_log"].value, str(folder / "log/a.log"))
        self.assertEqual(
            given["listen"].value,
            (
                f"unix:{folder}/a.sock:mode=660",
                "unix:/run/b",
                "tcp:80",
                f"haproxy:unix:{folder}/c.sock",
                f"unix:address={folder}/d",
            ),
        )
        given = self.resolved("access_log = '-'").given
        self.assertEqual(given["access_log"].value, "-")

    def test_special_characters_of_paths(self) -> None:
        """The directory of the file is escaped in endpoint strings."""
        folder = self.path.parent / "a=b:c"
        folder.mkdir()
        self.path = folder / "site.toml"
        self.assertEqual(
            self.resolved("listen = 'unix:a.sock'").given["listen"].value,
            (f"unix:{self.path.parents[1]}/a\\=b\\:c/a.sock",),
        )

    def test_paths_of_keys(self) -> None:
        """The paths of keys and certificates are relative to the file too."""
        text = "listen = ['ssl:1:privateKey=k.pem:certKey=c.pem']"
        self.assertIn(
            f"'{self.path.parent}/c.pem'",
            str(self.assertRaises(ConfigurationError, self.resolved, text)),
        )
        text = "listen = ['tls:certs:port=1', 'tls:/certs:port=1']"
        folder = self.path.parent
        (folder / "certs").mkdir()
        self.assertEqual(
            self.resolved(text).given["listen"].value,
            (f"tls:{folder}/certs:port=1", "tls:/certs:port=1"),
        )
        text = "listen = ['https:1:cert=c.pem:key=/k.pem:dir=d:client-ca=ca:min=1.3']"
        folder = self.path.parent
        self.assertEqual(
            self.resolved(text).given["listen"].value,
            (
                f"https:1:cert={folder}/c.pem:key=/k.pem:dir={folder}/d:"
                f"client-ca={folder}/ca:min=1.3",
            ),
        )
