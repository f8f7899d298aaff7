"""A table of blocking clients, each of which waits for its server.

It knows the clients' interfaces, and nothing of how their waits are made green. Each is
used as its documentation shows, with its own pool.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["CLIENTS", "Client"]

LOOPBACK = "127.0.0.1"
#: Longer than any answer takes.
PATIENCE_SECONDS = 30.0


class Client:
    """One client object or pool, and the question asked of it.

    Args:
        ports: of the servers, by name.
        limit: the client's own timeout of an answer, in seconds.
    """

    #: Module that is imported on first use; "" for the standard library.
    module = ""
    #: Whether the client has a per-response timeout.
    has_limit = True
    #: Whether many tasks may use the one object at the same time.
    is_pool = False
    #: Maximum number of connections of the pool, if it has one. A question waits for a
    #: free one.
    pool_size = 200
    #: Whether the client treats an interruption as a failure and tries again.
    asks_again = False

    def __init__(self, ports: dict[str, Any], limit: float = PATIENCE_SECONDS) -> None:
        self.ports = ports
        self.limit = limit
        self.imported: Any = importlib.import_module(self.module or "socket")
        self.open()

    def open(self) -> None:
        """Connect, or create the pool."""

    def ask(self, number: int, seconds: float) -> str:
        """Return the number that the server sends after `seconds`."""
        raise NotImplementedError

    def busy(self) -> int:
        """Return the number of the pool's connections that are in use, if it counts."""
        return 0

    def close(self) -> None:
        """Close all connections, in any state."""


def _queue_busy(pool: Any) -> int:
    # A connection in use has left a place of the queue empty.
    return int(pool.maxsize - pool.qsize())


def _urllib3_busy(manager: Any) -> int:
    pools = [manager.pools[key] for key in manager.pools.keys()]  # noqa: SIM118
    return sum(_queue_busy(pool.pool) for pool in pools)


class HttpClient(Client):
    """http.client: one persistent connection."""

    module = "http.client"

    def open(self) -> None:
        self._connection = self.imported.HTTPConnection(
            LOOPBACK, self.ports["http"], timeout=self.limit
        )

    def ask(self, number: int, seconds: float) -> str:
        self._connection.request("GET", f"/{number}-{seconds}")
        with self._connection.getresponse() as response:
            return str(response.read().decode())

    def close(self) -> None:
        self._connection.close()


class Urllib3(Client):
    """urllib3: a pool manager."""

    module = "urllib3"
    is_pool = True
    scheme = "http"

    def open(self) -> None:
        self._pool = self.imported.PoolManager(
            maxsize=self.pool_size,
            block=True,
            retries=False,
            ca_certs=self.ports["certificate"],
        )

    def ask(self, number: int, seconds: float) -> str:
        url = f"{self.scheme}://{LOOPBACK}:{self.ports[self.scheme]}"
        response = self._pool.request(
            "GET", f"{url}/{number}-{seconds}", timeout=self.limit
        )
        return str(response.data.decode())

    def busy(self) -> int:
        return _urllib3_busy(self._pool)

    def close(self) -> None:
        self._pool.clear()


class Urllib3Tls(Urllib3):
    """urllib3 over https."""

    scheme = "https"


class Requests(Client):
    """Requests: a session."""

    module = "requests"
    is_pool = True
    scheme = "http"

    def open(self) -> None:
        self._session = self.imported.Session()
        adapter = self.imported.adapters.HTTPAdapter(
            pool_maxsize=self.pool_size, pool_block=True
        )
        self._session.mount(f"{self.scheme}://", adapter)

    def ask(self, number: int, seconds: float) -> str:
        url = f"{self.scheme}://{LOOPBACK}:{self.ports[self.scheme]}"
        response = self._session.get(
            f"{url}/{number}-{seconds}",
            timeout=self.limit,
            verify=self.ports["certificate"],
        )
        return str(response.text)

    def busy(self) -> int:
        return _urllib3_busy(self._session.get_adapter(f"{self.scheme}://").poolmanager)

    def close(self) -> None:
        self._session.close()


class RequestsTls(Requests):
    """Requests over https."""

    scheme = "https"


class Httpx(Client):
    """HTTPX: a client and its pool."""

    module = "httpx"
    is_pool = True

    def open(self) -> None:
        self._client = self.imported.Client(
            limits=self.imported.Limits(max_connections=self.pool_size),
            timeout=self.limit,
            trust_env=False,
        )

    def ask(self, number: int, seconds: float) -> str:
        url = f"http://{LOOPBACK}:{self.ports['http']}/{number}-{seconds}"
        return str(self._client.get(url).text)

    def close(self) -> None:
        self._client.close()


class Smtplib(Client):
    """smtplib: one connection. An interruption during a command closes it."""

    module = "smtplib"

    def open(self) -> None:
        self._smtp = self.imported.SMTP(
            LOOPBACK, self.ports["smtp"], local_hostname="here", timeout=self.limit
        )

    def ask(self, number: int, seconds: float) -> str:
        try:
            self._smtp.ehlo_or_helo_if_needed()
            self._smtp.rset()
            self._smtp.mail("me@here")
            _, answer = self._smtp.rcpt(f"{number}-{seconds}@there")
        except BaseException:
            self._smtp.close()
            raise
        return str(answer.decode())

    def close(self) -> None:
        self._smtp.close()


class Ftplib(Client):
    """ftplib: one connection. An interruption during a command closes it."""

    module = "ftplib"

    def open(self) -> None:
        self._ftp = self.imported.FTP(timeout=self.limit)
        self._ftp.connect(LOOPBACK, self.ports["ftp"])
        self._ftp.login()

    def ask(self, number: int, seconds: float) -> str:
        pieces: list[bytes] = []
        try:
            self._ftp.retrbinary(f"RETR {number}-{seconds}", pieces.append)
        except BaseException:
            self._ftp.close()
            raise
        return b"".join(pieces).decode()

    def close(self) -> None:
        self._ftp.close()


class XmlRpc(Client):
    """xmlrpc.client: a proxy with a persistent connection."""

    module = "xmlrpc.client"
    has_limit = False

    def open(self) -> None:
        self._proxy = self.imported.ServerProxy(
            f"http://{LOOPBACK}:{self.ports['xmlrpc']}"
        )

    def ask(self, number: int, seconds: float) -> str:
        return str(self._proxy.echo(number, seconds))

    def close(self) -> None:
        self._proxy("close")()


class Dnspython(Client):
    """dnspython: a resolver."""

    module = "dns.resolver"
    is_pool = True
    asks_again = True

    def open(self) -> None:
        self._resolver = self.imported.Resolver(configure=False)
        self._resolver.nameservers = [LOOPBACK]
        self._resolver.port = self.ports["dns"]
        self._resolver.timeout = self._resolver.lifetime = self.limit

    def ask(self, number: int, seconds: float) -> str:
        answer = self._resolver.resolve(f"{number}-{seconds}.slow", "TXT", search=False)
        return str(answer[0]).strip('"')


class Redis(Client):
    """redis-py: a client and its pool."""

    module = "redis"
    is_pool = True
    asks_again = True

    def open(self) -> None:
        pool = self.imported.BlockingConnectionPool(
            host=LOOPBACK,
            port=self.ports["redis"],
            socket_timeout=self.limit,
            max_connections=self.pool_size,
            timeout=PATIENCE_SECONDS,
            # By default it tries three times, seconds apart.
            retry=self.imported.retry.Retry(self.imported.backoff.NoBackoff(), 1),
        )
        self._redis = self.imported.Redis.from_pool(pool)

    def ask(self, number: int, seconds: float) -> str:
        if seconds:
            self._redis.blpop(f"nobody-fills-{number}", timeout=seconds)
        return str(self._redis.echo(str(number)).decode())

    def busy(self) -> int:
        return _queue_busy(self._redis.connection_pool.pool)

    def close(self) -> None:
        self._redis.close()


class Memcached(Client):
    """pymemcache: a pool. A delaying proxy stands in front of memcached."""

    module = "pymemcache.client.base"
    is_pool = True

    def open(self) -> None:
        self._cache = self.imported.PooledClient(
            (LOOPBACK, self.ports["memcached"]),
            max_pool_size=self.pool_size,
            timeout=self.limit,
            connect_timeout=PATIENCE_SECONDS,
            default_noreply=False,
        )

    def ask(self, number: int, seconds: float) -> str:
        self._cache.set(f"{number}-{seconds}", str(number))
        return str(self._cache.get(f"{number}-{seconds}").decode())

    def busy(self) -> int:
        return len(self._cache.client_pool.used)

    def close(self) -> None:
        self._cache.close()


class PyMySQL(Client):
    """PyMySQL: one connection."""

    module = "pymysql"

    def open(self) -> None:
        self._connection = self.imported.connect(
            host=LOOPBACK,
            port=self.ports["mariadb"],
            user="root",
            read_timeout=self.limit,
            # A TLS context for each connection would cost more than the rest.
            ssl_disabled=True,
        )

    def ask(self, number: int, seconds: float) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT SLEEP(%s), %s", (seconds, number))
            return str(cursor.fetchone()[1])

    def close(self) -> None:
        if self._connection.open:
            self._connection.close()


class Psycopg(Client):
    """Psycopg 3: one connection."""

    module = "psycopg"
    has_limit = False

    def open(self) -> None:
        self._connection = self.imported.connect(
            host=LOOPBACK, port=self.ports["postgresql"], user="postgres"
        )

    def ask(self, number: int, seconds: float) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s), %s", (seconds, number))
            return str(cursor.fetchone()[1])

    def close(self) -> None:
        self._connection.close()


class Psycopg2(Psycopg):
    """psycopg2: one connection that waits through its wait callback."""

    module = "psycopg2"


class SQLAlchemy(Client):
    """SQLAlchemy: an engine and its pool, on Psycopg 3."""

    module = "sqlalchemy"
    is_pool = True
    has_limit = False

    def open(self) -> None:
        self._engine = self.imported.create_engine(
            f"postgresql+psycopg://postgres@{LOOPBACK}:{self.ports['postgresql']}",
            pool_size=self.pool_size,
            max_overflow=0,
        )

    def ask(self, number: int, seconds: float) -> str:
        sql = self.imported.text("SELECT pg_sleep(:seconds), :number")
        with self._engine.connect() as connection:
            row = connection.execute(sql, {"seconds": seconds, "number": number}).one()
        return str(row[1])

    def busy(self) -> int:
        return int(self._engine.pool.checkedout())

    def close(self) -> None:
        self._engine.dispose()


CLIENTS: dict[str, type[Client]] = {
    "http.client": HttpClient,
    "urllib3": Urllib3,
    "urllib3 over https": Urllib3Tls,
    "requests": Requests,
    "requests over https": RequestsTls,
    "httpx": Httpx,
    "smtplib": Smtplib,
    "ftplib": Ftplib,
    "xmlrpc.client": XmlRpc,
    "dnspython": Dnspython,
    "redis": Redis,
    "pymemcache": Memcached,
    "pymysql": PyMySQL,
    "psycopg": Psycopg,
    "psycopg2": Psycopg2,
    "sqlalchemy": SQLAlchemy,
}
