"""The format of a fuzzer's input and the checks that each input is run through.

An input is a few bytes that select how to send, followed by the stream to send. No
fuzzer is needed: `test_inputs` runs the known inputs, and any input that was found
can be run again. This file must never know the fuzzer.
"""

from __future__ import annotations

from tests.http.streams import ALPHABET, GOOD, LINES, events
from tests.http.watched import PATHS, WatchedServer

__all__ = ["dictionary", "encode", "run", "seeds"]

_ROOMS = (float("inf"), 0, 100, 10_000)
_SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"max_in_flight": 1, "max_queued": 0, "input_window": 1, "max_body": 20},
    {"keep_alive": 0, "on_disconnect": "cancel", "request_timeout": 0.3},
    {"max_header_size": 300, "max_headers": 5, "max_target": 20},
)
_LEAVE = ("stay", "end", "disconnect", "wait")
_MOST_CUTS = 15


def encode(
    stream: bytes, cuts: bytes = b"", room: int = 0, settings: int = 0, leave: int = 0
) -> bytes:
    """Return the input for a stream and a way to send it.

    Args:
        stream: the bytes that the client sends.
        cuts: the positions at which the stream is cut, in 255ths of its length.
        room: index into `_ROOMS`, the bytes that the client reads.
        settings: index into `_SETTINGS`, the settings of the server.
        leave: index into `_LEAVE`, the way in which the client leaves.
    """
    how = room | settings << 2 | leave << 4
    return bytes((how, len(cuts))) + cuts + stream


def _decode(data: bytes) -> tuple[int, list[bytes]]:
    how = data[0]
    count = data[1] % (_MOST_CUTS + 1)
    stream = data[2 + count :]
    cuts = sorted(len(stream) * cut // 255 for cut in data[2 : 2 + count])
    pieces = [
        stream[begin:end]
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    return how, pieces


def run(data: bytes) -> None:
    """Send an input to the parser and to a complete server.

    Raises:
        AssertionError: the parser or the server misbehaved.
    """
    if len(data) < 3:
        return
    how, pieces = _decode(data)
    whole, split = events([b"".join(pieces)]), events(pieces)
    if whole != split:
        raise AssertionError(f"parsed as {whole} in one piece, as {split} in several")
    watched = WatchedServer(**_SETTINGS[how >> 2 & 3])
    beside = watched.connect()
    beside.send([b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n"])
    client = watched.connect(_ROOMS[how & 3])
    client.send(pieces)
    match _LEAVE[how >> 4 & 3]:
        case "end":
            client.client.end()
        case "disconnect":
            client.disconnect()
        case "wait":
            watched.server.advance(0.4)
            client.send(pieces)
    watched.finish()


def seeds() -> list[bytes]:
    """Return the initial inputs: valid requests with all servers and ways to send."""
    found = []
    for number, stream in enumerate(GOOD.values()):
        found.append(encode(stream + stream))
        found.append(
            encode(
                stream + stream,
                cuts=bytes((number * 11 % 256, 90, 200)),
                room=number % 4,
                settings=number // 4 % 4,
                leave=number // 2 % 4,
            )
        )
    for number, path in enumerate(PATHS):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        stream = head.encode() + b"3\r\nabc\r\n28\r\n%b\r\n0\r\n\r\n" % (b"x" * 40)
        found.append(encode(stream, cuts=b"\x80\xc0", settings=number % 4))
    return found


def dictionary() -> list[bytes]:
    """Return the tokens of HTTP framing, for a fuzzer to insert."""
    return [*ALPHABET, *LINES, *(line + b"\r\n" for line in LINES)]
