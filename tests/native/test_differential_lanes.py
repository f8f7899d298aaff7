"""The counters of the lanes.

They prove that the differential tests compare compiled code with Python code: common
requests take the lanes, and others are handed to the Python methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .app import encode
from .pair import Pair

if TYPE_CHECKING:
    from .pair import Side

HOST = b"Host: example.com\r\n"
HELLO = b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /body HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nbody"
CHUNKS = b"GET /chunks HTTP/1.1\r\n" + HOST + b"\r\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"

#: Lanes of every request that has a known head.
EACH = ("head", "start", "serve", "response", "end")


class LaneTests(SynchronousTestCase):
    """Which lanes a request takes, by the counters of the servers."""

    def setUp(self) -> None:
        """Start both servers."""
        self.pair = Pair(self)

    def taken(self, side: Side, *pieces: bytes) -> dict[str, int]:
        """Send some pieces, and return how often each lane was taken for them.

        The requests that ask for the counters are subtracted.
        """
        nothing = self.difference(side, [])
        found = self.difference(side, pieces)
        return {name: found[name] - nothing[name] for name in found}

    def difference(
        self, side: Side, pieces: tuple[bytes, ...] | list[bytes]
    ) -> dict[str, int]:
        """Return by how much the counters grow while these pieces are sent."""
        before = side.fetch_json("/lanes")
        if pieces:
            with side.connect() as connection:
                received = b""
                for piece in pieces:
                    connection.sendall(piece)
                    received += connection.recv(65536)
                while b"chunked" in received and not received.endswith(LAST_CHUNK):
                    received += connection.recv(65536)
        after = side.fetch_json("/lanes")
        return {name: after[name] - before[name] for name in after}

    def test_common(self) -> None:
        """Each lane of a common request is taken once the lines are known."""
        compiled = self.pair.compiled
        for stream in (HELLO, POST, CHUNKS):
            self.taken(compiled, stream)
        found = self.taken(compiled, *[HELLO] * 5)
        for name in EACH:
            self.assertEqual(found[name], 5, (name, found))
        found = self.taken(compiled, *[POST] * 5)
        for name in EACH:
            self.assertEqual(found[name], 5, (name, found))
        self.assertGreaterEqual(found["read"], 5, found)
        found = self.taken(compiled, CHUNKS)
        self.assertGreaterEqual(found["block"], 9, found)

    def test_others(self) -> None:
        """Other requests are handed to the Python methods, and answered alike."""
        compiled = self.pair.compiled
        cases: dict[str, tuple[bytes, str]] = {
            "a line that is not valid": (HELLO[:-2] + b"No colon\r\n\r\n", "head"),
            "a request line with a space": (HELLO.replace(b"/hello", b"/a b"), "head"),
            "two Host fields": (HELLO[:-2] + HOST + b"\r\n", "head"),
            "a status that is not text": (
                HELLO.replace(
                    b"/hello",
                    b"/respond?"
                    + encode(
                        {
                            "status": {"text": "200 OK"},
                            "fields": [],
                            "blocks": [],
                            "by": "list",
                        }
                    ).encode(),
                ),
                "serve",
            ),
        }
        for case, (stream, lane) in cases.items():
            found = self.taken(compiled, stream)
            self.assertEqual(found[lane], 0, (case, found))
            self.pair.check([stream])

    def test_pure(self) -> None:
        """The server in pure Python takes no lane."""
        self.pair.check([HELLO, POST, CHUNKS])
        self.assertEqual(self.pair.pure.fetch_json("/lanes"), {})
