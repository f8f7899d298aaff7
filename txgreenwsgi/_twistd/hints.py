"""Remedies for options that this command does not have.

Most are the options of other servers: gunicorn, uvicorn, granian, hypercorn, waitress,
uWSGI, mod_wsgi-express and `twist web`. Where a value can be translated, the remedy is
the text to give here.

It knows names of options. It must never parse or change the command line.
"""

from __future__ import annotations

import difflib
import re
from ipaddress import ip_address
from shlex import quote
from typing import TYPE_CHECKING, Final, TypeAlias

from txgreenwsgi._server.endpoint_strings import tcp_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["HELP", "OTHERS", "PROCESS_OPTIONS", "explain", "hint", "listen_for"]

#: The remedy for everything else.
HELP: Final = "--help lists the options"

#: Options of the process in `txgreenwsgi`, and their names in twistd.
PROCESS_OPTIONS: Final = {
    **{
        name: name
        for name in (
            *("reactor", "pidfile", "uid", "gid", "euid", "umask", "chroot", "rundir"),
            *("syslog", "logger", "profile", "profiler", "savestats", "debug", "spew"),
            "help-reactors",
        )
    },
    "log-file": "logfile",
    "syslog-prefix": "prefix",
}

_USE_LISTEN: Final = "use --listen with an endpoint string"
_DEFAULT_PORT: Final = "8080"

# Worker classes of gunicorn. The -k of twist web is a file.
_WORKER_CLASS: Final = re.compile(
    r"(sync|gthread|gevent|gevent_\w+|eventlet|tornado)\Z|[\w.:]*[wW]orker"
)


class _Given:
    """The command line with the unknown option.

    Args:
        name: the option, with its dashes.
        words: the command line.
        known: the long options that exist, without dashes.
        is_twistd: whether the options of the process belong to twistd.
    """

    def __init__(
        self, name: str, words: Sequence[str], known: Sequence[str], *, is_twistd: bool
    ) -> None:
        self.name = name
        self.known = known
        self._words = words
        self._is_twistd = is_twistd

    def value(self, *names: str) -> str:
        """Return the value of the first of these options that has one; else ""."""
        for name in names or (self.name,):
            for index, word in enumerate(self._words):
                if word == name:
                    following = self._words[index + 1 : index + 2]
                    if following and not following[0].startswith("-"):
                        return following[0]
                elif word.startswith(name + "="):
                    return word[len(name) + 1 :]
                elif len(name) == 2 and word.startswith(name):
                    return word[2:]
        return ""

    def process(self, name: str, value: str = "") -> str:
        """Return the remedy of an option of the process."""
        if self._is_twistd:
            option = f"--{PROCESS_OPTIONS[name]}"
            return f"give {_joined(option, value)} before the word greenwsgi"
        return f"give {_joined('--' + name, value)}"


_Remedy: TypeAlias = "str | Callable[[_Given], str]"


def _joined(option: str, value: str) -> str:
    if not value:
        return option
    return f"{option} {quote(value)}"


def explain(
    error: str, words: Sequence[str], known: Iterable[str], *, is_twistd: bool
) -> str:
    """Return the message for an error of getopt.

    Args:
        error: the text of the error.
        words: the command line.
        known: the long options that exist, without dashes.
        is_twistd: whether the options of the process belong to twistd.
    """
    unknown = re.match(r"option (--?[\w.-]+) not recognized", error)
    if not unknown:
        return error
    given = _Given(unknown[1], words, list(known), is_twistd=is_twistd)
    return f"{given.name} is not an option: {_remedy(given)}"


def hint(name: str, value: str, known: Iterable[str]) -> str | None:
    """Return the remedy for an option of another server; None for other names.

    Args:
        name: the option, with its dashes.
        value: its value; "" if there is none.
        known: the long options that exist, without dashes.
    """
    found = OTHERS.get(name)
    if found is None or isinstance(found, str):
        return found
    return found(_Given(name, [f"{name}={value}"], list(known), is_twistd=False))


def _remedy(given: _Given) -> str:
    found = OTHERS.get(given.name)
    if found is not None:
        return found if isinstance(found, str) else found(given)
    name = given.name.removeprefix("--")
    if name in PROCESS_OPTIONS:  # known to `txgreenwsgi`
        return given.process(name, given.value())
    near = difflib.get_close_matches(
        given.name, ["--" + each for each in given.known], n=2
    )
    return f"did you mean {' or '.join(near)}?" if near else HELP


def listen_for(address: str) -> str:
    """Return the endpoint string for an address in the syntax of other servers.

    Args:
        address: such as "127.0.0.1:8000", ":80", "[::1]:80", "unix:/run/app.sock",
            "/run/app.sock" or "fd://3".
    """
    for prefix in ("tcp://", "http://", "https://"):
        address = address.removeprefix(prefix)
    if address.startswith(("tcp:", "tcp6:", "ssl:", "systemd:")):
        return address
    number = re.fullmatch(r"fd://?([0-9]+)", address)
    if number:
        return f"fd:{number[1]}"
    path = re.fullmatch(r"(?:unix:(?://)?)?(/.+)", address)
    if path:
        return f"unix:{path[1]}"
    if address.isdigit():
        return _tcp("", address)
    if address.count(":") > 1 and not address.startswith("["):
        return _tcp(address, "")
    host, colon, port = address.rpartition(":")
    return _tcp(host, port) if colon else _tcp(address, "")


def _tcp(host: str, port: str) -> str:
    port = port if port.isdigit() else _DEFAULT_PORT
    host = "" if host == "*" else host.strip("[]")
    if host not in ("", "localhost"):
        try:
            ip_address(host)
        except ValueError:
            host = "ADDRESS"
    return tcp_endpoint(host, port)


def _listen(endpoint: str) -> str:
    return f"{_USE_LISTEN}: --listen {quote(endpoint)}"


def _bind(given: _Given) -> str:
    if given.value() in ("auto", "1", "2"):  # granian's --http
        return "remove it: the server speaks HTTP/1.1"
    return _listen(listen_for(given.value()))


def _host_and_port(given: _Given) -> str:
    return _listen(_tcp(given.value("--host"), given.value("--port", "-p")))


def _unix(given: _Given) -> str:
    return _listen(f"unix:{given.value() or '/run/app.sock'}")


def _descriptor(given: _Given) -> str:
    number = given.value()
    return _listen(f"fd:{number if number.isdigit() else 3}")


def _backlog(given: _Given) -> str:
    return _listen(f"tcp:{_DEFAULT_PORT}:backlog={given.value() or 1024}")


def _renamed(option: str) -> Callable[[_Given], str]:
    """Return the remedy for an option whose values have the same meaning here."""

    def remedy(given: _Given) -> str:
        if option.removeprefix("--") not in given.known:
            return HELP
        return f"give {_joined(option, given.value())}"

    return remedy


def _process(name: str) -> Callable[[_Given], str]:
    """Return the remedy for an option of the process."""
    return lambda given: given.process(name, given.value())


def _workers(given: _Given) -> str:
    value = given.value()
    if value and not value.isdigit():  # uWSGI's -w
        return _application(given)
    return f"give {_joined('--workers', value)}"


def _application(given: _Given) -> str:
    return f"give {_joined('--app', given.value() or 'package.module:name')}"


def _factory(given: _Given) -> str:
    return "call the factory in the application's name: --app 'package.module:name()'"


def _key_or_class(given: _Given) -> str:
    if given.name != "-k" or _WORKER_CLASS.match(given.value()):
        return (
            "remove it: there is one class of workers, and one greenlet for each "
            "request"
        )
    return _TLS


def _certificate_or_config(given: _Given) -> str:
    value = given.value()
    if re.search(r"gunicorn|\.py\Z|\Apython:", value):
        return (
            f"translate the file: txgreenwsgi from-gunicorn {quote(value)}, then "
            "give --config with the result"
        )
    if value.endswith(".toml"):
        return f"give --config {quote(value)}"
    return _TLS


def _variable(given: _Given) -> str:
    value = given.value()
    if value.startswith("SCRIPT_NAME="):
        return f"give --prefix {quote(value.partition('=')[2] or '/app')}"
    return (
        "set the variable in the environment of the command: "
        f"env {quote(value or 'NAME=VALUE')} ...; --environ sets a variable of WSGI"
    )


def _timeout(given: _Given) -> str:
    value = given.value() or "30"
    remedy = f"give --request-timeout {quote(value)} to limit each request"
    if "worker-timeout" in given.known:
        remedy += f", or --worker-timeout {quote(value)} to replace a blocked worker"
    return remedy


_TLS: Final = "use --tls-cert and --tls-key, with --listen https:443"
_NO_THREADS: Final = (
    "remove it: requests run in greenlets; --threads limits those that --threads-for "
    "runs in threads"
)
_NO_LEVEL: Final = (
    "remove it: the application sets the level of its own messages with logging"
)
_NO_INTERFACE: Final = "remove it: the only interface is WSGI"
_DAEMON: Final = (
    "start the server as twistd greenwsgi, which runs in the background without -n"
)

#: Remedies by the names of the options of other servers.
OTHERS: Final[dict[str, _Remedy]] = {
    **dict.fromkeys(["--host", "-p", "--port"], _host_and_port),
    **dict.fromkeys(
        [
            *("-b", "--bind", "--http", "--http-socket", "--socket", "-s"),
            *("--quick-bind", "--insecure-bind", "--listener"),
        ],
        _bind,
    ),
    **dict.fromkeys(["--uds", "--unix-socket"], _unix),
    "--fd": _descriptor,
    "--backlog": _backlog,
    **dict.fromkeys(["-w", "--worker", "--processes"], _workers),
    **dict.fromkeys(
        [
            *("-k", "--worker-class", "--worker-type", "--gevent", "--loop"),
            *("--runtime-mode", "--task-impl"),
        ],
        _key_or_class,
    ),
    **dict.fromkeys(
        ["--enable-threads", "--blocking-threads", "--runtime-threads"], _NO_THREADS
    ),
    **dict.fromkeys(
        ["--worker-connections", "--limit-concurrency", "--backpressure"],
        _renamed("--max-in-flight"),
    ),
    "--connection-limit": _renamed("--max-connections"),
    **dict.fromkeys(["-t", "--timeout", "--request-timeout-seconds"], _timeout),
    "--harakiri": _renamed("--request-timeout"),
    "--timeout-keep-alive": _renamed("--keep-alive"),
    "--timeout-graceful-shutdown": _renamed("--graceful-timeout"),
    "--timeout-worker-healthcheck": _renamed("--worker-timeout"),
    "--channel-timeout": _renamed("--body-timeout"),
    "--limit-max-requests": _renamed("--max-requests"),
    "--limit-max-requests-jitter": _renamed("--max-requests-jitter"),
    **dict.fromkeys(
        ["--workers-lifetime", "--max-worker-lifetime"], _renamed("--max-lifetime")
    ),
    **dict.fromkeys(["--workers-max-rss", "--reload-on-rss"], _renamed("--max-rss")),
    "--limit-request-line": _renamed("--max-target"),
    "--limit-request-fields": _renamed("--max-headers"),
    "--limit-request-field_size": _renamed("--max-header-size"),
    "--max-request-body-size": _renamed("--max-body"),
    "--max-request-header-size": _renamed("--max-header-size"),
    "--expose-tracebacks": "give --display-tracebacks",
    "--access-logfile": _renamed("--access-log"),
    "--access-logformat": _renamed("--access-log-format"),
    "--access-log-fmt": _renamed("--access-log-format"),
    **dict.fromkeys(
        ["--error-logfile", "--errorlog", "--log-file", "--logto"],
        _process("log-file"),
    ),
    "--loglevel": (
        "give --log-level with debug, info, warn, error or critical; the application "
        "sets the level of its own messages with logging"
    ),
    "--log-config": _NO_LEVEL,
    **dict.fromkeys(
        ["--forwarded-allow-ips", "--trust-proxy", "--proxy-allow-from"],
        _renamed("--trusted-proxy"),
    ),
    "--proxy-headers": "give --trusted-proxy with the addresses of the proxies",
    **dict.fromkeys(
        ["--root-path", "--url-prefix", "--url-path-prefix", "--mount-point"],
        _renamed("--prefix"),
    ),
    **dict.fromkeys(
        ["--certfile", "--ssl-certfile", "--ssl-certificate"], _renamed("--tls-cert")
    ),
    **dict.fromkeys(["--keyfile", "--ssl-keyfile"], _renamed("--tls-key")),
    **dict.fromkeys(
        ["--ca-certs", "--ssl-ca-certs", "--ssl-ca"], _renamed("--tls-client-ca")
    ),
    **dict.fromkeys(["--ciphers", "--ssl-ciphers"], _renamed("--tls-ciphers")),
    **dict.fromkeys(["--https", "--certificate", "--privkey"], _TLS),
    **dict.fromkeys(["-u", "--user"], _process("uid")),
    **dict.fromkeys(["-g", "--group"], _process("gid")),
    "-m": _process("umask"),
    "--pid": _process("pidfile"),
    **dict.fromkeys(["-D", "--daemon", "--daemonize"], _DAEMON),
    **dict.fromkeys(["-e", "--env"], _variable),
    **dict.fromkeys(["--pythonpath", "--app-dir"], _renamed("--chdir")),
    **dict.fromkeys(["--module", "--call"], _application),
    "--factory": _factory,
    "--wsgi-file": _application,
    "--paste": lambda given: f"give --app config:{given.value() or 'FILE'}",
    "--interface": _NO_INTERFACE,
    "-c": _certificate_or_config,
    **dict.fromkeys(
        ["-n", "--notracebacks"],
        "remove it: only --display-tracebacks shows tracebacks (the -n of twistd "
        "goes before the word greenwsgi)",
    ),
}
