r"""Programs that use a database driver, patched, in tasks that are interrupted.

    python -m txgreenwsgi.monkey -m tests.integration.database_programs \
        PROGRAM DRIVER PORT

Not a test module: `test_databases.py` and `test_sqlalchemy.py` run it. Each program
asserts its result, checks it against the database's own statistics of its connections,
and prints "done".
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import random
import socket
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor

from txgreenwsgi import Cancelled, TimedOut, sleep, spawn, timeout, wait
from txgreenwsgi.pools import ConnectionPool, PoolTimeout, was_interrupted

from .drivers import (
    ACCOUNTS,
    DATABASES,
    EACH,
    Database,
    MariaDB,
    raised_by,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi import Task

# Programs


def at_once(database: Database) -> None:
    """Run fifty queries of one second each at the same time."""

    def slow() -> None:
        with closing(database.connect()) as connection:
            connection.cursor().execute(f"select {database.sleep}(1)")

    began = time.monotonic()
    for task in [spawn(slow) for _ in range(50)]:
        task.wait()
    print("seconds", time.monotonic() - began)


def interrupted(database: Database) -> None:
    """Interrupt queries by a timeout, a cancellation and a kill of the task."""
    open_at_end: list[bool] = []

    def slow() -> None:
        connection = database.connect()
        try:
            connection.cursor().execute(f"select {database.sleep}(120)")
        finally:
            open_at_end.append(database.is_open(connection))
            connection.close()

    def begin() -> Task[None]:
        task = spawn(slow)
        assert wait_until(lambda: database.connection_counts()[2] == 1), (
            database.connection_counts()
        )
        return task

    connection = database.connect()
    began = time.monotonic()
    try:
        with timeout(0.3):
            connection.cursor().execute(f"select {database.sleep}(120)")
    except (TimedOut, database.module.Error) as error:
        # PyMySQL raises its own error instead.
        assert was_interrupted(error), error
    else:
        raise AssertionError("the query was not timed out")
    assert time.monotonic() - began < 10
    assert wait_until(lambda: database.connection_counts()[2] == 0), (
        database.connection_counts()
    )
    assert database.is_open(connection) is not database.closes_when_interrupted
    if not database.closes_when_interrupted:
        connection.rollback()
        cursor = connection.cursor()
        cursor.execute("select 42")
        assert cursor.fetchone() == (42,)
    connection.close()

    task = begin()
    task.cancel()
    assert isinstance(raised_by(task), Cancelled)
    assert wait_until(lambda: database.connection_counts() == (0, 0, 0)), (
        database.connection_counts()
    )

    task = begin()
    reactor.callLater(0, task.kill)
    raised_by(task)
    assert wait_until(lambda: database.connection_counts() == (0, 0, 0)), (
        database.connection_counts()
    )
    assert open_at_end == [not database.closes_when_interrupted, False], open_at_end


def unanswered(database: Database) -> None:
    """Interrupt a query when the server cannot be reached for its cancellation."""
    longest = [0.0]
    accepted: list[socket.socket] = []

    def beat() -> None:
        while True:
            before = time.monotonic()
            sleep(0.02)
            longest[0] = max(longest[0], time.monotonic() - before)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one of the two peers has closed
            while data := source.recv(65536):
                target.sendall(data)

    def relay(listening: socket.socket) -> None:
        accepted.append(listening.accept()[0])
        server = socket.create_connection(("127.0.0.1", database.port))
        spawn(pump, accepted[0], server)
        spawn(pump, server, accepted[0])
        while True:
            accepted.append(listening.accept()[0])  # and no answer ever arrives

    with socket.create_server(("127.0.0.1", 0)) as listening:
        tasks = [spawn(relay, listening), spawn(beat)]
        connection = database.connect(
            port=listening.getsockname()[1], sslmode="disable", gssencmode="disable"
        )
        began = time.monotonic()
        longest[0] = 0.0
        try:
            with timeout(0.3):
                connection.cursor().execute("select pg_sleep(3)")
        except TimedOut:
            assert time.monotonic() - began < 12
        else:
            raise AssertionError("the query was not timed out")
        assert wait_until(lambda: len(accepted) == 2), "no cancellation request arrived"
        assert longest[0] < 2.5, f"the reactor was blocked for {longest[0]} seconds"
        if not connection.closed:
            # The query has ended on its own.
            connection.rollback()
            assert connection.execute("select 42").fetchone() == (42,)
            connection.close()
        for task in tasks:
            task.cancel()
            raised_by(task)


def interrupted_at_the_end(database: Database) -> None:
    """Time queries out at the moment at which they complete."""
    connection = database.connect(autocommit=True)
    cut = 0
    for number in range(200):
        query = f"select {database.sleep}({0.0085 + number % 10 * 0.0002})"
        try:
            with timeout(0.01):
                connection.execute(query)
        except TimedOut:
            cut += 1
        # A late cancellation request would end this query.
        connection.execute(f"select {database.sleep}(0.005)")
    connection.close()
    print("cut", cut)


def interrupted_connecting(database: Database) -> None:
    """Interrupt connection attempts: none leaves an open connection."""
    errors = []
    for number in range(60):
        try:
            with timeout(number * 0.0002):
                database.connect().close()
        except (TimedOut, database.module.Error) as error:  # noqa: PERF203
            # Its traceback refers to the frames of the connection attempt.
            errors.append(error)
    assert errors, "none was interrupted"
    assert wait_until(lambda: database.connection_counts()[0] == 0), (
        database.connection_counts()
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        try:
            database.connect(port=silent.getsockname()[1], **database.impatient)
        except database.module.OperationalError:
            assert 1 < time.monotonic() - began < 10
        else:
            raise AssertionError("the connection attempt did not time out")


def other_operations(database: Database) -> None:
    """Interrupt what else psycopg 3 does: copy, pipeline, cursors, notifications."""
    slow = "select g, pg_sleep(0.01) from generate_series(1, 5000) g"
    connection: list[Any] = []

    def copy() -> int:
        with connection[0].cursor().copy(f"copy ({slow}) to stdout") as copied:
            return sum(1 for _ in copied)

    def pipeline() -> None:
        with connection[0].pipeline():
            for _ in range(500):
                connection[0].execute("select pg_sleep(0.1)")

    def server_side() -> int:
        with connection[0].cursor(name="slow") as cursor:
            cursor.execute(slow)
            return sum(1 for _ in cursor)

    def many() -> None:
        connection[0].cursor().executemany("select pg_sleep(%s)", [(0.1,)] * 500)

    def streamed() -> int:
        return sum(1 for _ in connection[0].cursor().stream(slow))

    def nested() -> None:
        with connection[0].transaction(), connection[0].transaction():
            connection[0].execute("select pg_sleep(60)")

    def listen() -> int:
        connection[0].execute("listen news")
        connection[0].commit()
        return sum(1 for _ in connection[0].notifies())

    for use in (copy, pipeline, server_side, many, streamed, nested, listen):
        connection[:] = [database.connect()]
        began = time.monotonic()
        try:
            with timeout(0.3):
                use()
        except (TimedOut, database.module.Error) as error:
            assert was_interrupted(error), (use, error)
        else:
            raise AssertionError(f"{use} was not timed out")
        # The driver waits five seconds for a server that does not respond.
        assert time.monotonic() - began < 10, use
        assert wait_until(lambda: database.connection_counts()[2] == 0), (
            use,
            database.connection_counts(),
        )
        # It is closed, or usable again.
        if not connection[0].closed:
            connection[0].rollback()
            assert connection[0].execute("select 42").fetchone() == (42,), use
        connection[0].close()
        assert wait_until(lambda: database.connection_counts() == (0, 0, 0)), (
            use,
            database.connection_counts(),
        )

    with closing(database.connect(autocommit=True)) as listener:
        listener.execute("listen news")
        began = time.monotonic()
        assert list(listener.notifies(timeout=0.3)) == []
        assert 0.25 < time.monotonic() - began < 10
        talking = spawn(database.ask, "select pg_notify('news', 'hello')")
        found = list(listener.notifies(timeout=20, stop_after=1))
        assert [notify.payload for notify in found] == ["hello"]
        talking.wait()

    def close_soon() -> None:
        sleep(0.2)
        connection[0].close()

    # Closed by another task; the kernel reports that to no waiter.
    connection[:] = [database.connect()]
    spawn(close_soon)
    began = time.monotonic()
    try:
        connection[0].execute("select pg_sleep(30)")
    except database.module.OperationalError:
        assert time.monotonic() - began < 20
    else:
        raise AssertionError("the wait did not end")
    # The server was not notified.
    assert wait_until(lambda: database.connection_counts() == (0, 0, 0)), (
        database.connection_counts()
    )


def _move_money(database: Database, chance: random.Random, begin: Any) -> None:
    """Move one unit between two accounts, slowly; fail sometimes."""
    one, other = sorted(chance.sample(range(ACCOUNTS), 2))
    with begin() as execute:
        execute(f"select {database.sleep}(0.0{chance.randint(1, 4)})")
        execute(f"update account set money = money - 1 where id = {one}")
        if chance.random() < 0.2:
            raise LookupError("the shop is closed")
        execute(f"select {database.sleep}(0.01)")
        execute(f"update account set money = money + 1 where id = {other}")


def _move_much(database: Database, begin: Any, most_open: int) -> None:
    """Move money in 200 tasks, some interrupted, and check the sum of money."""
    chance = random.Random(7)
    ends: Counter[str] = Counter()
    most = [0]

    def watch() -> None:
        while True:
            most[0] = max(most[0], database.open_connections())
            sleep(0.005)

    def work() -> None:
        try:
            if chance.random() < 0.3:
                with timeout(chance.random() * 0.6):
                    _move_money(database, chance, begin)
            else:
                _move_money(database, chance, begin)
        except Exception as error:
            ends[type(error).__name__] += 1
        else:
            ends["moved"] += 1

    watcher = spawn(watch)
    tasks = [spawn(work) for _ in range(200)]
    for task in chance.sample(tasks, 50):
        sleep(0.005)
        if chance.random() < 0.3:
            reactor.callLater(0, task.kill)
        else:
            task.cancel()
    for task in tasks:
        raised_by(task)
    watcher.cancel()
    raised_by(watcher)
    database.stop_asking()  # it may have been interrupted
    print(dict(ends), "at most", most[0])
    for end in ("moved", "TimedOut", "Cancelled", "LookupError"):
        assert ends[end], f"none of them ended by {end}"
    assert PoolTimeout.__name__ not in ends, ends
    assert 1 < most[0] <= most_open, most

    def is_at_rest() -> bool:
        count, *in_use = database.connection_counts()
        return count <= most_open and in_use == [0, 0]

    assert wait_until(is_at_rest), database.connection_counts()
    assert database.ask("select sum(money) from account")[0] == ACCOUNTS * EACH


def transfers(database: Database) -> None:
    """Move money in 200 tasks through a pool of eight connections."""
    database.make_accounts()
    pool: ConnectionPool[Any] = ConnectionPool(
        database.connect,
        max_size=8,
        reset=lambda connection: connection.rollback(),
        name="shop",
    )

    @contextmanager
    def begin() -> Any:
        with pool.connection() as connection:
            with closing(connection.cursor()) as cursor:
                yield cursor.execute
            connection.commit()

    _move_much(database, begin, 8)
    found = pool.statistics()
    assert (found.in_use, found.waiting, found.timeouts) == (0, 0, 0), found
    # The server counts a connection until it has read the client's goodbye.
    assert wait_until(lambda: found.size == database.connection_counts()[0]), (
        found,
        database.connection_counts(),
    )
    pool.close()
    assert wait_until(lambda: database.connection_counts()[0] == 0), (
        database.connection_counts()
    )


def adbapi(database: Database) -> None:
    """Wait in tasks for `adbapi`, Twisted's pool of threads with connections."""
    from twisted.enterprise.adbapi import ConnectionPool as ThreadedPool

    database.make_accounts()
    pool: Any = ThreadedPool(
        database.module.__name__,
        cp_min=1,
        cp_max=5,
        host="127.0.0.1",
        port=database.port,
        user="postgres",
        dbname="postgres",
    )
    turns = [0]

    def turn() -> None:
        while True:
            turns[0] += 1
            sleep(0.01)

    def move(cursor: Any, number: int) -> int:
        cursor.execute("select pg_sleep(0.1)")
        cursor.execute(f"update account set money = money + 1 where id = {number}")
        if number == 3:
            raise LookupError("the shop is closed")
        return number

    def work(number: int) -> int:
        moved: int = wait(pool.runInteraction(move, number))
        return moved

    turner = spawn(turn)
    began = time.monotonic()
    tasks = [spawn(work, number) for number in range(ACCOUNTS)]
    ends = [raised_by(task) for task in tasks]
    seconds = time.monotonic() - began
    assert [type(end) for end in ends if end] == [LookupError], ends
    assert 0.2 <= seconds < 20, seconds
    assert turns[0] > 10, "the reactor was blocked"
    turner.cancel()
    raised_by(turner)
    rows = wait(pool.runQuery("select id from account where money > 100 order by id"))
    assert [row[0] for row in rows] == [0, 1, 2, 4, 5, 6, 7, 8, 9], rows
    assert database.count() <= 5, database.connection_counts()
    assert wait_until(lambda: database.connection_counts()[1:] == (0, 0)), (
        database.connection_counts()
    )
    try:
        wait(pool.runQuery("select pg_sleep(1)"), timeout=0.1)
    except TimedOut:
        pass
    else:
        raise AssertionError("the query was not timed out")
    # The thread completes its query, and the connection can be used again.
    assert wait(pool.runQuery("select 42"))[0][0] == 42
    pool.close()


def sqlalchemy_transfers(database: Database) -> None:
    """Move money in 200 tasks through SQLAlchemy's pool of five, overflow of three."""
    sqlalchemy: Any = importlib.import_module("sqlalchemy")
    database.make_accounts()
    engine = sqlalchemy.create_engine(
        database.url, creator=database.connect, pool_size=5, max_overflow=3
    )
    # SQLAlchemy logs an interrupted rollback with its traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

    @contextmanager
    def begin() -> Any:
        with engine.begin() as connection:
            yield lambda sql: connection.execute(sqlalchemy.text(sql))

    _move_much(database, begin, 8)
    assert engine.pool.checkedout() == 0, engine.pool.status()
    began = time.monotonic()
    most = 0

    def slow() -> None:
        nonlocal most
        with engine.connect() as connection:
            most = max(most, engine.pool.checkedout())
            connection.execute(sqlalchemy.text(f"select {database.sleep}(0.2)"))

    for task in [spawn(slow) for _ in range(16)]:
        task.wait(30)
    # Eight at a time: the pool has lost no slot.
    assert most == 8, most
    assert time.monotonic() - began >= 0.4, time.monotonic() - began
    engine.dispose()
    assert wait_until(lambda: database.connection_counts()[0] == 0), (
        database.connection_counts()
    )


def sqlalchemy_at_once(database: Database) -> None:
    """Use fifty sessions on ten connections: five rounds of 0.2 seconds."""
    sqlalchemy: Any = importlib.import_module("sqlalchemy")
    orm: Any = importlib.import_module("sqlalchemy.orm")
    database.make_accounts()
    engine = sqlalchemy.create_engine(
        database.url, creator=database.connect, pool_size=10, max_overflow=0
    )
    number_of = sqlalchemy.text(f"select {database.sleep}(0.2)")
    session_of = orm.scoped_session(orm.sessionmaker(engine))
    seen: list[int] = []

    def work() -> None:
        session = session_of()
        seen.append(id(session))
        session.execute(number_of)
        assert session is session_of(), "another task's session"
        session_of.remove()

    most = 0
    began = time.monotonic()
    tasks = [spawn(work) for _ in range(50)]
    while not all(task.done for task in tasks):
        most = max(most, database.count())
        sleep(0.02)
    for task in tasks:
        task.wait()
    seconds = time.monotonic() - began
    print("seconds", seconds, "at most", most)
    assert most == 10, most
    assert 1.0 <= seconds < 8.0, seconds
    assert wait_until(lambda: database.connection_counts()[1:] == (0, 0)), (
        database.connection_counts()
    )


def sqlalchemy_passes_on(database: Database) -> None:
    """Cancel a waiter as a connection is returned: the next waiter gets it."""
    sqlalchemy: Any = importlib.import_module("sqlalchemy")
    engine = sqlalchemy.create_engine(
        database.url, pool_size=1, max_overflow=0, pool_timeout=20
    )
    taken = engine.connect()

    def take() -> None:
        with engine.connect():
            pass

    first, second = spawn(take), spawn(take)
    sleep(0.1)
    first.cancel()
    taken.close()
    began = time.monotonic()
    # It may have received the connection before the cancellation.
    assert isinstance(raised_by(first), Cancelled | None)
    assert raised_by(second) is None
    assert time.monotonic() - began < 10, "it waited for the pool's time limit"


PROGRAMS: dict[str, Callable[[Database], None]] = {
    function.__name__: function
    for function in (
        adbapi,
        at_once,
        interrupted,
        interrupted_at_the_end,
        interrupted_connecting,
        sqlalchemy_at_once,
        sqlalchemy_passes_on,
        sqlalchemy_transfers,
        transfers,
        unanswered,
        other_operations,
    )
}


if __name__ == "__main__":
    database = DATABASES[sys.argv[2]](sys.argv[2], int(sys.argv[3]))
    if isinstance(database, MariaDB):
        database.make_accounts()
    PROGRAMS[sys.argv[1]](database)
    print("done")
