"""Remedies for options of other servers."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.hints import (
    HELP,
    OTHERS,
    PROCESS_OPTIONS,
    explain,
    hint,
    listen_for,
)
from txgreenwsgi._twistd.options import Options

KNOWN = [option.rstrip("=") for option in Options().longOpt]


def remedy(*words: str, is_twistd: bool = False) -> str:
    """Return the message for a command line whose first option does not exist."""
    name = re.match(r"--[\w.-]+|-\w", words[0])
    assert name is not None
    error = f"option {name[0]} not recognized"
    message = explain(error, words, KNOWN, is_twistd=is_twistd)
    start = f"{name[0]} is not an option: "
    assert message.startswith(start), message
    return message[len(start) :]


class ListenForTests(SynchronousTestCase):
    """Addresses of other servers as endpoint strings."""

    def test_addresses(self) -> None:
        """Hosts, ports, UNIX sockets and descriptors are translated."""
        for address, endpoint in {
            "127.0.0.1:8000": "tcp:8000:interface=127.0.0.1",
            "localhost:8000": "tcp:8000:interface=127.0.0.1",
            "0.0.0.0:80": "tcp:80",
            "*:80": "tcp:80",
            ":80": "tcp:80",
            "8000": "tcp:8000",
            "127.0.0.1": "tcp:8080:interface=127.0.0.1",
            "http://127.0.0.1:5000": "tcp:5000:interface=127.0.0.1",
            "[::1]:80": r"tcp6:80:interface=\:\:1",
            "[::]:80": "tcp6:80",
            "::1": r"tcp6:8080:interface=\:\:1",
            "unix:/run/a.sock": "unix:/run/a.sock",
            "unix:///run/a.sock": "unix:/run/a.sock",
            "/run/a.sock": "unix:/run/a.sock",
            "fd://3": "fd:3",
            "tcp:80": "tcp:80",
            "web.example:80": "tcp:80:interface=ADDRESS",
            "": "tcp:8080",
            "127.0.0.1:http": "tcp:8080:interface=127.0.0.1",
        }.items():
            self.assertEqual(listen_for(address), endpoint, address)


class ExplainTests(SynchronousTestCase):
    """The message for an option that does not exist."""

    def test_address(self) -> None:
        """The remedy is an endpoint string with the given address."""
        start = "use --listen with an endpoint string: --listen "
        for words, endpoint in [
            (["-b", "0.0.0.0:8000"], "tcp:8000"),
            (["-b0.0.0.0:8000"], "tcp:8000"),
            (["--bind=unix:/run/a.sock"], "unix:/run/a.sock"),
            (["--bind", "[::1]:80"], r"'tcp6:80:interface=\:\:1'"),
            (["--bind"], "tcp:8080"),
            (["--host", "127.0.0.1", "--port", "99"], "tcp:99:interface=127.0.0.1"),
            (["--port=99", "--host=0.0.0.0"], "tcp:99"),
            (["-p", "99"], "tcp:99"),
            (["--http", ":9090"], "tcp:9090"),
            (["--uds", "/run/a.sock"], "unix:/run/a.sock"),
            (["--fd", "4"], "fd:4"),
            (["--fd", "x"], "fd:3"),
            (["--backlog", "64"], "tcp:8080:backlog=64"),
        ]:
            self.assertEqual(remedy(*words), start + endpoint, words)
        self.assertIn("HTTP/1.1", remedy("--http", "2"))

    def test_same_meaning(self) -> None:
        """Options with another name are given with their value."""
        for words, expected in [
            (["-w", "4"], "give --workers 4"),
            (["-w4"], "give --workers 4"),
            (["--processes", "2"], "give --workers 2"),
            (["--worker-connections", "500"], "give --max-in-flight 500"),
            (["--timeout-keep-alive", "5"], "give --keep-alive 5"),
            (["--access-logfile", "-"], "give --access-log"),
            (["--access-logformat", "%(h)s"], "give --access-log-format '%(h)s'"),
            (["--forwarded-allow-ips", "*"], "give --trusted-proxy '*'"),
            (["--root-path", "/app"], "give --prefix /app"),
            (["--limit-request-line", "4096"], "give --max-target 4096"),
            (["--app-dir", "src"], "give --chdir src"),
            (["--module", "shop.wsgi"], "give --app shop.wsgi"),
            (["-w", "shop:app"], "give --app shop:app"),
            (["--paste", "production.ini"], "give --app config:production.ini"),
            (["-e", "SCRIPT_NAME=/app"], "give --prefix /app"),
            (["--certfile", "a.pem"], "give --tls-cert a.pem"),
            (["--ssl-keyfile", "a.pem"], "give --tls-key a.pem"),
            (["--ca-certs", "a.pem"], "give --tls-client-ca a.pem"),
        ]:
            self.assertEqual(remedy(*words), expected, words)

    def test_two_meanings(self) -> None:
        """The value tells apart options of different servers with one name."""
        self.assertIn("one class of workers", remedy("-k", "gthread"))
        self.assertIn("one class of workers", remedy("-k", "pkg.workers.MyWorker"))
        self.assertIn("--tls-key,", remedy("-k", "key.pem"))
        self.assertIn("from-gunicorn conf.py", remedy("-c", "conf.py"))
        self.assertIn("use --tls-cert", remedy("-c", "cert.pem"))
        self.assertEqual(remedy("-c", "web.toml"), "give --config web.toml")

    def test_without_counterpart(self) -> None:
        """For an option that is not needed, the remedy is to remove it."""
        for words in (
            ["--worker-class", "gevent"],
            ["--interface", "wsgi"],
            ["--log-config", "log.ini"],
            ["--enable-threads"],
        ):
            self.assertTrue(remedy(*words).startswith("remove it: "), words)
        self.assertIn("give --log-level with", remedy("--loglevel", "debug"))
        self.assertIn("env A=1 ...", remedy("--env", "A=1"))
        self.assertIn("--app 'package.module:name()'", remedy("--factory"))
        self.assertIn("--request-timeout 60", remedy("-t", "60"))
        self.assertIn("twistd greenwsgi", remedy("--daemon"))

    def test_options_of_the_process(self) -> None:
        """Twistd has its own options before the word greenwsgi."""
        self.assertEqual(remedy("--user", "www"), "give --uid www")
        self.assertEqual(
            remedy("--user", "www", is_twistd=True),
            "give --uid www before the word greenwsgi",
        )
        self.assertEqual(
            remedy("--log-file", "x", is_twistd=True),
            "give --logfile x before the word greenwsgi",
        )
        self.assertEqual(
            remedy("--pidfile=x.pid", is_twistd=True),
            "give --pidfile x.pid before the word greenwsgi",
        )

    def test_others(self) -> None:
        """A misspelled option gets the most similar one, others the help."""
        self.assertEqual(remedy("--keepalive", "5"), "did you mean --keep-alive?")
        self.assertEqual(remedy("--zebra"), HELP)
        self.assertEqual(remedy("-z"), HELP)

    def test_other_errors(self) -> None:
        """An error that is not about an unknown option stays as it is."""
        error = "option --app requires argument"
        self.assertEqual(explain(error, ["--app"], KNOWN, is_twistd=True), error)

    def test_remedies_exist(self) -> None:
        """Remedies name options that this server has."""
        named: set[str] = set()
        for name in OTHERS:
            for value in ("", "4", "gevent", "conf.py", "x.toml", "SCRIPT_NAME=/a"):
                text = hint(name, value, KNOWN) or ""
                named.update(re.findall(r"(?<!\S)--([a-z][a-z-]+)", text))
        self.assertEqual(named - set(KNOWN) - set(PROCESS_OPTIONS), set())
        self.assertEqual(hint("--harakiri", "5", ["keep-alive"]), HELP)
        self.assertIsNone(hint("--keep-alive", "5", KNOWN))

    def test_hints_are_for_unknown_options(self) -> None:
        """No option of this server is explained as one of another."""
        for name in (*KNOWN, *PROCESS_OPTIONS):
            if name != "log-file":
                self.assertNotIn("use --listen", remedy(f"--{name}", "1"))
