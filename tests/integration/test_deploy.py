"""The files of examples/deploy, each with the real program where Debian has one.

More restarts are made by, for instance, `TXGREENWSGI_RESTARTS=100`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tests.folders import make_short_folder

from .command_server import CommandServer
from .deployments import (
    DEPLOY,
    DeployedHAProxy,
    DeployedNginx,
    copy_program,
    documents,
    instructions,
    option,
    options_in_comment,
    replaced,
    seconds_of,
    unit_settings,
)
from .processes import (
    ANSWER_SECONDS,
    LOOPBACK,
    START_SECONDS,
    RawClient,
    connect_unix,
    free_ports,
    wait_for,
)
from .restart_clients import RestartClients
from .services import PostgreSQL, Redis, find_program
from .test_endpoints import write_certificate
from .test_restarts import UnderLoad

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Number of restarts in each test.
RESTARTS = int(os.environ.get("TXGREENWSGI_RESTARTS", "2"))

#: The application that the clients of `RestartClients` know, in place of `shop:app`.
LOAD_APP = "tests.integration.restart_app:app"

#: Seconds after --graceful-timeout in which the server ends in any case.
END_SECONDS = 7.0


def to_load_app(words: Sequence[str]) -> list[str]:
    """Return a command line with the application that the clients know."""
    return [LOAD_APP if word == "shop:app" else word for word in words]


class DeploymentTestCase(UnderLoad):
    """Helpers of the tests below."""

    least_answered = 20 * RESTARTS

    def certificate(self) -> tuple[Path, Path]:
        """Return the paths of a certificate for shop.example.com and of its key.

        All users may read them.
        """
        folder = Path(make_short_folder("green-tls-", others=True))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        return write_certificate(folder, "shop.example.com")

    def trust(self, certificate: Path) -> ssl.SSLContext:
        """Return the context of a client that trusts only this certificate."""
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False  # connections are made to an address
        return context

    def assert_grace(self, words: Sequence[str], seconds: float) -> None:
        """Fail unless a server with these options has ended after so many seconds."""
        needed = seconds_of(words, "--drain-delay", 0)
        needed += seconds_of(words, "--graceful-timeout", 30) + END_SECONDS
        self.assertGreater(seconds, needed)
        self.assertLess(seconds, needed + 15)

    def restart_in_turn(
        self,
        servers: list[CommandServer],
        begin: Callable[[int], CommandServer],
        wait: Callable[[], object],
    ) -> None:
        """Restart each server in its turn."""
        for number in range(RESTARTS):
            place = number % len(servers)
            servers[place].stop()
            servers[place] = begin(place)
            wait()


def read_json(port: int, context: ssl.SSLContext | None, *fields: str) -> Any:
    """Ask for the shop's page on a port and return its JSON."""
    with socket.create_connection((LOOPBACK, port), ANSWER_SECONDS) as plain:
        if context is None:
            return _read_json(plain, fields)
        with context.wrap_socket(plain, server_hostname="shop.example.com") as secured:
            return _read_json(secured, fields)


def _read_json(sock: socket.socket, fields: Sequence[str]) -> Any:
    lines = ["GET / HTTP/1.1", "Host: shop.example.com", "Connection: close", *fields]
    sock.sendall("\r\n".join((*lines, "", "")).encode())
    head, _, body = RawClient(sock).read_all().partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise AssertionError(head)
    return json.loads(body)


class HAProxyTests(DeploymentTestCase):
    """The files of haproxy/, without any retry."""

    def setUp(self) -> None:
        """Make a certificate, which is that of the proxy and of the servers."""
        self.cert, self.key = self.certificate()
        pem = self.cert.read_bytes() + self.key.read_bytes()
        self.files = {"/etc/haproxy/shop.pem": pem}
        self.folder = copy_program(self)

    def words(self, name: str, app: str, port: int) -> list[str]:
        """Return the command line in the comment of a file, on another port."""
        text = (DEPLOY / "haproxy" / name).read_text("utf-8")
        words = [app]
        for word in options_in_comment(text):
            known = {
                "tcp:8080": f"tcp:{port}:interface={LOOPBACK}",
                "https:8443": f"https:{port}:interface={LOOPBACK}",
                "10.0.0.10": LOOPBACK,
                "cert.pem": str(self.cert),
                "key.pem": str(self.key),
            }
            words.append(known.get(word, word))
        return words

    def start(
        self, name: str, app: str, port: int, context: ssl.SSLContext | None = None
    ) -> CommandServer:
        """Start a server."""
        words = self.words(name, app, port)
        server = CommandServer(self, words, self.folder, port)
        if "--proxy-protocol" in words:
            server.wait_logged("listening on ", START_SECONDS)
        else:
            server.wait_ready(context)
        return server

    def restart(self, name: str, context: ssl.SSLContext | None) -> None:
        """Two servers restart in turn; no client notices."""
        ports = free_ports(2)

        def begin(place: int) -> CommandServer:
            return self.start(name, LOAD_APP, ports[place], context)

        servers = [begin(place) for place in range(2)]
        addresses = re.findall(
            r"^    server \w+ (\S+)", (DEPLOY / "haproxy" / name).read_text(), re.M
        )
        names = dict(zip(addresses, ports, strict=True))
        files = self.files if name != "passthrough.cfg" else {}
        with DeployedHAProxy(name, names, files) as proxy:
            assert isinstance(proxy, DeployedHAProxy)
            proxy.wait_up(2)
            clients = RestartClients(self, [proxy.port], tls=True)
            self.restart_in_turn(servers, begin, lambda: proxy.wait_up(2))
            self.assert_answered(clients)

    def test_restarts(self) -> None:
        """Servers behind haproxy.cfg restart in turn without a failed request."""
        self.restart("haproxy.cfg", None)

    def test_restarts_passthrough(self) -> None:
        """The same if TLS ends at the servers."""
        self.restart("passthrough.cfg", None)

    def test_client(self) -> None:
        """With haproxy.cfg, the shop knows its client, whatever the client claims."""
        ports = free_ports(2)
        for port in ports:
            self.start("haproxy.cfg", "shop:app", port)
        names = dict(zip(("10.0.0.11:8080", "10.0.0.12:8080"), ports, strict=True))
        context = self.trust(self.cert)
        with DeployedHAProxy("haproxy.cfg", names, self.files) as proxy:
            assert isinstance(proxy, DeployedHAProxy)
            proxy.wait_up(2)
            answers = [
                read_json(
                    proxy.port,
                    context,
                    "X-Forwarded-For: 192.0.2.1",
                    "X-Forwarded-Proto: gopher",
                )
                for _ in range(4)
            ]
            for answer in answers:
                self.assertEqual(
                    (answer["client"], answer["scheme"]), (LOOPBACK, "https")
                )
            # Both servers are used.
            self.assertEqual(len({answer["pid"] for answer in answers}), 2)
            with connect_unix(proxy.plain_address) as client:
                client.send(b"GET /a?b HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
                head = client.read_until(b"\r\n\r\n")
            self.assertIn(b"HTTP/1.1 308 ", head)
            self.assertIn(b"\r\nlocation: https://shop.example.com/a?b\r\n", head)

    def test_client_passthrough(self) -> None:
        """With passthrough.cfg, the PROXY protocol has the client's address."""
        port, unused = free_ports(2)
        self.start("passthrough.cfg", "shop:app", port)
        names = {"10.0.0.11:8443": port, "10.0.0.12:8443": unused}
        with DeployedHAProxy("passthrough.cfg", names, {}) as proxy:
            assert isinstance(proxy, DeployedHAProxy)
            proxy.wait_up(1)
            with socket.socket() as plain:
                plain.settimeout(ANSWER_SECONDS)
                # Another address than that of the connection from HAProxy.
                plain.bind(("127.0.0.77", 0))
                plain.connect((LOOPBACK, proxy.port))
                with self.trust(self.cert).wrap_socket(
                    plain, server_hostname="shop.example.com"
                ) as secured:
                    answer = _read_json(secured, ["X-Forwarded-For: 192.0.2.1"])
        self.assertEqual((answer["client"], answer["scheme"]), ("127.0.0.77", "https"))

    def test_tls_workers(self) -> None:
        """tls.cfg: two TLS workers reload and change nothing for their clients."""
        (port,) = free_ports(1)
        self.files["/etc/haproxy/shop-ca.pem"] = self.cert.read_bytes()
        context = self.trust(self.cert)
        server = self.start("tls.cfg", LOAD_APP, port, context)
        with DeployedHAProxy("tls.cfg", {"127.0.0.1:8443": port}, self.files) as proxy:
            assert isinstance(proxy, DeployedHAProxy)
            proxy.wait_up(1)
            clients = RestartClients(self, [proxy.port], tls=True)
            for _ in range(RESTARTS):
                before = workers_of(server, context)
                server.process.send_signal(signal.SIGHUP)
                wait_for(
                    lambda: not workers_of(server, context) & before,  # noqa: B023
                    "new workers",
                )
            self.assert_answered(clients)
        server.stop()

    def test_valid(self) -> None:
        """HAProxy accepts every file without a warning."""
        haproxy = find_program("haproxy")
        folder = Path(make_short_folder())
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        folder.joinpath("shop.pem").write_bytes(
            self.cert.read_bytes() + self.key.read_bytes()
        )
        folder.joinpath("shop-ca.pem").write_bytes(self.cert.read_bytes())
        names = sorted(path.name for path in DEPLOY.glob("haproxy/*"))
        self.assertEqual(
            names, ["compose.cfg", "haproxy.cfg", "passthrough.cfg", "tls.cfg"]
        )
        for name in names:
            text = (DEPLOY / "haproxy" / name).read_text("utf-8")
            path = folder / name
            path.write_text(text.replace("/etc/haproxy/", f"{folder}/"))
            done = subprocess.run(
                [haproxy, "-c", "-f", str(path)], capture_output=True, text=True
            )
            self.assertEqual(
                (done.returncode, done.stdout.strip(), done.stderr),
                (0, "Configuration file is valid", ""),
                name,
            )


def workers_of(server: CommandServer, context: ssl.SSLContext | None) -> set[str]:
    """Return the process ids in some responses of a server."""
    return {server.ask("/", context).headers["X-Worker"] for _ in range(20)}


class InstancesTestCase(DeploymentTestCase):
    """The instances of shop@.service."""

    def setUp(self) -> None:
        """Copy the application; its folder is in place of /run/shop and /srv/shop."""
        self.folder = copy_program(self)
        self.sockets = [self.folder / f"web-{number}.sock" for number in (1, 2)]

    def instance_words(self, number: int) -> list[str]:
        """Return the command line of an instance."""
        [command] = unit_settings("shop@.service")["Service.ExecStart"]
        command = replaced(
            command,
            {
                "%i": str(number),
                "/run/shop/": f"{self.folder}/",
                "/var/log/shop/": f"{self.folder}/",
            },
        )
        program, *words = shlex.split(command)
        self.assertEqual(program, "/srv/shop/venv/bin/txgreenwsgi")
        return words

    def start_instance(self, place: int, app: str = "shop:app") -> CommandServer:
        """Start an instance and wait until it is ready."""
        words = self.instance_words(place + 1)
        self.assertEqual(words[0], "shop:app")
        words[0] = app
        server = CommandServer(self, words, self.folder, self.sockets[place])
        server.wait_ready()
        return server


class NginxTests(InstancesTestCase):
    """nginx/shop.conf, in front of two instances."""

    def proxy(self) -> DeployedNginx:
        """Return the server."""
        cert, key = self.certificate()
        self.context = self.trust(cert)
        return DeployedNginx(self.sockets, cert.read_bytes(), key.read_bytes())

    def test_restarts(self) -> None:
        """The instances restart in turn without a failed request.

        nginx never repeats a POST that it has sent, so none was lost behind it.
        """

        def begin(place: int) -> CommandServer:
            return self.start_instance(place, LOAD_APP)

        with self.proxy() as proxy:
            servers = [begin(0), begin(1)]
            clients = RestartClients(self, [proxy.port], tls=True, method="POST")
            # An instance that has refused a connection is tried again after a second.
            self.restart_in_turn(servers, begin, lambda: time.sleep(1.5))
            self.assert_answered(clients)

    def test_client(self) -> None:
        """The shop knows its client; the probes are not public."""
        self.start_instance(0)
        self.start_instance(1)
        with self.proxy() as proxy:
            answers = [
                read_json(proxy.port, self.context, "X-Forwarded-For: 192.0.2.1")
                for _ in range(8)
            ]
            for answer in answers:
                self.assertEqual(
                    (answer["client"], answer["scheme"]), (LOOPBACK, "https")
                )
            self.assertEqual(len({answer["pid"] for answer in answers}), 2)
            with (
                socket.create_connection((LOOPBACK, proxy.port)) as plain,
                self.context.wrap_socket(plain) as secured,
            ):
                secured.sendall(
                    b"GET /-/ready HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
                )
                line = RawClient(secured).read_until(b"\r\n")
            self.assertEqual(line, b"HTTP/1.1 404 Not Found\r\n")


class SystemdTests(InstancesTestCase):
    """The units of systemd/."""

    def verify(self, *units: str) -> str:
        """Return the complaints of systemd-analyze about the units."""
        program = find_program("systemd-analyze")
        folder = Path(make_short_folder())
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        for path in (DEPLOY / "systemd").iterdir():
            text = path.read_text("utf-8")
            text = text.replace("/srv/shop/venv/bin/txgreenwsgi", "/bin/true")
            (folder / path.name).write_text(text)
        done = subprocess.run(
            [program, "verify", "--man=no", *units],
            cwd=folder,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return f"{done.returncode} {done.stdout}"

    def test_valid(self) -> None:
        """The program systemd-analyze accepts every unit without a complaint."""
        names = sorted(path.name for path in (DEPLOY / "systemd").iterdir())
        self.assertEqual(names, ["shop.service", "shop.socket", "shop@.service"])
        found = self.verify("shop.service", "shop.socket", "shop@1.service")
        self.assertEqual(found, "0 ")

    def test_settings(self) -> None:
        """Both services notify, end in time and drop their privileges."""
        for name in ("shop.service", "shop@.service"):
            settings = unit_settings(name)
            expected = {
                "Type": "notify",
                "NotifyAccess": "main",
                "KillMode": "mixed",
                "ExecReload": "/bin/kill -HUP $MAINPID",
                "NoNewPrivileges": "yes",
                "CapabilityBoundingSet": "",
                "ProtectSystem": "strict",
            }
            for key, value in expected.items():
                self.assertEqual(settings[f"Service.{key}"], [value], name)
            [command] = settings["Service.ExecStart"]
            [stop] = settings["Service.TimeoutStopSec"]
            self.assert_grace(command.split(), float(stop))
            # RuntimeDirectory and LogsDirectory are writable, /srv/shop is not.
            for path in re.findall(r"(?:unix:|--access-log )(/[^ :]+)", command):
                self.assertRegex(path, r"^/(run|var/log)/shop/")

    def notified(self) -> socket.socket:
        """Return a socket in place of systemd's, for NOTIFY_SOCKET."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(str(self.folder / "notify"))
        sock.settimeout(ANSWER_SECONDS)
        return sock

    def read_until(self, sock: socket.socket, wanted: str) -> list[str]:
        """Return the notifications up to the one wanted."""
        lines: list[str] = []
        while wanted not in lines:
            lines += sock.recv(4096).decode().splitlines()
        return lines

    def test_instance(self) -> None:
        """An instance reports its start, that it is alive, and its stop."""
        notified = self.notified()
        server = CommandServer(
            self,
            self.instance_words(1),
            self.folder,
            self.sockets[0],
            # WATCHDOG_PID is not set: the unit would set it to the process.
            environ={
                "NOTIFY_SOCKET": str(self.folder / "notify"),
                "WATCHDOG_USEC": "600000",
            },
        )
        self.read_until(notified, "READY=1")
        self.assertEqual(server.ask("/-/ready").status, 200)
        self.assertEqual(server.ask("/").status, 200)
        self.assertIn("WATCHDOG=1", self.read_until(notified, "WATCHDOG=1"))
        self.assertIn("WATCHDOG=1", self.read_until(notified, "WATCHDOG=1"))
        server.process.send_signal(signal.SIGTERM)
        self.read_until(notified, "STOPPING=1")
        server.process.wait(ANSWER_SECONDS)
        log = (self.folder / "access-1.log").read_text()
        self.assertIn('"GET / HTTP/1.1" 200', log)
        self.assertNotIn("/-/ready", log)

    def test_socket(self) -> None:
        """The workers of shop.service serve the socket of shop.socket, and reload."""
        activate = find_program("systemd-socket-activate")
        [command] = unit_settings("shop.service")["Service.ExecStart"]
        [listen] = unit_settings("shop.socket")["Socket.ListenStream"]
        self.assertEqual(listen, "127.0.0.1:8080")
        command = replaced(
            command,
            {
                "/var/log/shop/": f"{self.folder}/",
                "/run/shop/": f"{self.folder}/",
            },
        )
        (port,) = free_ports(1)
        notified = self.notified()
        server = CommandServer(
            self,
            to_load_app(shlex.split(command)[1:]),
            self.folder,
            port,
            wrapper=[
                *(activate, "--listen", f"{LOOPBACK}:{port}"),
                *("--fdname", "web"),
                *("--setenv", f"NOTIFY_SOCKET={self.folder}/notify"),
                *("--setenv", "PYTHONPATH", "--setenv", "WATCHDOG_USEC=600000"),
            ],
        )
        # The first connection starts the service, and waits for it.
        wait_for(lambda: is_listening(port), "listening")
        self.assertEqual(server.ask("/").text, "/")
        self.read_until(notified, "READY=1")
        self.read_until(notified, "WATCHDOG=1")
        before = workers_of(server, None)
        server.process.send_signal(signal.SIGHUP)
        self.read_until(notified, "RELOADING=1")
        self.read_until(notified, "READY=1")
        server.wait_logged("reload: 2 workers replaced", START_SECONDS)
        wait_for(lambda: not workers_of(server, None) & before, "the old ones ended")
        server.stop()


def is_listening(port: int) -> bool:
    """Return whether a socket of this machine listens on a TCP port."""
    wanted = f"0100007F:{port:04X}"
    table = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in table)


class ContainerTests(DeploymentTestCase):
    """The Dockerfile, compose.yaml and the manifests of kubernetes/."""

    def dockerfile(self, name: str) -> list[str]:
        """Return the arguments of all instructions of one kind."""
        return [each.text for each in instructions() if each.name == name]

    def test_dockerfile(self) -> None:
        """The image runs as a user, gets SIGTERM, and installs what is copied."""
        names = [each.name for each in instructions()]
        self.assertEqual(names[0], "FROM")
        self.assertEqual(
            {*names},
            {
                *("FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE"),
                *("STOPSIGNAL", "HEALTHCHECK", "CMD"),
            },
        )
        self.assertEqual(self.dockerfile("STOPSIGNAL"), ["SIGTERM"])
        [user] = self.dockerfile("USER")
        self.assertRegex(user, r"^[1-9]\d+:[1-9]\d+$")
        create = next(each for each in self.dockerfile("RUN") if "useradd" in each)
        self.assertIn(f"--uid {user.partition(':')[0]} ", create)
        self.assertLess(names.index("USER"), names.index("CMD"))
        # The requirements first: a change of the code does not install them again.
        self.assertEqual(self.dockerfile("COPY"), ["requirements.txt ./", "shop.py ./"])
        [command] = [each for each in instructions() if each.name == "CMD"]
        self.assertEqual(command.words[:2], ["txgreenwsgi", "shop:app"])
        self.assertEqual(
            self.dockerfile("EXPOSE"), [(option(command.words, "--listen") or "")[4:]]
        )

    def test_build_context(self) -> None:
        """The build gets the copied files and nothing else of the directory."""
        lines = (DEPLOY / ".dockerignore").read_text("utf-8").splitlines()
        patterns = [line for line in lines if line and not line.startswith("#")]

        def is_sent(name: str) -> bool:
            sent = True
            for pattern in patterns:  # the last one that matches decides
                if fnmatch.fnmatch(name, pattern.lstrip("!")):
                    sent = pattern.startswith("!")
            return sent

        sent = {path.name for path in DEPLOY.iterdir() if is_sent(path.name)}
        copied = {
            name for each in self.dockerfile("COPY") for name in each.split()[:-1]
        }
        self.assertEqual(sent, copied)
        for name in (".env", ".git", "key.pem", "__pycache__"):
            self.assertFalse(is_sent(name), name)

    def test_image(self) -> None:
        """The image's command serves, its health check passes, and SIGTERM ends it."""
        (port,) = free_ports(1)
        [command] = [each for each in instructions() if each.name == "CMD"]
        [check] = [each for each in instructions() if each.name == "HEALTHCHECK"]
        program = json.loads(check.text.partition(" CMD ")[2])
        self.assertEqual(program[:2], ["python", "-c"])
        program[0] = sys.executable
        program[2] = replaced(program[2], {":8080/": f":{port}/"})

        def health() -> int:
            return subprocess.run(program, stderr=subprocess.DEVNULL).returncode

        self.assertEqual(health(), 1)
        words = [
            each.replace("tcp:8080", f"tcp:{port}:interface={LOOPBACK}")
            for each in command.words[1:]
        ]
        server = CommandServer(self, words, copy_program(self), port)
        server.wait_ready()
        self.assertEqual(health(), 0)
        self.assertEqual(json.loads(server.fetch("/").text)["scheme"], "http")
        server.stop()
        self.assertEqual(health(), 1)

    def test_compose(self) -> None:
        """The services of compose.yaml fit to the files that they use."""
        [compose] = documents("compose.yaml")
        services = compose["services"]
        self.assertEqual(set(services), {"proxy", "web", "database", "redis"})
        web = services["web"]
        self.assertEqual(web["build"], ".")
        [command] = [each for each in instructions() if each.name == "CMD"]
        self.assert_grace(
            command.words, float(web["stop_grace_period"].removesuffix("s"))
        )
        for name, condition in web["depends_on"].items():
            self.assertEqual(condition, {"condition": "service_healthy"})
            self.assertIn("healthcheck", services[name])
        for service in services.values():
            for volume in service.get("volumes", ()):
                source = volume.partition(":")[0]
                self.assertTrue(
                    (DEPLOY / source).is_file() or source in compose["volumes"], source
                )
        proxy = (DEPLOY / "haproxy" / "compose.cfg").read_text("utf-8")
        [template] = re.findall(r"server-template \w+ (\d+) web:(\d+) ", proxy)
        self.assertGreaterEqual(int(template[0]), web["scale"])
        self.assertEqual([template[1]], self.dockerfile("EXPOSE"))
        [published] = services["proxy"]["ports"]
        self.assertIn(f"bind :{published.partition(':')[2]}\n", proxy)

    def test_compose_services(self) -> None:
        """The shop works with the environment of compose.yaml and real servers."""
        [compose] = documents("compose.yaml")
        environ = compose["services"]["web"]["environment"]
        folder = copy_program(self)
        (port,) = free_ports(1)
        with PostgreSQL() as database, Redis() as counters:
            psql = [find_program("psql"), "-h", LOOPBACK, "-p", str(database.port)]
            psql += ["-U", "postgres", "-qX", "-v", "ON_ERROR_STOP=1"]
            database.run(*psql, "-c", "create role shop login")
            database.run(*psql, "-c", "create database shop owner shop")
            own = [word if word != "postgres" else "shop" for word in psql]
            database.run(*own, "-f", str(folder / "shop.sql"))
            values = {
                "DATABASE_URL": environ["DATABASE_URL"]
                .replace("${POSTGRES_PASSWORD:-shop}", "shop")
                .replace("@database/", f"@{LOOPBACK}:{database.port}/"),
                "DATABASE_CONNECTIONS": environ["DATABASE_CONNECTIONS"],
                "REDIS_URL": replaced(
                    environ["REDIS_URL"],
                    {"redis:6379": f"{LOOPBACK}:{counters.port}"},
                ),
            }
            listen = f"--listen=tcp:{port}:interface={LOOPBACK}"
            server = CommandServer(
                self,
                ["shop:app", listen, "--health-path=/-"],
                folder,
                port,
                environ=values,
            )
            server.wait_ready()
            visits = [json.loads(server.fetch("/").text)["visits"] for _ in range(3)]
            self.assertEqual(visits, [1, 2, 3])
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            for body, status in (("article=tea", 201), ("article=", 400), ("", 400)):
                answer = server.fetch("/orders", "POST", body, form)
                self.assertEqual(answer.status, status, answer.text)
            self.assertEqual(
                json.loads(server.fetch("/orders").text), [{"id": 1, "article": "tea"}]
            )
            client = redis.Redis(LOOPBACK, counters.port)
            self.assertEqual(client.get("visits"), b"3")
            client.close()
            server.stop()

    def test_kubernetes(self) -> None:
        """Ports, labels, probes and times of the manifests fit together."""
        [deployment] = documents("kubernetes/deployment.yaml")
        [service] = documents("kubernetes/service.yaml")
        [budget] = documents("kubernetes/poddisruptionbudget.yaml")
        pod = deployment["spec"]["template"]
        labels = pod["metadata"]["labels"]
        self.assertEqual(deployment["spec"]["selector"]["matchLabels"], labels)
        self.assertEqual(service["spec"]["selector"], labels)
        self.assertEqual(budget["spec"]["selector"]["matchLabels"], labels)
        self.assertGreater(
            deployment["spec"]["replicas"], budget["spec"]["maxUnavailable"]
        )
        [container] = pod["spec"]["containers"]
        words = container["args"]
        [port] = container["ports"]
        self.assertEqual(option(words, "--listen"), f"tcp:{port['containerPort']}")
        self.assertEqual(service["spec"]["ports"][0]["targetPort"], port["name"])
        health = option(words, "--health-path")
        for probe, name in (
            ("readinessProbe", "ready"),
            ("livenessProbe", "live"),
            ("startupProbe", "live"),
        ):
            wanted = {"path": f"{health}/{name}", "port": port["name"]}
            self.assertEqual(container[probe]["httpGet"], wanted)
        self.assert_grace(words, pod["spec"]["terminationGracePeriodSeconds"])
        # Readiness fails before the socket closes.
        ready = container["readinessProbe"]
        self.assertGreaterEqual(
            seconds_of(words, "--drain-delay", 0),
            ready["periodSeconds"] * ready["failureThreshold"],
        )
        self.assertNotIn("lifecycle", container)
        self.assertTrue(pod["spec"]["securityContext"]["runAsNonRoot"])
        [user] = self.dockerfile("USER")
        context = pod["spec"]["securityContext"]
        self.assertEqual(f"{context['runAsUser']}:{context['runAsGroup']}", user)

    def test_kubernetes_arguments(self) -> None:
        """The arguments of the pod serve; SIGTERM changes the readiness first."""
        [deployment] = documents("kubernetes/deployment.yaml")
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        (port,) = free_ports(1)
        self.assertEqual(container["args"][0], "txgreenwsgi")
        words = [
            each.replace("tcp:8080", f"tcp:{port}:interface={LOOPBACK}")
            for each in container["args"][1:]
        ]
        server = CommandServer(self, words, copy_program(self), port)
        server.wait_ready()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.ask("/-/ready").status == 503, "status 503")
        # New connections are still served.
        self.assertEqual(server.ask("/").status, 200)
        self.assertEqual(server.ask("/-/live").status, 200)
        self.assertEqual(server.process.wait(START_SECONDS), 0, server.log())
