"""`--metrics`: the sums of all workers, the options, the listener."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs, formatEvent
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.workers.fakes import FakeProcess, MasterCase
from txgreenwsgi import StartError
from txgreenwsgi._metrics.families import (
    DURATION,
    IN_FLIGHT,
    LAYOUT,
    ORDINARY,
    SIZE,
    start_of,
)
from txgreenwsgi._twistd.metrics import MasterMetrics
from txgreenwsgi._twistd.operator_listener import OperatorListener
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._workers.page import create_page, metrics_of_record
from txgreenwsgi._workers.questions import ANSWER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

FAMILY = {
    "name": "shop_orders",
    "type": "counter",
    "help": "Orders.",
    "unit": "",
}


class MasterMetricsTests(SynchronousTestCase):
    """The metrics of a master with fake workers."""

    def start(self, *, has_application: bool = False, workers: int = 2) -> None:
        """Start workers whose numbers are in a shared page."""
        self.fd = create_page(metrics=True)
        self.addCleanup(os.close, self.fd)
        self.case = MasterCase(workers)
        self.metrics = MasterMetrics(has_application=has_application)
        self.metrics.attach(self.fd, self.case.master)
        self.case.start()

    def numbers(self, process: FakeProcess, layout: int = LAYOUT) -> Any:
        """Return the numbers of a worker, for writing."""
        return metrics_of_record(self.fd, process.worker.record, layout, SIZE)

    def serve(self, process: FakeProcess, count: int, in_flight: int = 0) -> None:
        """Let a worker have served requests."""
        numbers = self.numbers(process)
        numbers[start_of(ORDINARY)] += count
        numbers[start_of(IN_FLIGHT)] = in_flight

    def found(self, metrics: Iterable[Metric] | None = None) -> dict[str, float]:
        """Return the sums of samples by name, and of those with one label by both."""
        if metrics is None:
            metrics = self.successResultOf(self.metrics.collect())
        sums: dict[str, float] = {}
        for metric in metrics:
            for sample in metric.samples:
                names = [sample.name]
                if len(sample.labels) == 1:
                    names.append(f"{sample.name} {next(iter(sample.labels.values()))}")
                for name in names:
                    sums[name] = sums.get(name, 0.0) + sample.value
        return sums

    def test_sums(self) -> None:
        """The numbers of all workers are added up."""
        self.start()
        self.serve(self.case.processes[0], 3, in_flight=1)
        self.serve(self.case.processes[1], 4, in_flight=2)
        found = self.found()
        self.assertEqual(found["txgreenwsgi_requests_total"], 7)
        self.assertEqual(found["txgreenwsgi_request_duration_seconds_count"], 7)
        self.assertEqual(found["txgreenwsgi_requests_in_flight"], 3)
        self.assertEqual(found["txgreenwsgi_workers ready"], 2)
        self.assertEqual(found["txgreenwsgi_reloads_total"], 0)

    def test_replaced_workers(self) -> None:
        """Counters never go backwards, whatever ends a worker."""
        self.start(workers=1)
        served = 0
        for status, number in ((0, None), (None, 9), (3, None)):
            process = self.case.last
            self.serve(process, 10, in_flight=1)
            served += 10
            self.assertEqual(self.found()["txgreenwsgi_requests_total"], served)
            process.exit(status, number)
            found = self.found()
            self.assertEqual(found["txgreenwsgi_requests_total"], served)
            self.assertEqual(found["txgreenwsgi_requests_in_flight"], 0)
            self.case.advance(40)
            self.assertEqual(self.found()["txgreenwsgi_requests_total"], served)
            self.case.last.ready()
        self.assertEqual(self.found()["txgreenwsgi_worker_restarts_total crash"], 3)

    def test_reload(self) -> None:
        """During a reload, both workers of a slot count."""
        self.start(workers=1)
        old = self.case.last
        self.serve(old, 10)
        self.case.master.reload()
        self.case.last.ready()
        self.serve(self.case.last, 5)
        self.serve(old, 1)
        self.assertEqual(self.found()["txgreenwsgi_requests_total"], 16)
        old.exit()
        found = self.found()
        self.assertEqual(found["txgreenwsgi_requests_total"], 16)
        self.assertEqual(found["txgreenwsgi_worker_restarts_total reload"], 1)
        self.assertEqual(found["txgreenwsgi_reloads_total"], 1)

    def test_other_version(self) -> None:
        """A worker of another version is left out, and the log says so once."""
        self.start()
        first, second = self.case.processes
        self.serve(first, 10)
        self.numbers(second, LAYOUT + 2)[start_of(DURATION)] = 99
        with capturedLogs() as events:
            for _ in range(2):
                self.assertEqual(self.found()["txgreenwsgi_requests_total"], 10)
        [event] = events
        self.assertIn("runs another version", str(formatEvent(event)))
        second.exit(1)
        self.assertEqual(self.found()["txgreenwsgi_requests_total"], 10)

    def answer(self, process: FakeProcess, orders: float, question: int = -1) -> None:
        """Let a worker send the metrics of its application."""
        if question < 0:
            question = cast("int", process.done("metrics")[-1]["question"])
        samples: list[Any] = [("shop_orders_total", {}, orders)]
        self.case.master.received(
            process.worker,
            {
                "event": "metrics",
                "question": question,
                "families": [{**FAMILY, "samples": samples}],
            },
        )

    def test_application(self) -> None:
        """Each scrape asks all workers, and waits for their answers."""
        self.start(has_application=True)
        first, second = self.case.processes
        collecting = self.metrics.collect()
        self.answer(first, 3)
        self.assertNoResult(collecting)
        self.answer(second, 4)
        found = self.found(self.successResultOf(collecting))
        self.assertEqual(found["shop_orders_total"], 7)

    def test_silent_worker(self) -> None:
        """Of a worker that does not answer, the last answer counts."""
        self.start(has_application=True)
        first, second = self.case.processes
        collecting = self.metrics.collect()
        self.answer(first, 3)
        self.answer(second, 4)
        self.successResultOf(collecting)
        collecting = self.metrics.collect()
        self.answer(first, 5)
        self.case.advance(ANSWER_SECONDS)
        found = self.found(self.successResultOf(collecting))
        self.assertEqual(found["shop_orders_total"], 9)
        self.answer(second, 8)  # too late for that scrape
        second.worker.blocked = True
        collecting = self.metrics.collect()
        self.answer(first, 6)
        found = self.found(self.successResultOf(collecting))
        self.assertEqual(found["shop_orders_total"], 14)

    def test_application_of_an_ended_worker(self) -> None:
        """The last numbers that a worker sends are kept when it has ended."""
        self.start(has_application=True)
        first, second = self.case.processes
        collecting = self.metrics.collect()
        self.answer(second, 4)
        self.answer(first, 3, question=0)  # at its end, unasked
        self.assertNoResult(collecting)
        first.exit()
        found = self.found(self.successResultOf(collecting))
        self.assertEqual(found["shop_orders_total"], 7)
        collecting = self.metrics.collect()
        self.answer(second, 5)
        found = self.found(self.successResultOf(collecting))
        self.assertEqual(found["shop_orders_total"], 8)


class OptionTests(SynchronousTestCase):
    """The options, and the errors of wrong ones."""

    def parsed(self, *words: str) -> Options:
        """Return the options for a command line."""
        options = Options()
        options.parseOptions(words)
        return options

    def refused(self, *words: str) -> str:
        """Return the message for a wrong command line."""
        return str(self.assertRaises(UsageError, self.parsed, *words))

    def test_endpoint(self) -> None:
        """An address may be given in the usual order, or as an endpoint string."""
        for given, endpoint in {
            "tcp:127.0.0.1:9090": "tcp:9090:interface=127.0.0.1",
            "tcp:localhost:9090": "tcp:9090:interface=127.0.0.1",
            "tcp:[::1]:9090": "tcp6:9090:interface=\\:\\:1",
            "tcp:0.0.0.0:9090": "tcp:9090",
            "tcp:9090:interface=127.0.0.1": "tcp:9090:interface=127.0.0.1",
            "unix:/run/metrics.sock": "unix:/run/metrics.sock",
        }.items():
            self.assertEqual(self.parsed("--metrics", given).command.metrics, endpoint)

    def test_wrong_endpoint(self) -> None:
        """The message has the option, the problem and the remedy."""
        for given in ("", "9090", "127.0.0.1:9090", "tcp:", "tcp:127.0.0.1:99999"):
            message = self.refused("--metrics", given)
            self.assertIn(f"--metrics {given!r}", message)
            self.assertIn("tcp:127.0.0.1:9090", message)
        self.assertIn("no options here", self.refused("--metrics", "https:9090"))

    def test_missing_package(self) -> None:
        """Without the library, the message names the extra."""
        with patch("txgreenwsgi._configuration.options.find_spec", lambda name: None):
            message = self.refused("--metrics", "tcp:127.0.0.1:9090")
        self.assertIn("pip install 'txgreenwsgi[metrics]'", message)

    def test_registry(self) -> None:
        """The registry needs a name, and the option needs --metrics."""
        place = "prometheus_client:REGISTRY"
        words = ("--metrics", "tcp:127.0.0.1:9090", "--metrics-application")
        self.assertEqual(self.parsed(*words, place).command.metrics_application, place)
        for wrong in ("", "REGISTRY", "a b:c", "a:", ":c"):
            self.assertIn("package.module:name", self.refused(*words, wrong))
        self.assertIn("--metrics tcp:", self.refused("--metrics-application", place))


class ListenerTests(SynchronousTestCase):
    """`OperatorListener`."""

    def listener(self, endpoint: str) -> OperatorListener:
        """Return a listener."""
        return OperatorListener("--metrics", endpoint, lambda _, start: [], 8)

    def test_open(self) -> None:
        """It listens once, and closes its port."""
        reactor = MemoryReactor()
        listener = self.listener("tcp:9090:interface=127.0.0.1")
        self.successResultOf(listener.close())
        listener.open(reactor)
        listener.open(reactor)
        [(port, _site, _backlog, interface)] = reactor.tcpServers
        self.assertEqual((port, interface), (9090, "127.0.0.1"))
        self.assertTrue(listener.is_open)

    def test_address_in_use(self) -> None:
        """The error names the option and the remedy."""
        from twisted.internet import reactor

        any_reactor: Any = reactor
        from twisted.internet.protocol import Factory

        taken = any_reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        endpoint = f"tcp:{taken.getHost().port}:interface=127.0.0.1"
        listener = self.listener(endpoint)
        error = self.assertRaises(StartError, listener.open, reactor)
        self.assertIn(f"--metrics {endpoint!r} cannot be opened", str(error))
        self.assertIn("give another port", str(error))
        self.assertFalse(listener.is_open)
