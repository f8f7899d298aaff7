"""Clients that send requests while their servers restart.

`python -m tests.integration.restart_clients [--tls] KEPT CLOSING PORT...` runs clients
that keep their connections alive and clients that do not, until its standard input
ends. Then it prints the number of answers and the failures as JSON. A request without a
complete response is a failure, and nothing is sent twice. A connection that one port
refuses is made to another, as a load balancer does.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import sys
import threading
import time
from typing import Any

_LOOPBACK = "127.0.0.1"
_PATHS = ("/", "/", "/wait", "/stream")

#: Timeout of an answer in seconds.
_SECONDS = 30.0

#: Mean pause between two requests, in seconds.
_PAUSE_SECONDS = 0.01

#: Rarely, a client pauses for so many seconds. Less than the default of --drain-idle.
_LONG_PAUSE_SECONDS = 1.0
_LONG_PAUSES = 0.005


class Clients:
    """Client threads and their results.

    Args:
        ports: TCP ports of equivalent servers.
        tls: whether they speak TLS.

    Attributes:
        answered: number of complete responses.
        failures: a description of each other request.
        stopping: set at the end.
    """

    def __init__(self, ports: list[int], tls: bool) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self._ports = ports
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._lock = threading.Lock()

    def run(self, keeps_alive: bool) -> None:
        """Send one request after the other."""
        chance = random.Random()
        connection: http.client.HTTPConnection | None = None
        requests = 0
        while not self.stopping.is_set():
            path = chance.choice(_PATHS)
            requests += 1
            begun = time.monotonic()
            age = "a new connection"
            try:
                if connection is None:
                    connection = self._connected(chance)
                else:
                    age = "a connection in use"
                fields = {} if keeps_alive else {"Connection": "close"}
                connection.request("GET", path, headers=fields)
                response = connection.getresponse()
                body = response.read()
                if (response.status, body) != (200, path.encode()):
                    raise AssertionError(f"{response.status} {body!r}")
                closes = response.will_close
            except Exception as error:
                passed = time.monotonic() - begun
                with self._lock:
                    self.failures.append(
                        f"{path} on {age}, after {passed:.3f} s: {error!r}"
                    )
                closes = True
            else:
                with self._lock:
                    self.answered += 1
            if closes and connection is not None:
                connection.close()
                connection = None
            if chance.random() < _LONG_PAUSES:
                self.stopping.wait(_LONG_PAUSE_SECONDS)
            else:
                time.sleep(chance.expovariate(1 / _PAUSE_SECONDS))
        if connection is not None:
            connection.close()

    def _connected(self, chance: random.Random) -> http.client.HTTPConnection:
        ports = chance.sample(self._ports, len(self._ports))
        for port in ports:
            connection: http.client.HTTPConnection
            if self._context is None:
                connection = http.client.HTTPConnection(_LOOPBACK, port, _SECONDS)
            else:
                connection = http.client.HTTPSConnection(
                    _LOOPBACK, port, timeout=_SECONDS, context=self._context
                )
            try:
                connection.connect()
            except ConnectionRefusedError:
                continue
            return connection
        raise AssertionError("every port refuses the connection")


def main(arguments: list[str]) -> None:
    """Run the clients until the end of standard input."""
    tls = arguments[0] == "--tls"
    kept, closing, *ports = (int(each) for each in arguments[tls:])
    clients = Clients(ports, tls)
    threads = [
        threading.Thread(target=clients.run, args=(number < kept,))
        for number in range(kept + closing)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    clients.stopping.set()
    for thread in threads:
        thread.join()
    result: dict[str, Any] = {
        "answered": clients.answered,
        "failures": clients.failures,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
