"""The code examples of docs/origins.md and their expected responses.

This module knows the format of the page, and must never know its content.
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
        method: for example "GET".
        path: request target.
        body: request body.
    """

    method: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Snippet:
    """One code example.

    Attributes:
        line: line number of its start.
        code: source code.
        requests: concurrent requests; empty for a `main()`.
        answer: text after the arrow: the response to the first request.
    """

    line: int
    code: str
    requests: list[Request]
    answer: str

    def run(self) -> dict[str, Any]:
        """Run the code and return the names it defines."""
        names: dict[str, Any] = {"__name__": f"origins_md_{self.line}"}
        exec(compile(self.code, f"{PAGE.name}:{self.line}", "exec"), names)
        return names


def _request(text: str) -> Request:
    method, path, *body = text.strip().split(" ", 2)
    return Request(method, path, "".join(body).encode())


def snippets() -> list[Snippet]:
    """Return all code examples of the page, in order."""
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
