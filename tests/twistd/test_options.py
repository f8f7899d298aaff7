"""The command line: what can be said, and what is answered to what cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.application.twist._options import TwistOptions
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd import options
from txgreenwsgi._twistd.options import Options, markdown_table
from txgreenwsgi.settings import Settings, described


def parsed(*arguments: str, **parent: Any) -> Options:
    """Options as they are after that command line."""
    options = Options()
    if parent:
        options.parent = ServerOptions()
        options.parent.update(parent)
    options.parseOptions(arguments)
    return options


class OptionsTests(SynchronousTestCase):
    """What can be said."""

    def test_defaults(self) -> None:
        """Without options the demonstration is served on port 8080."""
        options = parsed()
        self.assertEqual(options["app"], "txgreenwsgi.demo:app")
        self.assertEqual(options["listen"], ["tcp:8080"])
        self.assertIsNone(options["chdir"])
        self.assertIsNone(options["access-log"])
        self.assertEqual(options["access-log-format"], "combined")
        self.assertEqual(options.settings, Settings())

    def test_app(self) -> None:
        """The application is named by --app, or --wsgi as in `twist web`."""
        self.assertEqual(parsed("--app", "a.b:c")["app"], "a.b:c")
        self.assertEqual(parsed("--wsgi", "a.b.c")["app"], "a.b.c")

    def test_listen(self) -> None:
        """Each --listen adds a place to listen, and replaces the default."""
        endpoints = [
            "tcp:0",
            "tcp:8080:interface=127.0.0.1",
            "tcp6:8080:interface=\\:\\:1",
            "unix:/run/app.sock:mode=660",
            "haproxy:tcp:8080",
        ]
        arguments = [f"--listen={endpoint}" for endpoint in endpoints]
        self.assertEqual(parsed(*arguments)["listen"], endpoints)

    def test_every_setting(self) -> None:
        """Every setting can be said on the command line, by its own name."""
        said: dict[str, tuple[str, Any]] = {
            "max_in_flight": ("5", 5),
            "max_queued": ("0", 0),
            "queue_timeout": ("1.5", 1.5),
            "max_connections": ("7", 7),
            "max_body": ("10M", 10485760),
            "request_timeout": ("9", 9.0),
            "graceful_timeout": ("0", 0.0),
            "keep_alive": ("2", 2.0),
            "header_timeout": ("3", 3.0),
            "body_timeout": ("4", 4.0),
            "min_body_rate": ("1K", 1024),
            "write_timeout": ("5s", 5.0),
            "max_header_size": ("16K", 16384),
            "max_headers": ("50", 50),
            "max_target": ("1K", 1024),
            "max_trailer_size": ("2K", 2048),
            "max_chunk_extensions": ("0", 0),
            "input_window": ("1M", 1048576),
            "buffer_input": ("", True),
            "buffer_memory": ("64K", 65536),
            "on_disconnect": ("cancel", "cancel"),
            "display_tracebacks": ("", True),
            "add_header": ("X-A: b", (("X-A", "b"),)),
            "environ": ("A=b", (("A", "b"),)),
            "server_header": ("", ""),
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

    def test_repeated(self) -> None:
        """Headers and variables may be given more than once, in order."""
        settings = parsed(
            "--add-header=A: 1", "--environ=A=1", "--add-header=A: 2", "--environ=B="
        ).settings
        self.assertEqual(settings.add_header, (("A", "1"), ("A", "2")))
        self.assertEqual(settings.environ, (("A", "1"), ("B", "")))

    def test_two_command_lines(self) -> None:
        """What was said to one server is not said to the next."""
        parsed("--listen=tcp:1", "--environ=A=b", "--add-header=A: b")
        self.assertEqual(parsed()["listen"], ["tcp:8080"])
        self.assertEqual(parsed().settings, Settings())

    def test_access_log(self) -> None:
        """The access log is named as here, or by -l as in `twist web`."""
        for arguments in (["--access-log=x"], ["--logfile=x"], ["-l", "x"]):
            self.assertEqual(parsed(*arguments)["access-log"], "x")
        options = parsed("--access-log=-", "--access-log-format=json")
        self.assertEqual(options["access-log"], "-")
        self.assertEqual(options["access-log-format"], "json")

    def test_help(self) -> None:
        """--help names every option with its default and its meaning."""
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
        """--version names our version and those of what we stand on."""
        done = subprocess.run(
            [sys.executable, "-m", "twisted", "greenwsgi", "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertRegex(
            done.stdout,
            r"\Atxgreenwsgi \S+ \(Twisted \S+, greenlet \S+, httptools \S+, "
            r"\w+ \S+\)\n",
        )

    def test_table(self) -> None:
        """The table for the documentation has a row for each option."""
        table = markdown_table()
        self.assertIn("| `--app SPEC` | `txgreenwsgi.demo:app` | The WSGI", table)
        self.assertIn("| `--keep-alive SECONDS` | `15` | How long", table)
        self.assertIn("0: close after each response. |", table)
        self.assertIn("| `--display-tracebacks` | `off` | Show", table)
        for line in table.splitlines():
            self.assertEqual(line.replace(r"\|", "").count("|"), 4, line)


class RefusalTests(SynchronousTestCase):
    """What cannot be said: the option, what was given, and what to give."""

    def refusal(self, *arguments: str, **parent: Any) -> str:
        """What is said of a command line that is refused."""
        return str(self.assertRaises(UsageError, parsed, *arguments, **parent))

    def test_values(self) -> None:
        """A value that cannot be is named with its option and a remedy."""
        for argument, message in {
            "--max-body=ten": "--max-body 'ten' is not a number of bytes: give 65536, "
            "64K, 10M or 1G",
            "--max-headers=0": "--max-headers '0' is out of range: give a whole "
            "number, at least 1",
            "--keep-alive=-1": "--keep-alive '-1' is not a number of seconds: give 30 "
            "or 0.5",
            "--on-disconnect=stop": "--on-disconnect 'stop' is none of its values: "
            "give continue or cancel",
            "--add-header=Foo": "--add-header 'Foo' has no ':': give \"Name: value\"",
            "--add-header=A: \x01": "--add-header 'A: \\x01' cannot stand in a header "
            "field: give visible ASCII characters, with no space at either end",
            "--environ=A": "--environ 'A' has no '=': give NAME=VALUE",
            "--environ=wsgi.x=1": "--environ 'wsgi.x=1' is set by the server, as PEP "
            "3333 says: give a name that does not begin with 'wsgi.'",
            "--access-log-format=common": "--access-log-format 'common' is no format: "
            "give combined or json",
            "--app=": "--app '' is empty: give package.module:name, for instance --app "
            "myproject.wsgi:application",
            "--access-log=": "--access-log '' is not a file: give the path of one to "
            "append to, or - for the standard output",
        }.items():
            self.assertEqual(self.refusal(argument), message)

    def test_options_of_twist_web(self) -> None:
        """The old options of `twist web` are refused with the new ones."""
        for name in ("-p", "--port"):
            self.assertEqual(
                self.refusal(name, "80"),
                f"{name} is not an option here: give --listen an endpoint string "
                "instead: --listen tcp:8080",
            )
        for name in ("--https", "-c", "--certificate", "-k", "--privkey"):
            self.assertEqual(
                self.refusal(name, "x"),
                f"{name} is not an option here: give --listen an endpoint string "
                "instead: --listen ssl:443:privateKey=key.pem:certKey=cert.pem",
            )
        for name in ("-n", "--notracebacks"):
            self.assertIn(
                f"{name} is not an option here: leave it out: tracebacks are shown "
                "with --display-tracebacks only",
                self.refusal(name),
            )

    def test_misspelled(self) -> None:
        """A misspelled option is refused with the nearest there is."""
        self.assertEqual(
            self.refusal("--keepalive", "5"),
            "--keepalive is not an option here: did you mean --keep-alive?",
        )
        self.assertEqual(
            self.refusal("-z"), "-z is not an option here: --help lists the options"
        )

    def test_no_value(self) -> None:
        """An option whose value is missing is named."""
        self.assertEqual(self.refusal("--app"), "option --app requires argument")

    def test_beside_the_options(self) -> None:
        """An application that stands alone is refused with where to put it."""
        self.assertEqual(
            self.refusal("site:app"),
            "'site:app' is not an option: to serve that application give --app "
            "site:app",
        )

    def test_addresses(self) -> None:
        """An address as other servers take it is refused with its endpoint."""
        for text, endpoint in {
            "8080": "tcp:8080",
            ":8080": "tcp:8080",
            "127.0.0.1:8080": "tcp:8080:interface=127.0.0.1",
            "localhost:8080": "tcp:8080:interface=127.0.0.1",
            "[::1]:8080": "tcp6:8080:interface=\\:\\:1",
        }.items():
            self.assertEqual(
                self.refusal("--listen", text),
                f"--listen {text!r} is not an endpoint string: give {endpoint}",
            )
            self.assertEqual(parsed("--listen", endpoint)["listen"], [endpoint])

    def test_endpoints(self) -> None:
        """What is not an endpoint string is refused with some that are."""
        for text in ("", "tcp", "tcp:x", "nope:1", "tcp:80:x=y", "unix", "tcp:80\\"):
            message = self.refusal("--listen", text)
            self.assertEqual(message.index(f"--listen {text!r} is not an endpoint"), 0)
            self.assertIn("give one such as tcp:8080, tcp:8080:interface=", message)

    def test_port_out_of_range(self) -> None:
        """A number that is no port is refused before anything starts."""
        for text in ("tcp:65536", "tcp6:99999:interface=x", "ssl:port=70000"):
            self.assertEqual(
                self.refusal("--listen", text),
                f"--listen {text!r} names no port: give one from 0 to 65535",
            )

    def test_socket_that_systemd_has_not_opened(self) -> None:
        """Who starts by hand what systemd starts is told what is missing."""
        message = self.refusal("--listen", "systemd:domain=INET:index=99")
        self.assertIn("a socket that systemd has not opened for this process", message)

    def test_key_that_is_not_there(self) -> None:
        """A key file that cannot be read is told of before anything starts."""
        path = self.mktemp()
        message = self.refusal("--listen", f"ssl:443:privateKey={path}")
        self.assertIn("needs a file that cannot be read: [Errno 2]", message)
        self.assertIn("; give the path of one that can be", message)

    def test_not_installed(self) -> None:
        """What takes more to be installed is refused with how to install it."""

        def not_installed(_reactor: object, _text: str) -> None:
            raise ImportError("No module named 'OpenSSL'")

        self.patch(options, "serverFromString", not_installed)
        self.assertEqual(
            self.refusal("--listen=ssl:443"),
            "--listen 'ssl:443' needs something that is not installed (No module named "
            "'OpenSSL'): pip install 'txgreenwsgi[tls]' brings what TLS takes",
        )

    def test_paths_of_another_directory(self) -> None:
        """Paths that twistd's -d or --chroot will move are not judged yet."""
        path = self.mktemp()
        for parent in ({"rundir": "/srv"}, {"chroot": "/srv"}):
            options = parsed(
                f"--chdir={path}", f"--listen=ssl:443:privateKey={path}", **parent
            )
            self.assertEqual(options["chdir"], path)

    def test_chdir(self) -> None:
        """A directory that is not there is refused."""
        path = self.mktemp()
        self.assertEqual(
            self.refusal("--chdir", path),
            f"--chdir {path!r} is not a directory: give the one that the "
            "application's modules are in",
        )
        os.mkdir(path)
        self.assertEqual(parsed("--chdir", path)["chdir"], path)
        self.assertIn("is not a file: give the path", self.refusal("-l", path))

    def test_access_log_of_a_daemon(self) -> None:
        """A daemon has no standard output, and says so at once."""
        self.assertEqual(
            self.refusal("--access-log=-", nodaemon=0),
            "--access-log '-' cannot be: a daemon has no standard output; give a "
            "file, or run twistd with -n (--nodaemon)",
        )
        self.assertEqual(parsed("--access-log=-", nodaemon=1)["access-log"], "-")
        options = parsed("--access-log=-", nodaemon=0, debug=True)
        self.assertEqual(options["access-log"], "-")


class CommandTests(SynchronousTestCase):
    """The options as twistd and twist find them."""

    def test_both_commands_have_it(self) -> None:
        """Both twistd and twist list greenwsgi and give it our options."""
        commands: list[Any] = [ServerOptions(), TwistOptions()]
        for command in commands:
            [make] = [
                make
                for name, _short, make, _doc in command.subCommands
                if name == "greenwsgi"
            ]
            self.assertIsInstance(make(), Options)
