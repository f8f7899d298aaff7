"""Responses of every shape that PEP 3333 allows."""

from __future__ import annotations

import io
import itertools
import os
import tempfile
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from txgreenwsgi import current_task

from .harness import HTTP1, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .harness import App, Environ, Start
    from .harness_links import Link


class ResponseCases(Cases):
    """Blocks returned by the application, and the response that the client receives."""

    def test_list_of_one_block(self) -> None:
        """A list of one block is sent with its length."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return [b"hello\n"]

        reply = self.ask(app)
        self.assert_complete(reply, b"hello\n")
        self.assertEqual(reply.header("Content-Length"), "6")
        self.assertEqual(reply.header("Content-Type"), "text/plain")

    def test_several_blocks(self) -> None:
        """Blocks of lists, tuples and generators arrive in order."""

        def generated() -> Iterator[bytes]:
            yield b"one "
            yield b"two "
            yield b"three"

        for blocks in (
            [b"one ", b"two ", b"three"],
            (b"one ", b"two ", b"three"),
            generated(),
            iter([b"one ", b"", b"two ", b"", b"three"]),
        ):

            def app(
                environ: Environ, start: Start, blocks: Iterable[bytes] = blocks
            ) -> Iterable[bytes]:
                start("200 OK", TEXT)
                return blocks

            self.assert_complete(self.ask(app), b"one two three")

    def test_length_of_several_blocks(self) -> None:
        """A list or tuple of bytes is sent with its length, its blocks in order."""
        for blocks, length in [
            ([b"one ", b"two"], "7"),
            ((b"one ", b"two"), "7"),
            ([b"", b"one ", b"", b"two", b"", b""], "7"),
            ([b"one two", b""], "7"),
            ([b"", b"one two"], "7"),
        ]:
            for method in ("GET", "HEAD"):

                def app(
                    environ: Environ, start: Start, blocks: Iterable[bytes] = blocks
                ) -> Iterable[bytes]:
                    start("200 OK", TEXT)
                    return blocks

                server = self.serve(app)
                reply = server.begin(method)
                server.advance(0)
                self.assert_complete(reply, b"" if method == "HEAD" else b"one two")
                self.assertEqual(reply.values("Content-Length"), [length])
                self.assertIsNone(reply.header("Transfer-Encoding"))

    def test_no_length_of_several_blocks(self) -> None:
        """Subclasses of list and of bytes, and other iterables, have no known length.

        Their methods may return other blocks or lengths than those of list and bytes.
        """

        class Doubled(list[bytes]):
            def __iter__(self) -> Iterator[bytes]:
                return iter([*super().__iter__()] * 2)

        class Marked(bytes):
            def __len__(self) -> int:
                return 1

        for blocks, body in [
            (Doubled([b"one ", b"two "]), b"one two one two "),
            ([b"one ", Marked(b"two ")], b"one two "),
            ({b"one ": 1, b"two ": 2}, b"one two "),
            (iter([b"one ", b"two "]), b"one two "),
        ]:

            def app(
                environ: Environ, start: Start, blocks: Iterable[bytes] = blocks
            ) -> Iterable[bytes]:
                start("200 OK", TEXT)
                return blocks

            reply = self.ask(app)
            self.assert_complete(reply, body)
            self.assertIsNone(reply.header("Content-Length"))

    def test_wrong_block_in_a_list(self) -> None:
        """A list is sent up to its first block of another type, without a length."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return [b"one", 2]  # type: ignore[list-item]

        reply = self.ask(app)
        self.assert_cut(reply, b"one")
        self.assertIsNone(reply.header("Content-Length"))
        self.assertEqual(len(self.errors()), 1)

    def test_list_changed_while_it_is_sent(self) -> None:
        """The blocks of a list are those that it had when it was returned."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            blocks = [b"", b"one ", b"two"]
            if server.in_order:  # else it may be called before the return
                server.soon(lambda: blocks.append(b" three"))
            return blocks

        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, b"one two")
        self.assertEqual(reply.header("Content-Length"), "7")

    def test_length_after_write(self) -> None:
        """The length of a list is not sent if write() has sent a block before."""
        for written, length in [(b"zero ", None), (b"", "7")]:

            def app(
                environ: Environ, start: Start, written: bytes = written
            ) -> Iterable[bytes]:
                start("200 OK", TEXT)(written)
                return [b"one ", b"two"]

            reply = self.ask(app)
            self.assert_complete(reply, written + b"one two")
            self.assertEqual(reply.header("Content-Length"), length)

    def test_declared_length_of_several_blocks(self) -> None:
        """The application's Content-Length precedes that of its list."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "5")])
            return [b"one ", b"two"]

        reply = self.ask(app)
        self.assert_complete(reply, b"one t")
        self.assertEqual(reply.values("Content-Length"), ["5"])
        self.assertEqual(len(self.errors()), 1)

    def test_several_blocks_without_a_body(self) -> None:
        """204 and 304 have neither a body nor the length of a list of blocks."""
        for status in ("204 No Content", "304 Not Modified"):

            def app(
                environ: Environ, start: Start, status: str = status
            ) -> Iterable[bytes]:
                start(status, [])
                return [b"one ", b"two"]

            reply = self.ask(app)
            self.assert_complete(reply, b"", status=int(status[:3]))
            if status[:3] == "204":
                self.assertIsNone(reply.header("Content-Length"))

    def test_proxies(self) -> None:
        """An iterable whose type has a len() that fails is served like any other.

        The type of a transparent proxy has every method, and passes the call on.
        """

        class Proxy:
            def __init__(self, content: Iterable[bytes], error: Exception) -> None:
                self.content = content
                self.error = error

            def __len__(self) -> int:
                raise self.error

            def __iter__(self) -> Iterator[bytes]:
                return iter(self.content)

        errors = TypeError("no len()"), NotImplementedError(), OverflowError()
        for error in errors:
            for blocks in ([b"whole"], (block for block in [b"wh", b"ole"])):

                def app(
                    environ: Environ,
                    start: Start,
                    proxy: Proxy = Proxy(blocks, error),  # noqa: B008 - per case
                ) -> Iterable[bytes]:
                    start("200 OK", TEXT)
                    return proxy

                self.assert_complete(self.ask(app), b"whole")

    def test_write(self) -> None:
        """Blocks given to write() precede those of the returned iterable."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"one ")
            write(b"two ")
            return [b"three"]

        self.assert_complete(self.ask(app), b"one two three")

    def test_each_block_is_sent_at_once(self) -> None:
        """A block reaches the client before the application computes the next one."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"one"
            environ["txgreenwsgi.sleep"](1)
            yield b"two"

        server = self.serve(app)
        reply = server.begin()
        self.assertEqual((reply.state, reply.body), ("open", b"one"))
        server.advance(1)
        self.assert_complete(reply, b"onetwo")

    def test_blocks_are_not_held_back(self) -> None:
        """A block is sent before the server requests the next one.

        Or, if the application runs in a thread, while it computes the next one: see
        PEP 3333, "Buffering and Streaming".
        """
        arrived: list[int] = []

        def note_arrival(link: Link) -> None:
            before = arrived[-1] if arrived else 0
            if current_task() is None:
                deadline = time.monotonic() + 30
                while link.arrived == before and time.monotonic() < deadline:
                    time.sleep(0.001)
            arrived.append(link.arrived)

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            link = server.connections[0].link
            write = start("200 OK", TEXT)
            if environ["PATH_INFO"] == "/write":
                for _ in range(4):
                    write(b"block")
                    note_arrival(link)
            else:
                for _ in range(4):
                    yield b"block"
                    note_arrival(link)

        for target in ("/yield", "/write"):
            arrived.clear()
            server = self.serve(app)
            reply = server.begin(target=target)
            server.advance(0)
            self.assert_complete(reply, b"block" * 4)
            grown = [after - before for before, after in itertools.pairwise(arrived)]
            self.assertTrue(arrived[0] > 0 and min(grown) >= 5, arrived)

    def test_start_response_in_the_iteration(self) -> None:
        """The application may call start_response as late as the first block."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            yield b""
            start("201 Created", TEXT)
            yield b"late"

        self.assert_complete(self.ask(app), b"late", status=201)

    def test_declared_length(self) -> None:
        """A body that has its declared Content-Length is sent with it."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "6")])
            return iter([b"abc", b"def"])

        reply = self.ask(app)
        self.assert_complete(reply, b"abcdef")
        self.assertEqual(reply.values("Content-Length"), ["6"])

    def test_block_beyond_the_length(self) -> None:
        """Blocks are truncated at the Content-Length, and one error is logged."""
        for length, blocks in [
            (5, [b"abcdefgh"]),
            (5, [b"abc", b"defgh"]),
            (5, [b"abcde", b"fgh"]),
            (0, [b"abc"]),
        ]:

            def app(
                environ: Environ,
                start: Start,
                length: int = length,
                blocks: list[bytes] = blocks,
            ) -> Iterable[bytes]:
                start("200 OK", [*TEXT, ("Content-Length", str(length))])
                return blocks

            server = self.serve(app)
            reply = server.begin()
            server.advance(0)
            self.assert_complete(reply, b"abcde"[:length])
            errors = self.errors()
            self.assertEqual(len(errors), 1, errors)
            self.assertIn("Content-Length", errors[0])

    def test_endless_iterable_behind_a_length(self) -> None:
        """An endless iterable is closed soon after its Content-Length is reached."""
        for returned in ("generator", "iterator"):
            taken: list[int] = []
            closed: list[bool] = []

            def generate(
                taken: list[int] = taken, closed: list[bool] = closed
            ) -> Iterator[bytes]:
                try:
                    # More than a correct server requests, but finite for this test.
                    for number in range(10000):
                        taken.append(number)
                        yield b"abc"
                finally:
                    closed.append(True)

            class Blocks:
                def __init__(self, blocks: Iterator[bytes]) -> None:
                    self._blocks = blocks

                def __iter__(self) -> Iterator[bytes]:
                    return self._blocks

                def close(self) -> None:
                    self._blocks.close()  # type: ignore[attr-defined]

            def app(
                environ: Environ, start: Start, returned: str = returned
            ) -> Iterable[bytes]:
                start("200 OK", [*TEXT, ("Content-Length", "5")])
                return generate() if returned == "generator" else Blocks(generate())

            server = self.serve(app)
            reply = server.begin()
            server.advance(1)
            self.assert_complete(reply, b"abcab")
            self.assertEqual(closed, [True])
            self.assertLess(len(taken), 10)
            errors = self.errors()
            self.assertEqual(len(errors), 1, errors[:3])
            self.assertIn("Content-Length", errors[0])

    def test_endless_iterable_behind_an_empty_body(self) -> None:
        """With Content-Length 0, the first block is discarded."""
        taken: list[int] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "0")])
            for number in range(10000):
                taken.append(number)
                yield b"abc"

        server = self.serve(app)
        reply = server.begin()
        server.advance(1)
        self.assert_complete(reply, b"")
        self.assertLess(len(taken), 10)
        self.assertEqual(len(self.errors()), 1)

    def test_endless_write_behind_a_length(self) -> None:
        """An application that endlessly writes beyond its Content-Length is ended."""
        written: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", [*TEXT, ("Content-Length", "5")])
            for number in range(10000):
                written.append(number)
                write(b"abc")
            return []

        server = self.serve(app)
        reply = server.begin()
        server.advance(1)
        self.assert_complete(reply, b"abcab")
        self.assertLess(len(written), 10)
        errors = self.errors()
        self.assertEqual(len(errors), 1, errors[:3])

    def test_block_short_of_the_length(self) -> None:
        """A body shorter than its Content-Length is an error; the client detects it."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "30")])
            return [b"abc"]

        reply = self.ask(app)
        self.assert_cut(reply, b"abc")
        errors = self.errors()
        self.assertEqual(len(errors), 1, errors)
        self.assertIn("27", errors[0])
        self.assertIn("Content-Length", errors[0])

    def test_head(self) -> None:
        """The response to HEAD has the fields of GET and no body."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("X-Kind", "of")])
            return [b"hello\n"]

        reply = self.ask(app, "HEAD")
        self.assert_complete(reply, b"")
        self.assertEqual(reply.header("X-Kind"), "of")
        self.assertEqual(reply.header("Content-Length"), "6")

    def test_head_with_a_declared_length(self) -> None:
        """The response to HEAD keeps the application's Content-Length."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "1234")])
            return []

        reply = self.ask(app, "HEAD")
        self.assert_complete(reply, b"")
        self.assertEqual(reply.header("Content-Length"), "1234")

    def test_bodiless_responses_stop_the_iteration(self) -> None:
        """An endless iterable is closed if the response cannot have a body."""
        for method, status in [
            ("HEAD", "200 OK"),
            ("GET", "204 No Content"),
            ("GET", "304 Not Modified"),
        ]:
            taken: list[int] = []
            closed: list[bool] = []

            def app(
                environ: Environ,
                start: Start,
                status: str = status,
                taken: list[int] = taken,
                closed: list[bool] = closed,
            ) -> Iterator[bytes]:
                start(status, [])
                try:
                    for number in range(10000):
                        taken.append(number)
                        yield b"x"
                finally:
                    closed.append(True)

            server = self.serve(app)
            reply = server.begin(method)
            server.advance(1)
            self.assert_complete(reply, b"", status=int(status[:3]))
            self.assertEqual(closed, [True])
            self.assertLess(len(taken), 10)

    def test_no_content(self) -> None:
        """204 has neither a body nor a Content-Length."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("204 No Content", [("Content-Length", "0")])
            return []

        reply = self.ask(app)
        self.assert_complete(reply, b"", status=204)
        self.assertIsNone(reply.header("Content-Length"))

    def test_not_modified(self) -> None:
        """304 has no body, and keeps its fields."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("304 Not Modified", [("ETag", '"x"')])
            return []

        reply = self.ask(app)
        self.assert_complete(reply, b"", status=304)
        self.assertEqual(reply.header("ETag"), '"x"')

    def test_empty_body(self) -> None:
        """A response without blocks is complete."""
        for blocks in ([], (), iter([]), [b""], iter([b"", b""])):

            def app(
                environ: Environ, start: Start, blocks: Iterable[bytes] = blocks
            ) -> Iterable[bytes]:
                start("200 OK", TEXT)
                return blocks

            server = self.serve(app)
            reply = server.begin()
            server.advance(0)
            self.assert_complete(reply, b"")

    def test_file_wrapper(self) -> None:
        """A file is sent from its current position, at most Content-Length bytes."""
        content = bytes(range(256)) * 1000
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "file")
            with open(path, "wb") as made:
                made.write(content)
            for offset, length in [(0, None), (1000, None), (1000, 70000)]:
                files: list[io.BufferedReader] = []

                def app(
                    environ: Environ,
                    start: Start,
                    files: list[io.BufferedReader] = files,
                    offset: int = offset,
                    length: int | None = length,
                ) -> Iterable[bytes]:
                    opened = open(path, "rb")  # noqa: SIM115 - closed by close()
                    files.append(opened)
                    opened.seek(offset)
                    fields = [] if length is None else [("Content-Length", str(length))]
                    start("200 OK", [*TEXT, *fields])
                    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened)
                    return wrapped

                server = self.serve(app)
                reply = server.begin()
                server.advance(0)
                end = None if length is None else offset + length
                self.assert_complete(reply, content[offset:end])
                self.assertEqual([file.closed for file in files], [True])

    def test_file_wrapper_of_no_file(self) -> None:
        """Any object with read() can be wrapped."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](
                io.BytesIO(b"in memory\n"), 4
            )
            return wrapped

        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, b"in memory\n")

    def test_file_wrapper_that_was_positioned(self) -> None:
        """A wrapper that middleware has positioned is sent from there.

        Both as a whole, and by middleware that iterates over it, as for a range request
        in werkzeug. Nothing before the position is read.
        """
        content = bytes(range(256)) * 1000
        path = self.mktemp()
        with open(path, "wb") as made:
            made.write(content)
        for whole in (True, False):
            for position, whence in [(255_000, 0), (1000, 1), (-7, 2), (0, 2)]:

                def app(
                    environ: Environ,
                    start: Start,
                    whole: bool = whole,
                    place: tuple[int, int] = (position, whence),
                ) -> Iterable[bytes]:
                    start("206 Partial Content", TEXT)
                    opened = open(path, "rb")  # noqa: SIM115 - closed by close()
                    wrapped: Any = environ["wsgi.file_wrapper"](opened)
                    self.assertTrue(wrapped.seekable())
                    self.assertEqual(wrapped.seek(*place), wrapped.tell())
                    if whole:
                        return wrapped  # type: ignore[no-any-return]
                    return self.closing(wrapped)

                server = self.serve(app)
                reply = server.begin()
                server.advance(0)
                begin = position + (len(content) if whence == 2 else 0)
                self.assert_complete(reply, content[begin:], status=206)

    @staticmethod
    def closing(wrapped: Any) -> Iterator[bytes]:
        """Iterate over a wrapper by `next`, then close it."""
        try:
            while block := next(wrapped, b""):
                yield block
        finally:
            wrapped.close()

    def test_file_wrapper_that_is_skipped(self) -> None:
        """An application that discards blocks of a file yields to the reactor."""
        beside: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            def turn() -> None:
                beside.append(1)
                if len(beside) < 1000:
                    server.reactor.callLater(0, turn)

            file = io.BytesIO(bytes(64 * 1024 * 1024) + b"end")
            wrapped: Iterator[bytes] = environ["wsgi.file_wrapper"](file)
            server.soon(turn)
            for block in wrapped:
                if not block.startswith(b"\0"):
                    break
                last = block
            turns.append(len(beside))
            beside.extend([1] * 1000)
            start("200 OK", TEXT)
            return [last.lstrip(b"\0") or block]

        turns: list[int] = []
        server = self.serve(app)
        reply = server.begin()
        server.advance(1)
        self.assert_complete(reply, b"end")
        if server.in_order:  # else the reactor runs anyway, beside the thread
            self.assertGreaterEqual(turns[0], 8)

    def test_close_is_called_once(self) -> None:
        """close() of any iterable is called once, after the last block."""
        calls: list[str] = []

        class Blocks:
            def __init__(self, fails: bool) -> None:
                self._fails = fails

            def __iter__(self) -> Iterator[bytes]:
                yield b"block"
                if self._fails:
                    raise ZeroDivisionError
                calls.append("end")

            def close(self) -> None:
                calls.append("close")

        for fails in (False, True):
            calls.clear()

            def app(
                environ: Environ, start: Start, fails: bool = fails
            ) -> Iterable[bytes]:
                start("200 OK", TEXT)
                return Blocks(fails)

            server = self.serve(app)
            server.begin()
            server.advance(1)
            self.assertEqual(calls, ["close"] if fails else ["end", "close"])
            self.errors()

    def test_large_body(self) -> None:
        """A megabyte arrives complete, in one block or in many."""
        content = os.urandom(1_000_000)
        pieces = [content[at : at + 65536] for at in range(0, len(content), 65536)]
        for blocks in ([content], pieces, iter(pieces)):

            def app(
                environ: Environ, start: Start, blocks: Iterable[bytes] = blocks
            ) -> Iterable[bytes]:
                start("200 OK", TEXT)
                return blocks

            server = self.serve(app)
            reply = server.begin()
            server.advance(0)
            self.assert_complete(reply)
            self.assertTrue(reply.body == content)

    def test_backpressure(self) -> None:
        """If the client does not read, the application parks until it does."""
        taken: list[int] = []
        enough: list[bool] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            while not enough and len(taken) < 1000:
                taken.append(65536)
                yield b"x" * 65536

        server = self.serve(app)
        reply = server.begin(slow=True)
        server.advance(1)
        before = len(taken)
        self.assertLess(before, 300)
        server.advance(1)
        self.assertEqual(len(taken), before)
        enough.append(True)
        server.read(reply)
        server.advance(1)
        self.assert_complete(reply)
        self.assertEqual(len(reply.body), sum(taken))


class LengthCases(Cases):
    """Lengths that the HTTP/2 client of this suite wrongly rejects."""

    def test_not_modified(self) -> None:
        """304 keeps the Content-Length of the corresponding 200 response."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("304 Not Modified", [("Content-Length", "1234")])
            return []

        reply = self.ask(app)
        self.assert_complete(reply, b"", status=304)
        self.assertEqual(reply.header("Content-Length"), "1234")


class StartResponseCases(Cases):
    """The calls of start_response."""

    def test_called_twice(self) -> None:
        """A second call without exc_info is an error of the application."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            start("200 OK", TEXT)
            return [b"never"]

        self.assert_complete(self.ask(app), b"Internal Server Error\n", status=500)
        self.assertEqual(len(self.errors()), 1)

    def test_never_called(self) -> None:
        """A body without a call of start_response is an error of the application."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            return [b"never"]

        self.assert_complete(self.ask(app), status=500)
        self.assertEqual(len(self.errors()), 1)

    def test_exc_info_before_the_head(self) -> None:
        """A call with exc_info replaces an unsent head."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("X-First", "yes")])
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                info = (type(error), error, error.__traceback__)
                start("418 I'm a teapot", TEXT, info)
            return [b"sorry"]

        reply = self.ask(app)
        self.assert_complete(reply, b"sorry", status=418)
        self.assertIsNone(reply.header("X-First"))

    def test_exc_info_after_the_head(self) -> None:
        """After the head was sent, a call with exc_info raises that exception."""
        raised: list[BaseException] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"part")
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                info = (type(error), error, error.__traceback__)
                try:
                    start("500 Oops", TEXT, info)
                except ZeroDivisionError as again:
                    raised.append(again)
                    raise
            return []

        self.assert_cut(self.ask(app), b"part")
        self.assertEqual(len(raised), 1)
        self.assertEqual(len(self.errors()), 1)


class HeaderCases(Cases):
    """The fields of responses."""

    def fields(self, **settings: object) -> App:
        """Return an application that sends these fields."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", list(settings.items()))
            return [b"x"]

        return app

    def test_defaults(self) -> None:
        """A response has one Date and one Server field."""
        reply = self.ask(self.fields())
        self.assertEqual(reply.values("Server"), ["txgreenwsgi"])
        [date] = reply.values("Date")
        self.assertEqual(str(parsedate_to_datetime(date).tzinfo), "UTC")

    def test_defaults_of_the_servers_own_responses(self) -> None:
        """Responses of the server itself also have Date, Server and added fields."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            raise ZeroDivisionError

        reply = self.ask(app, add_header=[("X-Frame-Options", "DENY")])
        self.assert_complete(reply, b"Internal Server Error\n", status=500)
        self.assertEqual(reply.values("Server"), ["txgreenwsgi"])
        self.assertEqual(len(reply.values("Date")), 1)
        self.assertEqual(reply.values("X-Frame-Options"), ["DENY"])
        self.assertEqual(reply.header("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(len(self.errors()), 1)

    def test_server_header(self) -> None:
        """server_header replaces the Server field."""
        reply = self.ask(self.fields(), server_header="mine/1")
        self.assertEqual(reply.values("Server"), ["mine/1"])

    def test_no_server_header(self) -> None:
        """An empty server_header omits the Server field."""
        reply = self.ask(self.fields(), server_header="")
        self.assertEqual(reply.values("Server"), [])

    def test_fields_of_the_application_win(self) -> None:
        """Server and Date of the application replace the server's."""
        date = "Thu, 01 Jan 1970 00:00:00 GMT"
        reply = self.ask(self.fields(Server="app", Date=date))
        self.assertEqual(reply.values("Server"), ["app"])
        self.assertEqual(reply.values("Date"), [date])

    def test_add_header(self) -> None:
        """add_header adds fields that the application has not set."""
        added = [("X-Frame-Options", "DENY"), ("X-Two", "a"), ("X-Two", "b")]
        reply = self.ask(self.fields(), add_header=added)
        self.assertEqual(reply.values("X-Frame-Options"), ["DENY"])
        self.assertEqual(reply.values("X-Two"), ["a", "b"])
        app = self.fields(**{"x-frame-options": "SAMEORIGIN"})
        reply = self.ask(app, add_header=added)
        self.assertEqual(reply.values("X-Frame-Options"), ["SAMEORIGIN"])

    def test_repeated_fields(self) -> None:
        """Repeated fields of the application arrive separately, in order."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/")])
            return [b"x"]

        self.assertEqual(self.ask(app).values("Set-Cookie"), ["a=1", "b=2; Path=/"])

    def test_latin_1(self) -> None:
        """A field value is sent as latin-1."""
        reply = self.ask(self.fields(X="gr\u00fc\u00dfe"))
        self.assertEqual(reply.header("X"), "gr\u00fc\u00dfe")


globals().update(on_every_transport(ResponseCases, StartResponseCases, HeaderCases))
globals().update(on_every_transport(LengthCases, only=HTTP1))
