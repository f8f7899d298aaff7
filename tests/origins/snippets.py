"""The pieces of code in docs/origins.md, with the answers that stand behind them.

It knows the form of that page, and must never know what is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "origins.md"


@dataclass(frozen=True)
class Request:
    """One request to an application on the page.

    Attributes:
        method: such as "GET".
        path: where to.
        body: what is sent with it.
    """

    method: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Snippet:
    """One piece of code.

    Attributes:
        line: where it begins.
        code: the whole of it.
        requests: those that are sent at the same time; none for a `main()`.
        answer: what stands behind the arrow: for several requests, that of the first.
    """

    line: int
    code: str
    requests: list[Request]
    answer: str

    def run(self) -> dict[str, Any]:
        """Run the code; the names it has defined."""
        names: dict[str, Any] = {"__name__": f"origins_md_{self.line}"}
        exec(compile(self.code, f"{PAGE.name}:{self.line}", "exec"), names)
        return names


def _request(text: str) -> Request:
    method, path, *body = text.strip().split(" ", 2)
    return Request(method, path, "".join(body).encode())


def snippets() -> list[Snippet]:
    """All pieces of code on the page, in order."""
    text = PAGE.read_text("utf-8")
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        code = match[1]
        line = text.count("\n", 0, match.start()) + 2
        expected = re.search(r"^# (main\(\)|[A-Z]+ /.*?) -> (.*)$", code, re.M)
        if expected is None:
            raise AssertionError(f"{PAGE}:{line} has no line '# GET / -> answer'")
        asked = expected[1]
        requests = (
            []
            if asked == "main()"
            else [_request(request) for request in asked.split(" & ")]
        )
        found.append(Snippet(line, code, requests, expected[2]))
    return found
