"""Tests of `txgreenwsgi._wsgi.strict`: the checks of PEP 3333, one by one."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._wsgi.files import FileWrapper
from txgreenwsgi._wsgi.strict import StrictApplication

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

TEXT = [("Content-Type", "text/plain")]


class Body:
    """A request body that returns the name and the arguments of each call."""

    def _called(self, *arguments: Any) -> Any:
        return arguments

    read = readline = readlines = seek = _called

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"line"])


class StrictTests(SynchronousTestCase):
    """`StrictApplication`."""

    def call(
        self, application: Callable[..., Any], **variables: Any
    ) -> tuple[list[Any], Any]:
        """Return the arguments of all calls of the server, and the response."""
        calls: list[Any] = []

        def start_response(*arguments: Any) -> Callable[[bytes], object]:
            calls.append(arguments)
            return calls.append

        errors = SimpleNamespace(
            write=calls.append, flush=lambda: calls.append("flush")
        )
        environ = {
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "wsgi.input": Body(),
            "wsgi.errors": errors,
            **variables,
        }
        strict: Any = StrictApplication(application)
        return calls, strict(environ, start_response)

    def blocks(self, application: Callable[..., Any]) -> list[bytes]:
        """Return the blocks of a response."""
        _, response = self.call(application)
        return list(response)

    def assert_refused(
        self, application: Callable[..., Any], part: str, **variables: Any
    ) -> None:
        """Fail unless an exception with `part` in its message is raised."""
        with self.assertRaises((TypeError, ValueError, AssertionError)) as raised:
            list(self.call(application, **variables)[1])
        self.assertIn(part, str(raised.exception))

    def starting(self, *arguments: Any, **keywords: Any) -> Callable[..., Any]:
        """Return an application that calls start_response with these arguments."""

        def application(environ: Any, start: Any) -> Iterable[bytes]:
            start(*arguments, **keywords)
            return [b"x"]

        return application

    def test_passed_on(self) -> None:
        """Calls that conform are passed on unchanged."""
        info: Any = (None, None, None)
        arguments: Any
        for arguments in (
            ("200 OK", TEXT),
            ("200 ", TEXT, None),
            ("404 Not Found", [*TEXT, ("X-Foo_Bar1", "\xe4")], info),
            ("204 No Content", []),
            ("304 Not Modified", [("ETag", '"x"')]),
        ):
            calls, response = self.call(self.starting(*arguments))
            self.assertEqual(calls, [arguments])
            self.assertEqual(response, [b"x"])

    def test_start_response(self) -> None:
        """start_response takes two or three positional arguments."""
        for arguments in ((), ("200 OK",), ("200 OK", TEXT, None, None)):
            self.assert_refused(self.starting(*arguments), "positional arguments")
        self.assert_refused(
            self.starting("200 OK", headers=TEXT), "two or three positional"
        )
        wrong: Any
        for wrong in (1, [], "x", ValueError()):
            self.assert_refused(self.starting("200 OK", TEXT, wrong), "sys.exc_info()")

    def test_statuses(self) -> None:
        """A status is a str: three digits, a space, a reason."""

        class Status(str):
            __slots__ = ()

        wrong: Any
        for wrong in (200, None, b"200 OK", Status("200 OK")):
            self.assert_refused(self.starting(wrong, TEXT), "must be a str")
        for wrong in ("200", "2000 OK", "OK", "", "200OK"):
            self.assert_refused(self.starting(wrong, TEXT), "three digits")

    def test_headers(self) -> None:
        """Headers are a list of tuples of str, and their names are those of CGI."""
        wrong: Any
        for wrong in (tuple(TEXT), iter(TEXT), dict(TEXT), None):
            self.assert_refused(self.starting("200 OK", wrong), "as a list")
        for wrong in (["X", "1"], ("X",), ("X", "1", "2"), "X1"):
            self.assert_refused(self.starting("200 OK", [*TEXT, wrong]), "a tuple")
        for wrong in (("X", 1), (b"X", "1"), ("X", None)):
            self.assert_refused(self.starting("200 OK", [*TEXT, wrong]), "must be str")
        for name in ("1X", "X-", "X_", "-X", "X Y", "X:", "", "X\n", "X!"):
            self.assert_refused(
                self.starting("200 OK", [*TEXT, (name, "1")]), "not a field name"
            )
        self.assert_refused(
            self.starting("200 OK", [*TEXT, ("status", "200")]), "first argument"
        )
        for value in ("\t", "a\nb", "\r", "\0", "\x1f"):
            self.assert_refused(
                self.starting("200 OK", [*TEXT, ("X", value)]), "control character"
            )

    def test_content_type(self) -> None:
        """A response has a Content-Type, except 204 and 304."""
        for status in ("200 OK", "301 Moved", "404 Not Found"):
            self.assert_refused(self.starting(status, []), "no Content-Type")
        for status in ("204 No Content", "304 Not Modified"):
            self.assert_refused(self.starting(status, TEXT), "remove it")

    def test_responses(self) -> None:
        """A response is an iterable of bytes; the gateway reports None."""
        self.assertIsNone(self.call(lambda environ, start: None)[1])
        for wrong in ("", "x", b"", b"x"):
            self.assert_refused(lambda environ, start, w=wrong: w, "return a list")
        for block in ("", "x", bytearray(b"x"), memoryview(b"x"), 1, None):
            for kind in (list, tuple, iter, set):
                if kind is set and isinstance(block, bytearray):
                    continue  # not hashable

                def application(
                    environ: Any, start: Any, kind: Any = kind, block: Any = block
                ) -> Any:
                    start("200 OK", TEXT)
                    return kind([block])

                self.assert_refused(application, "must be bytes, not")

    def test_blocks_before_start_response(self) -> None:
        """start_response is called before the first block, even an empty one."""
        for returned in ([b""], (b"x",), iter([b""])):
            self.assert_refused(
                lambda environ, start, r=returned: r, "without having called"
            )

        def late(environ: Any, start: Any) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"x"

        self.assertEqual(self.blocks(late), [b"x"])

    def test_write(self) -> None:
        """write() takes bytes only."""
        for block in ("x", bytearray(b"x"), memoryview(b"x"), None):

            def application(environ: Any, start: Any, block: Any = block) -> Any:
                start("200 OK", TEXT)(block)
                return []

            self.assert_refused(application, "the argument of write() must be bytes")
        calls, _ = self.call(
            lambda environ, start: start("200 OK", TEXT)(b"x") or [b""]
        )
        self.assertEqual(calls[1:], [b"x"])

    def test_kinds_of_responses(self) -> None:
        """The gateway still sees a file, a length, and close()."""
        file = FileWrapper(SimpleNamespace(read=None))
        self.assertIs(self.call(lambda environ, start: file)[1], file)
        closed: list[bool] = []

        class Blocks:
            def __iter__(self) -> Iterator[bytes]:
                return iter([b"x"])

            def close(self) -> None:
                closed.append(True)

        class Counted(Blocks):
            def __len__(self) -> int:
                return 1

        for kind, counted in ((Blocks, False), (Counted, True)):
            _, response = self.call(lambda environ, start, kind=kind: kind())
            self.assertEqual(hasattr(type(response), "__len__"), counted)
            response.close()
        self.assertEqual(len(closed), 2)
        self.assertEqual(len(response), 1)
        self.call(lambda environ, start: iter([]))[1].close()

    def test_input(self) -> None:
        """Calls of wsgi.input are passed on, except close()."""

        def reading(call: Callable[[Any], Any]) -> Callable[..., Any]:
            def application(environ: Any, start: Any) -> Any:
                results.append(call(environ["wsgi.input"]))
                return [b""] if start("200 OK", TEXT) else []

            return application

        results: list[Any] = []
        for call in (
            lambda body: body.read(5),
            lambda body: body.read(),
            lambda body: body.readline(),
            lambda body: body.readlines(5),
            lambda body: body.seek(0),
            list,
        ):
            self.call(reading(call))
        self.assertEqual(results, [(5,), (), (), (5,), (0,), [b"line"]])
        self.assert_refused(reading(lambda body: body.close()), "must not be closed")

    def test_errors(self) -> None:
        """wsgi.errors takes str, and is not closed."""

        def application(environ: Any, start: Any) -> Any:
            errors = environ["wsgi.errors"]
            errors.write("one")
            errors.writelines(["two", "three"])
            errors.flush()
            with self.assertRaises(TypeError):
                errors.write(b"four")
            with self.assertRaises(TypeError):
                errors.writelines([5])
            with self.assertRaises(AssertionError):
                errors.close()
            return []

        self.assertEqual(self.call(application)[0], ["one", "two", "three", "flush"])

    def test_environ(self) -> None:
        """Variables that a deployer sets must agree with PEP 3333."""
        for variables in (
            {"SCRIPT_NAME": "/"},
            {"SCRIPT_NAME": "app"},
            {"PATH_INFO": "x"},
            {"HTTP_CONTENT_TYPE": "x"},
            {"HTTP_CONTENT_LENGTH": "1"},
        ):
            [name] = variables
            self.assert_refused(self.starting("200 OK", TEXT), name, **variables)
        self.call(self.starting("200 OK", TEXT), SCRIPT_NAME="/app", PATH_INFO="")

    def test_name(self) -> None:
        """Messages name the application, not its wrapper."""
        application = self.starting("200 OK", TEXT)
        self.assertEqual(repr(StrictApplication(application)), repr(application))

    def test_no_cycle(self) -> None:
        """No reference to the traceback of exc_info is kept."""

        def application(environ: Any, start: Any) -> Iterable[bytes]:
            try:
                raise KeyError
            except KeyError:
                before = sys.getrefcount(sys.exc_info()[2])
                with self.assertRaises(ZeroDivisionError):
                    start("500 Oops", TEXT, sys.exc_info())
                self.assertEqual(sys.getrefcount(sys.exc_info()[2]), before)
            return []

        def start_response(*arguments: Any) -> Any:
            raise ZeroDivisionError

        environ = {"SCRIPT_NAME": "", "PATH_INFO": "/"}
        environ.update(dict.fromkeys(("wsgi.input", "wsgi.errors"), ""))
        list(StrictApplication(application)(environ, start_response))

    def test_as_strict_as_validate(self) -> None:
        """Every response that `wsgiref.validate` refuses is refused here too."""
        arguments: Any
        for arguments in (
            ("200 OK", []),
            ("200 OK", [*TEXT, ("Status", "1")]),
            ("200 OK", [*TEXT, ("X-", "1")]),
            ("200 OK", [*TEXT, ("1", "1")]),
            ("200 OK", [*TEXT, ("X", "\t")]),
            ("200 OK", [*TEXT, ["X", "1"]]),
            ("200 OK", tuple(TEXT)),
            ("204 No", TEXT),
            ("20 OK", TEXT),
            (b"200 OK", TEXT),
            ("200 OK", TEXT, 5),
        ):
            application = self.starting(*arguments)
            self.assert_refused(application, "")
            checked: Any = validator(application)
            with self.assertRaises(AssertionError):
                checked(environ_for_validate(), lambda *given: lambda data: None)


def environ_for_validate() -> dict[str, Any]:
    """Return an environ that `wsgiref.validate` accepts."""
    stream = SimpleNamespace(
        **dict.fromkeys(
            ("read", "readline", "readlines", "__iter__", "flush", "write"), None
        ),
        writelines=None,
    )
    return {
        "REQUEST_METHOD": "GET",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": stream,
        "wsgi.errors": stream,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
