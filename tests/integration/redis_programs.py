"""Programs that use redis-py, patched, in tasks of which some are interrupted.

    python -m txgreenwsgi.monkey redis_programs.py PROGRAM PORT

Not a test module: `test_redis.py` runs it. Each program asserts its result and prints
"done".
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from txgreenwsgi import Cancelled, ClientDisconnected, TimedOut, sleep, spawn, timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi import Task

redis: Any = importlib.import_module("redis")
AT_ONCE = 200


def clients_of(client: Any) -> int:
    """Return the server's number of connections, including that of the query."""
    return len(client.client_list())


def ended(task: Task[Any]) -> BaseException | None:
    """Return the name of the exception that ended a task, or "done"."""
    try:
        task.wait(60)
    except Exception as error:
        return error
    return None


def use_at_once(client: Any, most: int) -> None:
    """Run 200 tasks with a session each and interrupt a third of them in a wait."""
    chance = random.Random(3)
    ends: Counter[str] = Counter()
    watch = redis.Redis(port=client.connection_pool.connection_kwargs["port"])
    seen = [0]

    def look() -> None:
        while True:
            seen[0] = max(seen[0], clients_of(watch) - 1)
            sleep(0.02)

    def session(number: int) -> None:
        key = f"session:{number}"
        for turn in range(20):
            client.set(key, json.dumps([number, turn]), ex=60)
            # Meanwhile the server answers the queries of other tasks.
            answers = (
                client.get(key),
                client.echo(f"{number} {turn}"),
                client.incrby(f"count:{number}", 1),
            )
            assert json.loads(answers[0]) == [number, turn], answers
            assert answers[1] == f"{number} {turn}".encode(), answers
            assert answers[2] == turn + 1, answers
            if number % 3 == 0 and turn == 10:
                client.blpop(f"nothing:{number}", timeout=30)

    begun: set[int] = set()

    def work(number: int) -> None:
        begun.add(number)
        try:
            if number % 6 == 0:
                with timeout(2 + chance.random()):
                    session(number)
            else:
                session(number)
        except (Cancelled, ClientDisconnected, TimedOut) as error:
            ends[type(error).__name__] += 1
        except redis.TimeoutError:
            # Made from a `TimedOut` that was raised while the task connected.
            if number % 6:
                raise
            ends["TimedOut"] += 1
        else:
            ends["whole"] += 1

    looking = spawn(look)
    began = time.monotonic()
    tasks = [spawn(work, number) for number in range(AT_ONCE)]
    sleep(0.5)
    while not all(task.done for task in tasks):
        sleep(0.3)
        # A task that is cancelled before it has begun would end by the exception.
        waiting = [n for n in begun if n % 6 == 3 and not tasks[n].done]
        for number in waiting:
            if number % 12 == 3:
                tasks[number].cancel()
            else:
                tasks[number].interrupt(ClientDisconnected("the client has gone"))
    for task in tasks:
        assert ended(task) is None, ended(task)
    print("seconds", time.monotonic() - began, dict(ends), "at most", seen[0])
    assert sum(ends.values()) == AT_ONCE, ends
    for end in ("whole", "TimedOut", "Cancelled", "ClientDisconnected"):
        assert ends[end], f"none ended by {end}"
    assert 1 < seen[0] <= most, seen
    looking.cancel()
    ended(looking)
    # A reply that one task left unread is not read by the next.
    values = {f"key:{number}": str(number).encode() for number in range(50)}
    client.mset(values)
    for task in [spawn(client.get, key) for key in values]:
        assert task.wait() in values.values()
    for key, value in values.items():
        assert client.get(key) == value
    assert client.ping() is True


def pool(port: int) -> None:
    """Use redis-py's default pool, which raises an error when all are in use."""
    use_at_once(redis.Redis(port=port, max_connections=AT_ONCE), AT_ONCE)


def blocking_pool(port: int) -> None:
    """Use a blocking pool of forty connections.

    Some tasks keep a connection while they wait for something else.
    """
    forty = redis.BlockingConnectionPool(port=port, max_connections=40, timeout=60)
    use_at_once(redis.Redis(connection_pool=forty), 40)


def cache(port: int) -> None:
    """Use a cache: the first task that misses a key computes it, the others find it."""
    ten = redis.BlockingConnectionPool(port=port, max_connections=10, timeout=60)
    client = redis.Redis(connection_pool=ten, decode_responses=True)
    computed: Counter[int] = Counter()

    def cached(number: int) -> str:
        key = f"page:{number}"
        with client.pipeline(transaction=True) as pipeline:
            pipeline.get(key)
            pipeline.incr(f"asked:{number}")
            found, _ = pipeline.execute()
        if found is None:
            with client.lock(f"lock:{number}", timeout=10):
                found = client.get(key)
                if found is None:
                    computed[number] += 1
                    sleep(0.05)
                    found = b"page %d" % number
                    client.set(key, found)
        text = found if isinstance(found, str) else found.decode()
        assert text == f"page {number}", (text, number)
        return text

    tasks = [spawn(cached, number % 20) for number in range(AT_ONCE)]
    assert {task.wait() for task in tasks} == {f"page {n}" for n in range(20)}
    assert computed == dict.fromkeys(range(20), 1), computed
    assert sum(int(client.get(f"asked:{n}") or 0) for n in range(20)) == AT_ONCE


def published(port: int) -> None:
    """Deliver messages to every listening task until each is interrupted."""
    client = redis.Redis(port=port)
    heard: Counter[int] = Counter()

    def listen(number: int) -> None:
        with client.pubsub() as pubsub:
            pubsub.subscribe("news")
            for message in pubsub.listen():
                heard[number] += message["type"] == "message"

    tasks = [spawn(listen, number) for number in range(50)]
    while client.pubsub_numsub("news")[0][1] < 50:
        sleep(0.02)
    for _ in range(10):
        client.publish("news", "hello")
    until = time.monotonic() + 60
    while sum(heard.values()) < 500 and time.monotonic() < until:
        sleep(0.02)
    assert heard == dict.fromkeys(range(50), 10), heard
    for task in tasks:
        task.cancel()
    for task in tasks:
        assert isinstance(ended(task), Cancelled), ended(task)
    assert client.pubsub_numsub("news")[0][1] == 0
    assert client.ping() is True


PROGRAMS: dict[str, Callable[[int], None]] = {
    function.__name__: function for function in (blocking_pool, cache, pool, published)
}


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](int(sys.argv[2]))
    print("done")
