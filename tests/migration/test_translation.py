"""`txgreenwsgi from-gunicorn`."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._configuration import (
    Conditions,
    Configuration,
    Given,
    all_options,
    resolve,
)
from txgreenwsgi._migration import gunicorn_settings, gunicorn_values
from txgreenwsgi._migration.addresses import AddressError, endpoint_for
from txgreenwsgi._migration.from_gunicorn import main
from txgreenwsgi._migration.gunicorn_settings import SETTINGS
from txgreenwsgi._migration.log_formats import DEFAULT_FORMAT, translated_format
from txgreenwsgi.monitoring.log_format import compiled


def present(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of options that this version has."""
    return {name: values[name] for name in values if name in all_options()}


class CommandTestCase(SynchronousTestCase):
    """Tests that run the command in a directory of its own."""

    def setUp(self) -> None:
        """Change to a new directory, with an empty environment."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        self.environ: dict[str, str] = {}
        self.patch(os, "environ", self.environ)
        self.patch(sys, "path", list(sys.path))
        self.addCleanup(sys.modules.pop, "__config__", None)
        self.errors = ""

    def run_main(self, *arguments: str, config: str = "", status: int = 0) -> str:
        """Return the output, after writing the configuration file."""
        if config:
            Path("gunicorn.conf.py").write_text(config)
        output, errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", errors)
        try:
            result = main(arguments)
        finally:
            self.errors = errors.getvalue()
        self.assertEqual(result, status, self.errors)
        return output.getvalue()

    def read(self, text: str) -> Configuration:
        """Return the configuration of the printed file."""
        path = self.folder / "printed.toml"
        path.write_text(text)
        return resolve(
            {"config": Given(str(path), "--config")},
            {},
            Conditions(paths_are_final=False),
            lambda key, value: "",
        )

    def values(self, config: str = "", *options: str) -> dict[str, Any]:
        """Return the options that the printed file gives, by name."""
        words = ("--", *options) if options else ()
        text = self.run_main(*words, config=config or "workers = 1")
        given = self.read(text).given
        return {
            name: one.value
            for name, one in given.items()
            if one.origin not in ("default", "--config")
        }

    def missing(self, config: str, *options: str) -> str:
        """Return the list of settings without a counterpart."""
        words = ("--", *options) if options else ()
        text = self.run_main(*words, config=config)
        return text.partition("# Without a counterpart:\n")[2]


class TranslationTests(CommandTestCase):
    """The values."""

    def test_settings(self) -> None:
        """Settings become keys with the same meaning."""
        cases: dict[str, dict[str, Any]] = {
            "bind = '0.0.0.0:80'": {"listen": ("tcp:80",)},
            "bind = ['unix:/run/a.sock', '[::1]:8000']": {
                "listen": ("unix:/run/a.sock", r"tcp6:8000:interface=\:\:1")
            },
            "bind = 'tcp://:3'\nbacklog = 5": {"listen": ("tcp:3:backlog=5",)},
            "backlog = 5": {"listen": ("tcp:8000:interface=127.0.0.1:backlog=5",)},
            "wsgi_app = 'shop:app'": {"app": "shop:app"},
            "loglevel = 'warning'": {"log_level": ("txgreenwsgi=warn",)},
            "loglevel = 'DEBUG'": {"log_level": ("txgreenwsgi=debug",)},
            "workers = 3": {"workers": 3},
            "workers = '3'": {"workers": 3},
            "worker_connections = 50": {"max_in_flight": 50},
            "max_requests = 9\nmax_requests_jitter = 3": {
                "max_requests": 9,
                "max_requests_jitter": 3,
            },
            "timeout = 60": {"worker_timeout": 60.0},
            "graceful_timeout = 60": {"graceful_timeout": 60.0},
            "keepalive = 5": {"keep_alive": 5.0},
            "limit_request_line = 1000": {"max_target": 1000},
            "limit_request_line = 0": {"max_target": 1024**2},
            "limit_request_fields = 50": {"max_headers": 50},
            "limit_request_field_size = 0": {"max_header_size": 131072},
            "limit_request_field_size = 65536": {"max_header_size": 262144},
            "preload_app = True": {"preload": True},
            "reload = True\nreload_extra_files = ['a']": {
                "reload": True,
                "reload_extra": (f"{self.folder}/a",),
            },
            "chdir = '.'": {"chdir": str(self.folder)},
            "raw_env = ['SCRIPT_NAME=/app', 'A=b']": {"prefix": "/app"},
            "root_path = '/app'": {"prefix": "/app"},
            "forwarded_allow_ips = '10.0.0.1,10.1.0.0/16'": {
                "trusted_proxy": ("10.0.0.1", "10.1.0.0/16")
            },
            "forwarded_allow_ips = '10.0.0.1'\nbind = 'unix:/a'": {
                "trusted_proxy": ("10.0.0.1", "unix"),
                "listen": ("unix:/a",),
            },
            "forwarded_allow_ips = '*'": {"trusted_proxy": ("*",)},
            "proxy_protocol = True": {
                "proxy_protocol": "auto",
                "proxy_protocol_from": ("127.0.0.1", "::1"),
            },
            "accesslog = '-'": {"access_log": "-"},
            "accesslog = 'a.log'\nchdir = '/srv'": {
                "access_log": "/srv/a.log",
                "chdir": "/srv",
            },
            "accesslog = '-'\naccess_log_format = '%(h)s %(D)s'": {
                "access_log": "-",
                "access_log_format": "%h %D",
            },
            "paste = 'a.ini#main'": {"app": f"config:{self.folder}/a.ini#main"},
            "certfile = 'c.pem'\nkeyfile = 'k.pem'\nbind = ':443'": {
                "tls_cert": f"{self.folder}/c.pem",
                "tls_key": f"{self.folder}/k.pem",
                "listen": ("https:443",),
            },
            "certfile = 'c'\nca_certs = 'a'\ncert_reqs = 2\nciphers = 'X'": {
                "tls_cert": f"{self.folder}/c",
                "tls_client_ca": f"{self.folder}/a",
                "tls_client": "required",
                "tls_ciphers": "X",
                "listen": ("https:8000:interface=127.0.0.1",),
            },
            "control_socket = 'c.sock'": {"control": f"{self.folder}/c.sock"},
            "control_socket_disable = True": {"control": "none"},
            "http_protocols = 'h1'": {},
            "http_protocols = 'h2,h1'\nhttp2_cleartext = 'off'": {"http2": "tls"},
            "http_protocols = 'h2'\nhttp2_cleartext = 'both'": {"http2": "h2c"},
            "http2_cleartext = 'prior-knowledge'": {},
            "http2_max_concurrent_streams = 50": {"http2_max_streams": 50},
            "http2_initial_window_size = 99999": {"input_window": 99999},
            "http2_max_header_list_size = 9999": {"max_header_size": 9999},
        }
        for config, expected in cases.items():
            values = self.values(config)
            values.pop("config", None)
            expected = present(expected)
            if "listen" not in expected:
                self.assertEqual(
                    values.pop("listen"), ("tcp:8000:interface=127.0.0.1",), config
                )
            self.assertEqual(values, expected, config)

    def test_process(self) -> None:
        """Options of the process and variables are part of the command."""
        text = self.run_main(
            config="user = 'www-data'\ngroup = 33\numask = 0o27\n"
            "pidfile = 'a b.pid'\nerrorlog = '/var/log/e.log'\nsyslog = True\n"
            "raw_env = ['A=b c', 'D=']\npythonpath = '/x,/y'\nspew = True\n"
            "tmp_upload_dir = '/tmp'\n"
        )
        command = text.splitlines()[1]
        self.assertEqual(
            command,
            "#   A='b c' D='' TMPDIR=/tmp PYTHONPATH=/x:/y txgreenwsgi --config "
            "txgreenwsgi.toml --spew --pidfile "
            f"'{self.folder}/a b.pid' --uid www-data --gid 33 --umask 0027 "
            "--log-file /var/log/e.log --syslog",
        )

    def test_missing(self) -> None:
        """Settings without a counterpart are listed with a reason."""
        for config, message in {
            "worker_class = 'gevent'": "worker_class = 'gevent': not needed: each",
            "threads = 4": "threads = 4: requests run in greenlets",
            "def post_fork(server, worker): pass": "post_fork: put the code",
            "loglevel = 'noisy'": "loglevel = 'noisy': 'noisy' is no level",
            "statsd_host = 'localhost:8125'": "statsd_host = 'localhost:8125': "
            "--metrics serves them to Prometheus: see Observability "
            "(docs/observability.md#metrics)",
            "protocol = 'uwsgi'": "protocol = 'uwsgi': let the proxy speak HTTP",
            "daemon = True": "daemon = True: start twistd greenwsgi",
            "http2_cleartext = 'upgrade'": "let the proxy use HTTP/2 with prior",
            "bind = 'localhost:x'": "'localhost:x' has no valid port",
            "raw_env = 5": "gunicorn does not accept it",
            "forwarded_allow_ips = 'proxy'": "which is no address or network",
            "secure_scheme_headers = {'X-SSL': '1'}": "the scheme is taken from",
            "timeout = 30": "a sync worker is also killed by one slow request",
            "ca_certs = 'a'": "without cert_reqs it verifies nothing",
        }.items():
            self.assertIn(message, self.missing(config), config)
            self.assertIn("without a counterpart: see the end", self.errors)

    def test_defaults(self) -> None:
        """Settings that have no effect in gunicorn are not mentioned."""
        config = (
            "threads = 1\nworker_class = 'sync'\nreuse_port = False\nsendfile = True\n"
            "loglevel = None\nstatsd_prefix = ''\nproxy_protocol = 'off'\n"
            "http_protocols = 'h1'\ndaemon = False\nother = 5\n"
        )
        text = self.run_main(config=config)
        self.assertNotIn("Without a counterpart", text)
        self.assertEqual(self.errors, "")

    def test_every_setting(self) -> None:
        """Whatever the value of a setting is, the output is a valid file."""
        for each in SETTINGS:
            for value in (
                "True",
                "'a'",
                "'1'",
                "['a']",
                "7",
                "0",
                "lambda *a: None",
                "{}",
            ):
                Path("gunicorn.conf.py").write_text(f"{each.name} = {value}\n")
                output, errors = io.StringIO(), io.StringIO()
                self.patch(sys, "stdout", output)
                self.patch(sys, "stderr", errors)
                if main([]) == 0:
                    self.read(output.getvalue())
                else:
                    self.assertIn("gunicorn does not accept", errors.getvalue())

    def test_port(self) -> None:
        """With PORT in the environment, gunicorn's default address is not printed."""
        self.environ["PORT"] = "5000"
        self.assertNotIn("listen", self.values())

    def test_control_characters(self) -> None:
        """A value cannot end a comment."""
        text = self.run_main(config="loglevel = 'a\\nb'\nproc_name = 'c\\nd'\n")
        self.assertIn("proc_name = 'c\\nd'", text)
        self.read(text)

    def test_keys(self) -> None:
        """The names of keys are options."""
        source = "".join(
            Path(module.__file__ or "").read_text()
            for module in (gunicorn_settings, gunicorn_values)
        )
        names = set(re.findall(r'(?:Key|key|flag|path)\(\s*"(\w+)"', source))
        self.assertGreater(len(names), 25)
        self.assertLessEqual(names, set(all_options()))


class SourceTests(CommandTestCase):
    """The sources of gunicorn's values."""

    def test_order(self) -> None:
        """The command line is stronger than GUNICORN_CMD_ARGS, that than the file."""
        self.environ["GUNICORN_CMD_ARGS"] = "--workers 2 --keep-alive 2"
        values = self.values(
            "workers = 1\nkeepalive = 1\nlimit_request_fields = 5", "-w", "3"
        )
        self.assertEqual((values["workers"], values["keep_alive"]), (3, 2.0))
        self.assertEqual(values["max_headers"], 5)

    def test_options(self) -> None:
        """All kinds of options of gunicorn are understood."""
        values = self.values(
            "workers = 1",
            *("-b", ":1", "-b", ":2", "--preload", "-k", "gevent", "-m", "022"),
            *("--proxy-protocol", "--no-sendfile", "-e", "A=b", "shop:app"),
        )
        self.assertEqual(values["listen"], ("tcp:1", "tcp:2"))
        self.assertEqual(values["app"], "shop:app")

    def test_wrong_options(self) -> None:
        """Options that gunicorn does not have are an error."""
        for words in (("--nonsense",), ("-w", "many"), ("-w",)):
            self.run_main("--", *words, status=1)
            self.assertIn("gunicorn does not accept these options", self.errors)
        self.environ["GUNICORN_CMD_ARGS"] = "'"
        self.run_main("--", "-w", "1", status=1)
        self.assertIn("GUNICORN_CMD_ARGS cannot be split", self.errors)

    def test_file_of_an_option(self) -> None:
        """-c names the file, also as a module."""
        Path("other.py").write_text("workers = 7")
        for words in (
            ("other.py",),
            ("file:other.py",),
            ("python:other",),
            ("--", "-c", "other.py"),
        ):
            self.addCleanup(sys.modules.pop, "other", None)
            self.assertIn("workers = 7\n", self.run_main(*words))

    def test_computed(self) -> None:
        """The file is executed, and may import modules beside it."""
        Path("number.py").write_text("COUNT = 2")
        self.addCleanup(sys.modules.pop, "number", None)
        values = self.values("from number import COUNT\nworkers = COUNT * 2 + 1")
        self.assertEqual(values["workers"], 5)

    def test_output_of_the_file(self) -> None:
        """What the file prints is not part of the output."""
        text = self.run_main(config="print('loading')\nworkers = 1")
        self.assertNotIn("loading", text)
        self.assertEqual(self.errors, "loading\n")

    def test_many_workers(self) -> None:
        """For more workers than cores, a comment says that one is enough."""
        comment = "# gunicorn: workers = 9999; one per core is enough\n"
        self.assertIn(comment, self.run_main(config="workers = 9999"))
        self.assertNotIn("enough", self.run_main(config="workers = 1"))

    def test_failing_file(self) -> None:
        """A file that fails is an error with its traceback."""
        for config, message in {
            "1 / 0": "fails (ZeroDivisionError: division by zero)",
            "import missing_module.part": "install missing_module in this environment",
            "def": "fails (SyntaxError",
            "raise SystemExit(3)": "exits with 3",
        }.items():
            self.run_main("gunicorn.conf.py", config=config, status=1)
            self.assertIn(message, self.errors)
            self.assertIn(
                "Traceback" if "/" in config else "gunicorn.conf", self.errors
            )
        self.run_main("nothing.py", status=1)
        self.assertIn("'nothing.py' is not a file", self.errors)

    def test_usage(self) -> None:
        """Wrong arguments are errors with a remedy; --help explains."""
        self.run_main(status=2)
        self.assertIn("there is no gunicorn.conf.py in this directory", self.errors)
        self.run_main("a", "b", status=2)
        self.assertIn("'b' is not expected here: give one FILE", self.errors)
        self.run_main("-w", "3", status=2)
        self.assertIn("'-w' is not expected here", self.errors)
        self.assertIn("Usage: txgreenwsgi from-gunicorn", self.run_main("--help"))


class AddressTests(SynchronousTestCase):
    """Addresses as endpoint strings."""

    def test_addresses(self) -> None:
        """All forms of gunicorn's addresses are understood."""
        for address, endpoint in {
            "127.0.0.1:80": "tcp:80:interface=127.0.0.1",
            "localhost:80": "tcp:80:interface=127.0.0.1",
            "example.net:80": "tcp:80:interface=example.net",
            ":80": "tcp:80",
            "0.0.0.0": "tcp:8000",
            "": "tcp:8000",
            "tcp://0.0.0.0:80": "tcp:80",
            "[::]:80": "tcp6:80:v6only=0",
            "[::1]": r"tcp6:8000:interface=\:\:1",
            "unix:/a:b": r"unix:/a\:b",
            "unix:///run/a.sock": "unix:/run/a.sock",
            "fd://3": "fd:3",
        }.items():
            self.assertEqual(endpoint_for(address), endpoint)
        self.assertEqual(endpoint_for(":80", backlog=7), "tcp:80:backlog=7")
        self.assertEqual(endpoint_for("unix:/a", tls=True), "https:unix:/a")
        self.assertEqual(endpoint_for(":443", tls=True), "https:443")

    def test_wrong_addresses(self) -> None:
        """Addresses that gunicorn refuses are errors."""
        for address in (":x", ":65536", "fd://x", "[::1]:x"):
            self.assertRaises(AddressError, endpoint_for, address)


class FormatTests(SynchronousTestCase):
    """Formats of the access log."""

    def test_default(self) -> None:
        """Gunicorn's default is Apache's combined format."""
        self.assertEqual(
            translated_format(DEFAULT_FORMAT),
            '%h %l %u %t "%r" %s %b "%{Referer}i" "%{User-Agent}i"',
        )

    def test_atoms(self) -> None:
        """Every name of gunicorn has a directive, and the result is valid."""
        names = "hlutrmUqHsBbfaTDMLp"
        form = " ".join(f"%({name})s" for name in names)
        form += " %({x-a}i)s %({x}o)s %({wsgi.url_scheme}e)s %(D)d %(L).3s 5%% %(zz)s"
        result = translated_format(form)
        compiled(result)
        self.assertTrue(
            result.endswith(" <%P> %{x-a}i %{x}o %{wsgi.url_scheme}e %D %L 5%% -"),
            result,
        )
        self.assertEqual(translated_format("a\\t%(q)s"), "a\\\\t%{QUERY_STRING}e")
