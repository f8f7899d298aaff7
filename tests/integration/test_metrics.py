"""`--metrics` with real processes, and with a real Prometheus that scrapes them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from tests.folders import short_folder
from txgreenwsgi._metrics.families import all_names

from .processes import LOOPBACK, ServerProcess, free_ports, serve, wait_for
from .services import Prometheus, find_program
from .test_workers import WorkerTests

if TYPE_CHECKING:
    from .processes import Server
    from .test_workers import Workers

APP = "tests.integration.metrics_app:app"
REGISTRY = "tests.integration.metrics_app:REGISTRY"
DASHBOARD = Path(__file__).parents[2] / "examples/deploy/grafana/dashboard.json"

SENT_BYTES = "txgreenwsgi_response_body_bytes_total"

#: Number of requests of each kind in one round of load.
REQUESTS = 60
KINDS = (
    *(("GET", "/"), ("GET", "/missing"), ("GET", "/fail"), ("GET", "/sleep")),
    *(("GET", "/stream"), ("POST", "/"), ("HEAD", "/")),
)


def load(server: Server, port: int) -> None:
    """Send requests of all kinds at the same time, and wait for their responses."""

    def request(kind: tuple[str, str]) -> None:
        method, path = kind
        body = b"x" * 100 if method == "POST" else None
        server.fetch(path, method, body, port=port)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, KINDS * REQUESTS))


def scraped(server: Server, port: int) -> dict[tuple[str, str], float]:
    """Return the samples of the page, by name and labels."""
    answer = server.fetch("/metrics", port=port)
    if answer.status != 200:
        raise AssertionError((answer.status, answer.text, server.log()))
    return {
        (
            sample.name,
            ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: dict[tuple[str, str], float], name: str) -> float:
    """Return the sum of the samples with a name."""
    return sum(value for (each, _), value in samples.items() if each == name)


class MetricsTests(WorkerTests):
    """Servers with metrics."""

    def setUp(self) -> None:
        """Choose the port and the access log."""
        super().setUp()
        [self.metrics_port] = free_ports(1)
        self.access_log = short_folder(self) / "access.log"
        self.options = (
            f"--metrics=tcp:{LOOPBACK}:{self.metrics_port}",
            f"--metrics-application={REGISTRY}",
            f"--access-log={self.access_log}",
            "--access-log-format=json",
        )

    def logged(self) -> list[dict[str, Any]]:
        """Return the requests in the access log."""
        return list(map(json.loads, self.access_log.read_text("ascii").splitlines()))

    def scraped(self, server: Server) -> dict[tuple[str, str], float]:
        """Return the samples of the page."""
        return scraped(server, self.metrics_port)

    def bytes_sent(self) -> int:
        """Return the size of all bodies in the access log."""
        return sum(each["bytes_sent"] for each in self.logged())

    def test_prometheus(self) -> None:
        """The sums of two workers, as Prometheus sees them, are those of the log.

        Under load, across a reload and after the kill of a worker; no counter was ever
        reset.
        """
        find_program("prometheus")
        server = self.start(*self.options, app=APP, workers=2)
        with Prometheus(self.metrics_port) as service:
            assert isinstance(service, Prometheus)
            load(server, server.port)
            with ThreadPoolExecutor(1) as pool:
                loading = pool.submit(load, server, server.port)
                server.reload()
                loading.result()
            # The sums of sizes and durations are in the memory a moment later.
            wait_for(
                lambda: service.value(SENT_BYTES) == self.bytes_sent(),
                "all bytes",
            )
            os.kill(server.ready()[-1], signal.SIGKILL)
            server.wait_for(lambda: len(server.ready()) >= 5, "a successor")
            load(server, server.port)
            self.check_sums(server, service)
            self.check_queries(service)

    def check_sums(self, server: Workers, service: Prometheus) -> None:
        """Compare what Prometheus has stored with the access log."""
        count = len(KINDS) * REQUESTS * 3
        wait_for(lambda: len(self.logged()) >= count, "all lines of the log")
        logged = self.logged()
        self.assertEqual(len(logged), count)
        expression = "sum(txgreenwsgi_requests_total)"
        wait_for(
            lambda: service.value(expression) >= count,
            lambda: f"{count} requests: {service.value(expression)}\n{server.log()}",
        )
        self.assertEqual(service.value(expression), count)
        found = service.query(
            "sum by (method, status_class, outcome) (txgreenwsgi_requests_total) > 0"
        )
        self.assertEqual(
            {
                (each["method"], each["status_class"], each["outcome"]): value
                for each, value in found
            },
            Counter(
                (each["method"], f"{each['status'] // 100}xx", each["outcome"])
                for each in logged
            ),
        )
        for name in ("request_duration", "response_first_byte"):
            self.assertEqual(
                service.value(f"sum(txgreenwsgi_{name}_seconds_count)"), count
            )
        wait_for(
            lambda: service.value(SENT_BYTES) == self.bytes_sent(),
            lambda: f"{self.bytes_sent()} bytes: {service.value(SENT_BYTES)}",
        )
        # The log's durations are taken a moment later.
        seconds = sum(each["duration"] for each in logged)
        stored = service.value("sum(txgreenwsgi_request_duration_seconds_sum)")
        self.assertTrue(0.5 < stored / seconds < 1.01, (stored, seconds))
        self.assertEqual(
            service.value("txgreenwsgi_request_body_bytes_total"), 3 * REQUESTS * 100
        )
        for name in sorted(all_names()):
            if name.endswith(("_total", "_count", "_bucket")):
                resets = service.value(f"max(resets({name}[1h]))")
                self.assertEqual(resets, 0, name)
        restarts = service.query("txgreenwsgi_worker_restarts_total > 0")
        self.assertEqual(
            {each["reason"]: value for each, value in restarts},
            {"reload": 2, "crash": 1},
        )

    def check_queries(self, service: Prometheus) -> None:
        """Run each query of the dashboard."""
        dashboard = json.loads(DASHBOARD.read_text("utf-8"))
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "1m")
                found = service.query(expression.replace("$job", "shop"))
                may_be_empty = "outcome!=" in expression or "> 0" in expression
                self.assertTrue(found or may_be_empty, expression)

    def test_lint(self) -> None:
        """Prometheus' own linter has no objection to the page."""
        promtool = find_program("promtool")
        server = self.start(*self.options[:1], app=APP, workers=1)
        load(server, server.port)
        page = server.fetch("/metrics", port=self.metrics_port).body
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=page,
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def test_application(self) -> None:
        """The application's registry has the sums of all workers, also ended ones."""
        server = self.start(*self.options, app=APP, workers=2)
        count = 0
        for number in (1, 2):
            load(server, server.port)
            served = len(KINDS) - 1  # one kind fails
            count += served * REQUESTS
            samples = self.scraped(server)
            self.assertEqual(total(samples, "shop_orders_total"), count)
            self.assertEqual(total(samples, "shop_seconds_count"), count)
            pids = {
                int(value) for (name, _), value in samples.items() if name == "shop_pid"
            }
            self.assertEqual(pids, server.live())
            # Their last numbers are those after the last scrape.
            load(server, server.port)
            count += served * REQUESTS
            live = server.live()
            server.reload(number)
            server.wait_live(live.isdisjoint)
            samples = self.scraped(server)
            self.assertEqual(total(samples, "shop_orders_total"), count)
        self.stop(server)

    def test_single_process(self) -> None:
        """A server without workers serves its own metrics."""
        server = serve(self, APP, *self.options)
        load(server, server.ports[0])
        samples = self.scraped(server)
        count = len(KINDS) * REQUESTS
        self.assertEqual(total(samples, "txgreenwsgi_requests_total"), count)
        self.assertEqual(len(self.logged()), count)
        orders = total(samples, "shop_orders_total")
        self.assertEqual(orders, count - REQUESTS)
        self.assertNotIn("txgreenwsgi_workers", {name for name, _ in samples})
        self.assertNotIn("before the standard library was patched", server.log())
        server.ask_to_stop()
        server.wait_ended()

    def test_preload(self) -> None:
        """Forked workers are counted too."""
        server = self.start(*self.options, "--preload", app=APP, workers=2)
        load(server, server.port)
        samples = self.scraped(server)
        count = len(KINDS) * REQUESTS
        self.assertEqual(total(samples, "txgreenwsgi_requests_total"), count)
        self.assertEqual(total(samples, "shop_orders_total"), count - REQUESTS)

    def test_new_master(self) -> None:
        """A new master opens the listener when the last one has ended."""
        server = self.start(*self.options[:1], app=APP, workers=1)
        server.process.send_signal(signal.SIGUSR2)
        server.wait_logged("the last master has ended")
        found = re.findall(r"master (\d+) starts", server.log())
        self.addCleanup(os.kill, int(found[-1]), signal.SIGKILL)
        wait_for(
            lambda: server.log().count("--metrics: listening on") == 2,
            lambda: f"the listener of the new master:\n{server.log()}",
        )
        samples = self.scraped(server)
        self.assertEqual(samples["txgreenwsgi_workers", "state=ready"], 1)

    def test_address_in_use(self) -> None:
        """The server does not start if the listener cannot be opened."""
        server = self.start(*self.options[:1], app=APP, workers=1)
        for workers in (0, 1):
            other = ServerProcess(
                "greenwsgi",
                f"--app={APP}",
                f"--listen=tcp:0:interface={LOOPBACK}",
                f"--workers={workers}",
                *self.options[:1],
            )
            self.addCleanup(other.kill)
            other.wait_logged("cannot be opened .*give another port")
            self.assertNotEqual(other.process.wait(30), 0)
            self.assertNotIn("Traceback", other.log())
        self.assertEqual(server.fetch("/metrics", port=self.metrics_port).status, 200)
