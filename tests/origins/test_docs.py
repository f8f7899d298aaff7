"""The code examples of docs/origins.md return the responses on the page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from unittest.mock import patch

from txgreenwsgi.origins import EXTENSIONS, NAMES

from .serving import ServedTestCase
from .snippets import PAGE, snippets

if TYPE_CHECKING:
    from .snippets import Snippet


class SnippetTests(ServedTestCase):
    """The code examples."""

    def answer(self, snippet: Snippet) -> str:
        """Return the response of a snippet's application to its first request."""
        with patch.dict(sys.modules):  # discard the module `uwsgi` afterwards
            server = self.serve(snippet.run()["app"])
            clients = []
            for request in snippet.requests:
                client = server.connect()
                head = (
                    f"{request.method} {request.path} HTTP/1.1\r\nHost: test\r\n"
                    f"Content-Length: {len(request.body)}\r\n\r\n"
                )
                client.socket.to_server += head.encode() + request.body
                clients.append(client)
            for _ in range(100):
                if not server.tasks and clients[0].received:
                    break
                server.advance(0.1)
            self.assertEqual(server.tasks, [], f"line {snippet.line} never ends")
        (response,) = clients[0].responses()
        return response.body.decode()

    def test_snippets(self) -> None:
        """Each application returns the response on the page."""
        served = [snippet for snippet in snippets() if snippet.requests]
        self.assertGreater(len(served), 12)
        for snippet in served:
            self.assertEqual(
                self.answer(snippet), snippet.answer, f"{PAGE}:{snippet.line}"
            )

    def test_everything_is_mentioned(self) -> None:
        """The page mentions every environ key and every adapter."""
        text = PAGE.read_text("utf-8")
        for name in NAMES:
            self.assertIn(f"`--origin {name}`", text)
        for key in EXTENSIONS:
            self.assertIn(key.rpartition(".")[2], text)
