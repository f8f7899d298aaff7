"""The code examples of the tutorial and of other pages of docs/."""

from __future__ import annotations

import ast
import re
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase, TestCase

from txgreenwsgi.testing import LeakCheckMixin

DOCS = Path(__file__).resolve().parent.parent / "docs"


def examples(page: str) -> list[str]:
    """Return the blocks of Python of a page, in order."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(source: str, name: str) -> ModuleType:
    """Execute an example as a module of that name."""
    module = ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
    return module


def tests_in(module: ModuleType) -> unittest.TestSuite:
    """Return the tests of the test cases that a module defines."""
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    return unittest.TestSuite(
        load(value)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, unittest.TestCase)
        and value.__module__ == module.__name__
    )


class TestingPageTests(SynchronousTestCase):
    """docs/testing.md: each example but the last is a module of tests."""

    def test_examples(self) -> None:
        """Every test in the examples passes."""
        *in_memory, _on_the_reactor = examples("testing.md")
        self.assertGreater(len(in_memory), 4)
        for number, source in enumerate(in_memory):
            suite = tests_in(run(source, f"testing_example_{number}"))
            self.assertGreater(suite.countTestCases(), 0, source)
            result = unittest.TestResult()
            suite.run(result)
            self.assertEqual(result.errors + result.failures, [])


class ReactorExampleTests(TestCase):
    """The example of docs/testing.md that needs trial's reactor."""

    def test_in_greenlet(self) -> Any:
        """A decorated test returns a Deferred that fires without an error."""
        module = run(examples("testing.md")[-1], "testing_example_last")
        return module.GreetingFunctionTests("test_greeting").test_greeting()


class TutorialTests(SynchronousTestCase):
    """docs/tutorial.md: three parts of one application, and its tests."""

    def test_examples(self) -> None:
        """The tests on the page pass with the application on the page."""
        *parts, tests = examples("tutorial.md")
        self.assertEqual(len(parts), 3)
        board = run("\n".join(parts), "board")
        with patch.dict(sys.modules, board=board):
            suite = tests_in(run(tests, "test_board"))
        self.assertEqual(suite.countTestCases(), 3)
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual(result.errors + result.failures, [])


class ApplicationExampleTests(LeakCheckMixin, SynchronousTestCase):
    """Applications and middleware on other pages."""

    def test_environ(self) -> None:
        """The application of docs/environ.md sleeps on the server's clock."""
        source, _ = examples("environ.md")
        server = self.serve(run(source, "environ_example").app)
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        self.assertEqual(client.responses(), [])
        server.advance(0.1)
        [response] = client.responses()
        self.assertEqual(response.body, b"Hello\n")

    def test_early_hints(self) -> None:
        """The second application of docs/environ.md sends links before the page."""
        _, source = examples("environ.md")
        server = self.serve(run(source, "early_hints_example").app)
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        self.assertTrue(
            client.received.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")
        )
        self.assertEqual(client.responses(), [])
        server.advance(1)
        [response] = client.responses()
        self.assertEqual((response.status, response.body), (200, b"<p>Hello</p>"))
        self.assertIn("preload", response.header("Link") or "")

    def test_quickstart(self) -> None:
        """The application of docs/quickstart.md greets."""
        [source] = examples("quickstart.md")
        module: Any = run(source, "quickstart_example")
        slept: list[float] = []
        module.time = type("time", (), {"sleep": slept.append})
        response = self.serve(module.app).request("GET", "/")
        self.assertEqual(response.body, b"Hello\n")
        self.assertEqual(slept, [1])

    def test_flask(self) -> None:
        """The generator of docs/flask.md sends each block at once."""
        [source] = examples("flask.md")
        module: Any = run(source, "flask_example")
        slept: list[float] = []
        module.time = type("time", (), {"sleep": slept.append})
        response = self.serve(module.app).request("GET", "/countdown")
        self.assertEqual(response.body, b"3\n2\n1\n")
        self.assertEqual(slept, [1, 1, 1])

    def test_request_id(self) -> None:
        """The middleware of docs/logging.md sends the request ID."""
        source = examples("logging.md")[0]
        middleware = run(source, "logging_example").with_request_id

        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["txgreenwsgi.request_id"].encode()]

        response = self.serve(middleware(app)).request("GET", "/")
        self.assertEqual(response.header("X-Request-Id"), response.body.decode())


class ObserverExampleTests(LeakCheckMixin, TestCase):
    """The observer of docs/logging.md."""

    def test_optional_fields(self) -> None:
        """The observer gets the environ that the application has left."""
        source = examples("logging.md")[1].partition("\n\nservice(")[0]
        module: Any = run(source, "observer_example")
        counted: list[tuple[object, ...]] = []
        module.count = lambda *fields: counted.append(fields[:2])

        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            environ["shop.tenant"] = 7
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b""]

        server = self.serve(app, observers=[module.Metrics().observe])
        server.request("GET", "/")
        self.assertEqual(counted, [(7, 200)])


class TroubleshootingTests(SynchronousTestCase):
    """docs/troubleshooting.md quotes messages, so that a search finds them."""

    #: Messages of Twisted, Django and Python.
    foreign = (
        "twistd: ",
        "Another twistd server",
        "Unknown command: 'rungreen'",
        "RuntimeError: no running event loop",
    )

    def test_messages(self) -> None:
        """Each quoted message is one that the package can produce."""
        texts = (
            node.value.strip()
            for path in DOCS.parent.glob("txgreenwsgi/**/*.py")
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        phrases = {text for text in texts if " " in text}
        messages = self.messages()
        self.assertGreater(len(messages), 12)
        for message in messages:
            for part in filter(None, map(str.strip, message.split("..."))):
                # A part is within one text, or contains one among its values.
                self.assertTrue(
                    any(
                        part in phrase
                        or (phrase in part and len(phrase) > len(part) / 4)
                        for phrase in phrases
                    ),
                    message,
                )

    def messages(self) -> list[str]:
        """Return the messages in the first paragraphs of the entries."""
        page = (DOCS / "troubleshooting.md").read_text("utf-8")
        paragraphs = re.findall(r"^### .+\n\n(`[^|]+?)\n\n", page, re.MULTILINE)
        spans = [
            span.replace("\n", " ")
            for paragraph in paragraphs
            for span in re.findall(r"`([^`]+)`", paragraph)
        ]
        return [
            span for span in spans if " " in span and not span.startswith(self.foreign)
        ]
