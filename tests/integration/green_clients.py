"""Programs that use real clients, patched, each many times at once.

    python -m txgreenwsgi.monkey green_clients.py NAME PORT

Not a test module: `test_green_clients.py` runs it. Each program does the same
slow thing `AT_ONCE` times in threads, which are tasks, and prints how long that
took; then it is timed out once and goes on.
"""

from __future__ import annotations

import http.server
import importlib
import socketserver
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 200
SLOW_SECONDS = 1.0


def at_once(work: Callable[[int], None], times: int = AT_ONCE) -> None:
    """Run `work(number)` in as many threads; print the seconds it took."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(times)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    print("seconds", time.monotonic() - began, flush=True)


class _Slow(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(SLOW_SECONDS)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def _http_server() -> tuple[_Server, str]:
    server = _Server(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def requests(port: int) -> None:
    """Requests and urllib3, with a session for each thread."""
    client: Any = importlib.import_module("requests")
    server, url = _http_server()

    def work(number: int) -> None:
        assert client.get(f"{url}/{number}", timeout=30).text == f"/{number}"

    at_once(work)
    session = client.Session()
    try:
        session.get(url, timeout=0.1)
    except client.exceptions.ReadTimeout:
        pass
    else:
        raise AssertionError("no timeout")
    assert session.get(f"{url}/after", timeout=30).text == "/after"
    server.shutdown()


def http_client(port: int) -> None:
    """http.client itself."""
    import http.client

    server, url = _http_server()
    host = url.removeprefix("http://")

    def work(number: int) -> None:
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("GET", f"/{number}")
        assert connection.getresponse().read() == b"/%d" % number
        connection.close()

    at_once(work)
    server.shutdown()


def redis(port: int) -> None:
    """redis-py: each waits on a list that nobody fills."""
    client: Any = importlib.import_module("redis")
    pool = client.Redis(port=port, socket_timeout=30, max_connections=AT_ONCE)

    def work(number: int) -> None:
        assert pool.blpop(f"empty-{number}", timeout=SLOW_SECONDS) is None
        pool.set(f"key-{number}", number)
        assert pool.get(f"key-{number}") == b"%d" % number

    at_once(work)
    short = client.Redis(port=port, socket_timeout=0.1)
    try:
        short.blpop("empty", timeout=5)
    except client.exceptions.TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    assert short.ping()


def memcached(port: int) -> None:
    """pymemcache: nothing is slow there, so it is only right."""
    client: Any = importlib.import_module("pymemcache.client.base")

    def work(number: int) -> None:
        cache = client.Client(("127.0.0.1", port), timeout=30)
        cache.set(f"key-{number}", f"{number}")
        time.sleep(SLOW_SECONDS)
        assert cache.get(f"key-{number}") == b"%d" % number
        cache.close()

    at_once(work)


def _database(connect: Callable[[], Any], sleep: str) -> None:
    def work(number: int) -> None:
        connection = connect()
        cursor = connection.cursor()
        cursor.execute(sleep)
        cursor.execute(f"SELECT {number}")
        assert cursor.fetchone()[0] == number
        connection.close()

    at_once(work)


def pymysql(port: int) -> None:
    """PyMySQL against MariaDB."""
    client: Any = importlib.import_module("pymysql")

    def connect(**more: Any) -> Any:
        # A TLS context for each connection would cost more than the rest.
        return client.connect(
            host="127.0.0.1", port=port, user="root", ssl_disabled=True, **more
        )

    _database(connect, f"SELECT SLEEP({SLOW_SECONDS})")
    connection = connect(read_timeout=0.2)
    try:
        connection.cursor().execute("SELECT SLEEP(5)")
    except client.err.OperationalError:
        pass
    else:
        raise AssertionError("no timeout")
    connection.ping(reconnect=True)


def psycopg(port: int) -> None:
    """Psycopg 3 against PostgreSQL."""
    client: Any = importlib.import_module("psycopg")
    _database(
        lambda: client.connect(host="127.0.0.1", port=port, user="postgres"),
        f"SELECT pg_sleep({SLOW_SECONDS})",
    )


def psycopg2(port: int) -> None:
    """psycopg2 against PostgreSQL, by its wait callback."""
    from txgreenwsgi import monkey

    client: Any = importlib.import_module("psycopg2")
    monkey.patch_psycopg2()
    _database(
        lambda: client.connect(host="127.0.0.1", port=port, user="postgres"),
        f"SELECT pg_sleep({SLOW_SECONDS})",
    )


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
    print("done", flush=True)
