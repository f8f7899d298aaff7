"""The command line: the options, and the message for each mistake."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.application.twist._options import TwistOptions
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import _native
from txgreenwsgi._configuration import markdown_table
from txgreenwsgi._server.http2_package import unused_http2
from txgreenwsgi._twistd.options import Options
from txgreenwsgi.settings import Settings, described


def parsed(*arguments: str, **parent: Any) -> Options:
    """Return the options for a command line."""
    options = Options()
    if parent:
        options.parent = ServerOptions()
        options.parent.update(parent)
    options.parseOptions(arguments)
    return options


class OptionsTests(SynchronousTestCase):
    """Valid command lines."""

    def test_defaults(self) -> None:
        """By default, the demonstration is served on port 8080."""
        options = parsed()
        self.assertEqual(options["app"], "txgreenwsgi.demo:app")
        self.assertEqual(options["listen"], ("tcp:8080",))
        self.assertIsNone(options["chdir"])
        self.assertIsNone(options["access-log"])
        self.assertEqual(options["access-log-format"], "combined")
        self.assertEqual(options.settings, Settings(threads_for=("auto",)))

    def test_app(self) -> None:
        """--app names the application, and so does --wsgi, as in `twist web`."""
        self.assertEqual(parsed("--app", "a.b:c")["app"], "a.b:c")
        self.assertEqual(parsed("--wsgi", "a.b.c")["app"], "a.b.c")

    def test_listen(self) -> None:
        """Each --listen adds an endpoint; the first one replaces the default."""
        endpoints = [
            "tcp:0",
            "tcp:8080:interface=127.0.0.1",
            "tcp6:8080:interface=\\:\\:1",
            "unix:/run/app.sock:mode=660",
            "haproxy:tcp:8080",
        ]
        arguments = [f"--listen={endpoint}" for endpoint in endpoints]
        self.assertEqual(parsed(*arguments)["listen"], tuple(endpoints))

    def test_every_setting(self) -> None:
        """Every setting has an option of its name."""
        said: dict[str, tuple[str, Any]] = {
            "max_in_flight": ("5", 5),
            "threads_for": ("POST /upload/*", ("POST /upload/*",)),
            "threads": ("3", 3),
            "max_queued": ("0", 0),
            "queue_timeout": ("1.5", 1.5),
            "max_connections": ("7", 7),
            "max_handshakes": ("9", 9),
            "max_body": ("10M", 10485760),
            "request_timeout": ("9", 9.0),
            "graceful_timeout": ("0", 0.0),
            "drain_idle": ("1", 1.0),
            "drain_delay": ("5", 5.0),
            "keep_alive": ("2", 2.0),
            "header_timeout": ("3", 3.0),
            "body_timeout": ("4", 4.0),
            "min_body_rate": ("1K", 1024),
            "write_timeout": ("5s", 5.0),
            "blocked_after": ("0.5", 0.5),
            "slow_after": ("3", 3.0),
            "server_timing": ("", True),
            "methods": ("GET, HEAD,X", ("GET", "HEAD", "X")),
            "max_header_size": ("16K", 16384),
            "max_headers": ("50", 50),
            "max_target": ("1K", 1024),
            "max_trailer_size": ("2K", 2048),
            "max_chunk_extensions": ("0", 0),
            "input_window": ("1M", 1048576),
            "buffer_input": ("", True),
            "chunked": ("stream", "stream"),
            "buffer_memory": ("64K", 65536),
            "on_disconnect": ("cancel", "cancel"),
            "half_close": ("serve", "serve"),
            "http2": ("tls", "tls"),
            "http2_max_streams": ("50", 50),
            "strict": ("", True),
            "display_tracebacks": ("", True),
            "add_header": ("X-A: b", (("X-A", "b"),)),
            "environ": ("A=b", (("A", "b"),)),
            "server_header": ("", ""),
            "prefix": ("/app/", "/app"),
            "health_path": ("/-/", "/-"),
            "static": ("/static/=.", (("/static", "."),)),
            "static_expires": ("60", 60.0),
            "trusted_proxy": ("10.0.0.0/8, unix", ("10.0.0.0/8", "unix")),
            "trusted_proxy_count": ("2", 2),
            "trusted_proxy_headers": ("Forwarded", ("forwarded",)),
            "proxy_protocol": ("auto", "auto"),
            "proxy_protocol_from": ("10.0.0.0/8,unix", ("10.0.0.0/8", "unix")),
            "url_scheme": ("https", "https"),
        }
        self.assertEqual(list(said), [name for name, _s, _d in described()])
        arguments = [
            f"--{name.replace('_', '-')}"
            + ("" if isinstance(value, bool) else f"={text}")
            for name, (text, value) in said.items()
        ]
        self.assertEqual(
            parsed(*arguments).settings,
            Settings(**{name: value for name, (_text, value) in said.items()}),
        )

    def test_methods(self) -> None:
        """--methods is a list with commas; errors name the option and the remedy."""
        self.assertEqual(parsed("--methods=").settings.methods, ())
        for text, problem in (
            ("GET,,PUT", "does not consist of request methods: give names such as"),
            ("CONNECT", "contains CONNECT, which no application can serve: remove it"),
            ("get", "contains get, but methods are case-sensitive: give GET"),
        ):
            error = self.assertRaises(UsageError, parsed, f"--methods={text}")
            self.assertIn(f"--methods {text!r} {problem}", str(error))

    def test_static(self) -> None:
        """--static may be repeated; a missing directory is an error at once."""
        here = os.getcwd()
        settings = parsed("--static=/a=.", f"--static=/b/={here}").settings
        self.assertEqual(settings.static, (("/a", "."), ("/b", here)))
        for arguments, problem in (
            (
                ["--static=/static=nowhere"],
                "--static '/static=nowhere' names no directory that can be read (No "
                "such file or directory): give the directory of the files",
            ),
            (["--static=/static"], "--static '/static' contains no '='"),
            (["--static=/=."], "--static '/=.' is the root"),
            (["--static=/a=.", "--static=/a=."], "static '/a=.' repeats a path"),
            (
                ["--chdir=/", "--static=/a=nowhere"],
                "--static '/a=/nowhere' names no directory",
            ),
        ):
            error = self.assertRaises(UsageError, parsed, *arguments)
            self.assertIn(problem, str(error))
        os.mkdir(directory := self.mktemp())
        os.mkdir(os.path.join(directory, "files"))
        parsed(f"--chdir={directory}", "--static=/a=files")

    def test_proxy_protocol(self) -> None:
        """--proxy-protocol needs the peers, unless all endpoints are UNIX sockets."""
        error = self.assertRaises(UsageError, parsed, "--proxy-protocol=auto")
        self.assertEqual(
            str(error),
            "--proxy-protocol auto needs proxy_protocol_from for the endpoint "
            "'tcp:8080': a header from any peer would be believed: give the addresses "
            "of your proxies, such as 10.0.0.0/8",
        )
        parsed("--proxy-protocol=v2", "--listen=unix:/run/web.sock")
        parsed("--proxy-protocol=v1", "--proxy-protocol-from=10.0.0.1")
        error = self.assertRaises(UsageError, parsed, "--proxy-protocol-from=10.0.0.1")
        self.assertIn("--proxy-protocol-from 10.0.0.1 has no effect", str(error))

    def test_http2(self) -> None:
        """--http2 needs a package; without a TLS endpoint, tls has no effect."""
        with patch.dict(sys.modules, {"h2": None}):
            error = self.assertRaises(UsageError, parsed, "--http2=h2c")
            parsed()
        self.assertIn("--http2 h2c needs a package that is not", str(error))
        self.assertIn("run pip install 'txgreenwsgi[http2]'", str(error))
        unused = "http2 tls is used by no endpoint: give --http2 h2c for plain"
        self.assertIn(unused, str(parsed("--http2=tls").warnings))
        self.assertEqual(parsed("--http2=h2c").warnings, ())
        unused_of = unused_http2("tls", ["tcp:80", "ssl:443:privateKey=key.pem"])
        self.assertEqual(unused_of, ())

    def test_gc(self) -> None:
        """--gc is freeze or unchanged; errors name the option and the remedy."""
        self.assertEqual(parsed()["gc"], "freeze")
        self.assertEqual(parsed("--gc=unchanged")["gc"], "unchanged")
        for text in ("off", "default", ""):
            error = self.assertRaises(UsageError, parsed, f"--gc={text}")
            self.assertEqual(
                str(error),
                f"--gc {text!r} is not a valid value: give freeze or unchanged",
            )

    def test_repeated(self) -> None:
        """Headers and variables may be repeated, and keep their order."""
        settings = parsed(
            "--add-header=A: 1", "--environ=A=1", "--add-header=A: 2", "--environ=B="
        ).settings
        self.assertEqual(settings.add_header, (("A", "1"), ("A", "2")))
        self.assertEqual(settings.environ, (("A", "1"), ("B", "")))

    def test_script_name(self) -> None:
        """--environ SCRIPT_NAME is refused in favour of --prefix."""
        error = self.assertRaises(UsageError, parsed, "--environ=SCRIPT_NAME=/app")
        self.assertIn("--environ 'SCRIPT_NAME=/app' would leave the prefix", str(error))
        self.assertIn("use --prefix /app", str(error))

    def test_stale_pidfile(self) -> None:
        """A stale pidfile of twistd is removed before twistd checks it."""
        stale = Path(self.mktemp())
        stale.write_text(str(os.getpid()))
        options = Options()
        options.parent = ServerOptions()
        options.parent["pidfile"] = str(stale)
        options.parseOptions(["--listen=tcp:0"])
        self.assertFalse(stale.exists())

    def test_two_command_lines(self) -> None:
        """Two command lines share no values."""
        parsed("--listen=tcp:1", "--environ=A=b", "--add-header=A: b")
        self.assertEqual(parsed()["listen"], ("tcp:8080",))
        self.assertEqual(parsed().settings, Settings(threads_for=("auto",)))

    def test_access_log(self) -> None:
        """--access-log names the access log, and so does -l, as in `twist web`."""
        for arguments in (["--access-log=x"], ["--logfile=x"], ["-l", "x"]):
            self.assertEqual(parsed(*arguments)["access-log"], "x")
        options = parsed("--access-log=-", "--access-log-format=json")
        self.assertEqual(options["access-log"], "-")
        self.assertEqual(options["access-log-format"], "json")

    def test_help(self) -> None:
        """--help lists every option with its default and its meaning."""
        text = " ".join(str(Options()).split())
        for name, setting, _default in described():
            self.assertIn(f"--{name.replace('_', '-')}", text)
            self.assertIn(setting.meaning, text)
        for words in (
            "--app= The WSGI application to serve",
            "[default: txgreenwsgi.demo:app]",
            "[default: tcp:8080]",
            "[bytes; default: 1G; 0: no limit]",
            "[default: 10000]",
            "[seconds; default: 15; 0: close after each response]",
            "[continue or cancel; default: continue]",
        ):
            self.assertIn(words, text)
        self.assertNotIn("None", text)

    def test_version(self) -> None:
        """--version prints all versions, and whether the server is compiled."""
        done = subprocess.run(
            [sys.executable, "-m", "twisted", "greenwsgi", "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertRegex(
            done.stdout,
            r"\Atxgreenwsgi \S+ \(Twisted \S+, greenlet \S+, httptools \S+, "
            rf"\w+ \S+; {re.escape(_native.description())}\)\n",
        )

    def test_table(self) -> None:
        """The table of the documentation has a row for each option."""
        table = markdown_table()
        self.assertIn("| `--app SPEC` | `txgreenwsgi.demo:app` | The WSGI", table)
        self.assertIn("| `--keep-alive SECONDS` | `15` | Maximum idle", table)
        self.assertIn("0: close after each response. |", table)
        self.assertIn("| `--display-tracebacks` | `off` | Send", table)
        for line in table.splitlines():
            self.assertEqual(line.replace(r"\|", "").count("|"), 4, line)


class RefusalTests(SynchronousTestCase):
    """Invalid command lines: messages give the option, the value and the remedy."""

    def refusal(self, *arguments: str, **parent: Any) -> str:
        """Return the message for an invalid command line."""
        return str(self.assertRaises(UsageError, parsed, *arguments, **parent))

    def test_values(self) -> None:
        """For an invalid value, the message gives option, value and remedy."""
        for argument, message in {
            "--max-body=ten": "--max-body 'ten' is not a number of bytes: give 65536, "
            "64K, 10M or 1G",
            "--max-headers=0": "--max-headers '0' is out of range: give a whole "
            "number, at least 1",
            "--max-body=-1": "--max-body '-1' is out of range: give a number of "
            "bytes, at least 0 (0: no limit)",
            "--keep-alive=-1": "--keep-alive '-1' is out of range: give a number of "
            "seconds, at least 0 (0: close after each response)",
            "--max-headers=-5": "--max-headers '-5' is out of range: give a whole "
            "number, at least 1",
            "--keep-alive=-x": "--keep-alive '-x' is not a number of seconds: give 30 "
            "or 0.5",
            "--on-disconnect=stop": "--on-disconnect 'stop' is not a valid value: "
            "give continue or cancel",
            "--add-header=Foo": "--add-header 'Foo' contains no ':': give "
            '"Name: value"',
            "--add-header=A: \x01": "--add-header 'A: \\x01' is not a valid header "
            "value: give visible ASCII characters, without a space at either end",
            "--environ=A": "--environ 'A' contains no '=': give NAME=VALUE",
            "--environ=wsgi.x=1": "--environ 'wsgi.x=1' is reserved for the server "
            "(PEP 3333): give a name that does not begin with 'wsgi.'",
            "--access-log-format=clf": "--access-log-format 'clf' is not a format: "
            "give combined, common, json, or directives of Apache, such as '%h %r %s'",
            "--access-log-skip=health": "--access-log-skip 'health' is not the pattern "
            "of a path: give a path such as /health or /internal/*",
            "--app=": "--app '' is empty: give package.module:name, such as --app "
            "myproject.wsgi:application",
            "--access-log=": "--access-log '' is not a file: give the path of a file "
            "to append to, or - for standard output",
        }.items():
            self.assertEqual(self.refusal(argument), message)

    def test_options_of_twist_web(self) -> None:
        """For a retired option of `twist web`, the message gives the replacement."""
        for name in ("-p", "--port"):
            self.assertEqual(
                self.refusal(name, "80"),
                f"{name} is not an option: use --listen with an endpoint string: "
                "--listen tcp:80",
            )
        for name in ("--https", "-c", "--certificate", "-k", "--privkey"):
            self.assertEqual(
                self.refusal(name, "x"),
                f"{name} is not an option: use --tls-cert and --tls-key, with --listen "
                "https:443",
            )
        for name in ("-n", "--notracebacks"):
            self.assertIn(
                f"{name} is not an option: remove it: only --display-tracebacks shows "
                "tracebacks",
                self.refusal(name),
            )

    def test_misspelled(self) -> None:
        """For a misspelled option, the message suggests the most similar one."""
        self.assertEqual(
            self.refusal("--keepalive", "5"),
            "--keepalive is not an option: did you mean --keep-alive?",
        )
        self.assertEqual(
            self.refusal("-z"), "-z is not an option: --help lists the options"
        )

    def test_no_value(self) -> None:
        """For a missing value, the message gives the option."""
        self.assertEqual(self.refusal("--app"), "option --app requires argument")

    def test_beside_the_options(self) -> None:
        """For a positional argument, the message gives the option."""
        self.assertEqual(
            self.refusal("site:app"),
            "'site:app' is not an option: to serve that application, give --app "
            "site:app",
        )
        self.assertEqual(
            self.refusal("shop/wsgi.py"),
            "'shop/wsgi.py' is not an option: to serve that application, give --app "
            "shop.wsgi",
        )

    def test_endpoints(self) -> None:
        """A wrong endpoint string is refused with its option and the remedy."""
        self.assertEqual(
            self.refusal("--listen", "localhost:8080"),
            "--listen 'localhost:8080' is not an endpoint string: give "
            "tcp:8080:interface=127.0.0.1",
        )
        self.assertIn(
            "--listen 'tcp:x' is not a valid endpoint string (ValueError",
            self.refusal("--listen", "tcp:x"),
        )

    def test_paths_of_another_directory(self) -> None:
        """Paths are not checked if -d or --chroot of twistd change their meaning."""
        path = self.mktemp()
        for parent in ({"rundir": "/srv"}, {"chroot": "/srv"}):
            options = parsed(
                f"--chdir={path}", f"--listen=ssl:443:privateKey={path}", **parent
            )
            self.assertEqual(options["chdir"], path)

    def test_chdir(self) -> None:
        """A missing directory is refused."""
        path = self.mktemp()
        self.assertEqual(
            self.refusal("--chdir", path),
            f"--chdir {path!r} is not a directory: give the directory of the "
            "application's modules",
        )
        os.mkdir(path)
        self.assertEqual(parsed("--chdir", path)["chdir"], path)
        self.assertIn("is not a file: give the path", self.refusal("-l", path))

    def test_access_log_of_a_daemon(self) -> None:
        """Standard output is refused for a daemon, which has none."""
        self.assertEqual(
            self.refusal("--access-log=-", nodaemon=0),
            "--access-log '-' is not possible for a daemon, which has no standard "
            "output: give a file, or run twistd with -n (--nodaemon)",
        )
        self.assertEqual(parsed("--access-log=-", nodaemon=1)["access-log"], "-")
        options = parsed("--access-log=-", nodaemon=0, debug=True)
        self.assertEqual(options["access-log"], "-")


class CommandTests(SynchronousTestCase):
    """The options in both commands."""

    def test_both_commands_have_it(self) -> None:
        """Both twistd and twist have the command greenwsgi, with these options."""
        commands: list[Any] = [ServerOptions(), TwistOptions()]
        for command in commands:
            [make] = [
                make
                for name, _short, make, _doc in command.subCommands
                if name == "greenwsgi"
            ]
            self.assertIsInstance(make(), Options)


class ReloadOptionTests(SynchronousTestCase):
    """`--reload` and the options that it excludes."""

    def test_one_worker(self) -> None:
        """It is compatible with one worker."""
        command = parsed("--reload", "--workers=1", "--reload-extra=*.html").command
        self.assertTrue(command.reload)
        self.assertEqual(command.reload_extra, ("*.html",))

    def test_several_workers(self) -> None:
        """More are an error that names both options."""
        for number in ("2", "auto"):
            error = self.assertRaises(
                UsageError, parsed, "--reload", f"--workers={number}"
            )
            self.assertIn(
                f"--reload and --workers {number} exclude each other", str(error)
            )

    def test_pattern_alone(self) -> None:
        """Patterns without it have no effect, which is an error."""
        error = self.assertRaises(UsageError, parsed, "--reload-extra=.env")
        self.assertIn("--reload-extra '.env' has no effect", str(error))


class WorkersOptionTests(SynchronousTestCase):
    """`--workers`."""

    def test_too_many(self) -> None:
        """There is a maximum."""
        self.assertEqual(parsed("--workers=1000").command.workers, 1000)
        error = self.assertRaises(UsageError, parsed, "--workers=1001")
        self.assertIn("give 1000 at most", str(error))


class PreloadOptionTests(SynchronousTestCase):
    """`--preload` and the options that it needs."""

    def test_with_workers(self) -> None:
        """It needs workers."""
        self.assertTrue(parsed("--preload", "--workers=2").command.preload)
        error = self.assertRaises(UsageError, parsed, "--preload")
        self.assertIn("--preload has no effect without workers", str(error))

    def test_development(self) -> None:
        """It is not for development."""
        error = self.assertRaises(
            UsageError, parsed, "--preload", "--reload", "--workers=1"
        )
        self.assertIn("--preload and --reload exclude each other", str(error))


class StatusOptionTests(SynchronousTestCase):
    """The options of the status page."""

    def refusal(self, *arguments: str) -> str:
        """Return the error of a command line."""
        return str(self.assertRaises(UsageError, parsed, *arguments))

    def test_status(self) -> None:
        """By default there is no page; an address is translated."""
        command = parsed().command
        self.assertEqual(
            (command.status, command.status_token, command.status_cancel),
            (None, None, False),
        )
        command = parsed("--status", "tcp:127.0.0.1:9091", "--status-cancel").command
        self.assertEqual(command.status, "tcp:9091:interface=127.0.0.1")
        self.assertTrue(command.status_cancel)

    def test_reachable(self) -> None:
        """An address that other machines reach needs a token."""
        for address in ("tcp:9091", "tcp:0.0.0.0:9091", "tcp:10.0.0.1:9091"):
            error = self.refusal("--status", address)
            self.assertIn("can be reached from other machines", error)
            self.assertIn("--status-token", error)
        parsed("--status", "tcp:9091", "--status-token", "x" * 16)
        parsed("--status", "unix:/tmp/s.sock")

    def test_wrong_addresses(self) -> None:
        """The error has the address and an example."""
        for address in ("9091", "https:9091", "tcp:", "tcp:127.0.0.1:99999"):
            error = self.refusal("--status", address)
            self.assertIn(f"--status {address!r} ", error)
            self.assertIn("give one such as tcp:127.0.0.1:9091", error)

    def test_token(self) -> None:
        """A short token is refused, and no error or list of options quotes it."""
        for token in ("hunter2", "", "hunter2 hunter2 hunter2", "hunter2\n" * 4):
            error = self.refusal("--status", "tcp:9091", "--status-token", token)
            self.assertIn("--status-token (a secret) has fewer than 16", error)
            self.assertNotIn("hunter2", error)
        with patch.dict(os.environ, TXGREENWSGI_STATUS_TOKEN="hunter2"):
            error = self.refusal("--status", "tcp:9091")
        self.assertIn("TXGREENWSGI_STATUS_TOKEN (a secret)", error)
        self.assertNotIn("hunter2", error)
        error = self.refusal("--status-token", "x" * 16)
        self.assertIn("has no effect without --status", error)
        words = ["--status", "tcp:9091", "--status-token", "hunter2-hunter2-hunter2"]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.assertRaises(SystemExit, parsed, *words, "--print-config")
        self.assertIn("status = ", printed.getvalue())
        self.assertNotIn("hunter2", printed.getvalue())
