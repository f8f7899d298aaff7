"""WSGI beside other Twisted services: a chat by TCP and web, and twisted.web."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from .processes import ServerProcess, start_example


class ChatTests(SynchronousTestCase):
    """`services.tac`: one process, two services, no threads."""

    def start(self) -> ServerProcess:
        """Start the chat; its first port is for lines, its second for HTTP."""
        server = start_example(self, "services.tac", "CHAT_ENDPOINT", "WEB_ENDPOINT")
        server.ports.reverse()  # `fetch` uses the first
        return server

    def test_both_ways(self) -> None:
        """A message sent by TCP appears in a browser, and the reverse."""
        server = self.start()
        web, chat = server.ports
        with server.connect(chat) as telnet, server.connect(web) as browser:
            browser.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertIn(b"text/event-stream", browser.read_until(b": welcome\n\n"))
            telnet.read_until(b"Your name?\n")
            telnet.send(b"Ann\r\n")
            browser.read_until(b'data: "Ann: has joined"\n\n')
            telnet.read_until(b"Ann: has joined\n")

            telnet.send("h\u00e9llo <web>\r\n".encode())
            browser.read_until(b'data: "Ann: h\\u00e9llo <web>"\n\n')

            form = urlencode({"name": "Bob", "text": "hello, telnet"})
            answer = server.fetch("/say", "POST", form)
            self.assertEqual((answer.status, answer.headers["Location"]), (303, "./"))
            telnet.read_until(b"Bob: hello, telnet\n")
            browser.read_until(b'data: "Bob: hello, telnet"\n\n')
            self.assertIn("Ann: h\u00e9llo &lt;web&gt;", server.fetch("/").text)

    def test_stops_with_a_browser_listening(self) -> None:
        """An endless response does not keep the process from stopping."""
        server = self.start()
        with server.connect() as browser:
            browser.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            browser.read_until(b": welcome\n\n")
            server.ask_to_stop()
            server.wait_ended()


class TwistedWebTests(SynchronousTestCase):
    """`twisted_web.tac`: applications among resources."""

    def test_tree(self) -> None:
        """An application at the root, a resource beside it, another below a prefix."""
        server = start_example(self, "twisted_web.tac", "WEB_ENDPOINT")
        for path, text in [
            ("/", "SCRIPT_NAME='' PATH_INFO='/'\n"),
            ("/else/where?a=b", "SCRIPT_NAME='' PATH_INFO='/else/where'\n"),
            ("/clockwork", "SCRIPT_NAME='' PATH_INFO='/clockwork'\n"),
        ]:
            self.assertEqual(server.fetch(path).text, text)
        self.assertRegex(server.fetch("/clock").text, r"\A\d\d:\d\d:\d\d\n\Z")
        page = server.fetch("/flask/json")
        self.assertEqual(json.loads(page.body)["path"], "/json")
        slept = server.fetch("/flask/sleep?seconds=0.1")
        self.assertEqual(json.loads(slept.body)["slept"], 0.1)
        streamed = server.fetch("/flask/stream?lines=3")
        self.assertEqual(len(streamed.text.splitlines()), 3)
        posted = server.fetch(
            "/flask/json", "POST", "[1]", {"Content-Type": "application/json"}
        )
        self.assertEqual(json.loads(posted.body)["received"], [1])
        server.ask_to_stop()
        server.wait_ended()
