"""The bank's pages: ordinary Django views.

They know Django. What they wait for is a database, or `time.sleep`, but for one
that is for a server which patches nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.cache import cache
from django.db import connection, connections, transaction
from django.db.models import F, Sum
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse

from txgreenwsgi import sleep
from txgreenwsgi.django import pool_statistics

from .models import Account, Move

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from django.http import HttpRequest

ACCOUNTS = 100
BALANCE = 1000


class NotToBe(Exception):
    """What a move fails with, if it is asked to."""


def _sleep_in_database(seconds: float) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_sleep(%s)", [seconds])
        elif connection.vendor == "mysql":
            cursor.execute("SELECT SLEEP(%s)", [seconds])
        else:
            time.sleep(seconds)


@transaction.non_atomic_requests  # type: ignore[untyped-decorator]
def prepare(request: HttpRequest) -> HttpResponse:
    """Make the tables, and accounts with some money."""
    with connection.schema_editor() as editor:
        for model in (Account, Move):
            editor.create_model(model)
    Account.objects.bulk_create(
        Account(id=number, balance=BALANCE) for number in range(1, ACCOUNTS + 1)
    )
    return HttpResponse("prepared")


def slow(request: HttpRequest) -> HttpResponse:
    """Let the database take its time."""
    _sleep_in_database(float(request.GET.get("seconds", "1")))
    return HttpResponse("slept")


def move(request: HttpRequest) -> HttpResponse:
    """Move money; `sleep` seconds in the midst of it, then fail if told to.

    `nested` does half of it in a savepoint that is rolled back.
    """
    numbers = sorted((int(request.GET["source"]), int(request.GET["target"])))
    amount = int(request.GET["amount"])
    seconds = float(request.GET.get("sleep", "0"))
    with transaction.atomic():
        # In the order of their numbers, else two moves wait for each other.
        found = {
            account.pk: account
            for account in Account.objects.select_for_update()
            .filter(pk__in=numbers)
            .order_by("pk")
        }
        source = found[int(request.GET["source"])]
        target = found[int(request.GET["target"])]
        Account.objects.filter(pk=source.pk).update(balance=F("balance") - amount)
        if seconds:
            _sleep_in_database(seconds)
        if "nested" in request.GET:
            try:
                with transaction.atomic():
                    Account.objects.filter(pk=target.pk).update(balance=0)
                    raise NotToBe
            except NotToBe:
                pass
        if "fail" in request.GET:
            raise NotToBe
        Account.objects.filter(pk=target.pk).update(balance=F("balance") + amount)
        Move.objects.create(source=source, target=target, amount=amount)
    return HttpResponse("moved")


def sums(request: HttpRequest) -> HttpResponse:
    """What there is, and what the moves say there should be."""
    balances = {each.pk: each.balance for each in Account.objects.all()}
    expected = dict.fromkeys(balances, BALANCE)
    for each in Move.objects.all():
        expected[each.source_id] -= each.amount
        expected[each.target_id] += each.amount
    return JsonResponse(
        {
            "total": Account.objects.aggregate(total=Sum("balance"))["total"],
            "as_told": balances == expected,
            "moves": Move.objects.count(),
        }
    )


def listing(request: HttpRequest) -> StreamingHttpResponse:
    """All accounts, read from the database while they are sent, as they are read."""
    seconds = float(request.GET.get("sleep", "0"))

    def lines() -> Iterator[str]:
        with transaction.atomic():
            for account in Account.objects.order_by("pk").iterator(chunk_size=2):
                yield f"{account.pk} {account.balance}\n"
                time.sleep(seconds)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def later(request: HttpRequest) -> HttpResponse:
    """Be `async`, wait as such, and use the database in between."""
    before = await Account.objects.acount()
    await asyncio.sleep(float(request.GET.get("sleep", "0")))
    account = await Account.objects.aget(pk=1)
    return JsonResponse({"accounts": before, "balance": account.balance})


async def later_stream(request: HttpRequest) -> StreamingHttpResponse:
    """Stream what comes of an asynchronous iterator."""

    async def lines() -> AsyncIterator[str]:
        async for account in Account.objects.order_by("pk")[:3]:
            await asyncio.sleep(0.01)
            yield f"{account.pk}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def visit(request: HttpRequest) -> HttpResponse:
    """Keep who this is in the session, and count the visits there and in the cache."""
    name = request.session.setdefault("name", request.GET["name"])
    request.session["visits"] = request.session.get("visits", 0) + 1
    cache.add(f"visits of {name}", 0)
    counted = cache.incr(f"visits of {name}")
    time.sleep(0.02)
    return JsonResponse([name, request.session["visits"], counted], safe=False)


def spend(request: HttpRequest) -> HttpResponse:
    """Take money away, then fail: with ATOMIC_REQUESTS it is not gone."""
    Account.objects.filter(pk=1).update(balance=F("balance") - 1)
    if "sleep" in request.GET:
        _sleep_in_database(float(request.GET["sleep"]))
    if "fail" in request.GET:
        raise NotToBe
    return HttpResponse("spent")


def depth(request: HttpRequest) -> HttpResponse:
    """Wait in a transaction; how many there are around this, before and then."""
    before = len(connection.atomic_blocks)
    with transaction.atomic():
        sleep(0.3)
        return JsonResponse([before, len(connection.atomic_blocks)], safe=False)


@transaction.non_atomic_requests  # type: ignore[untyped-decorator]
def pool(request: HttpRequest) -> HttpResponse:
    """What the pools say of themselves."""
    return JsonResponse({k: asdict(v) for k, v in pool_statistics().items()})


def state(request: HttpRequest) -> HttpResponse:
    """Is this request's connection in a transaction, and is it new?"""
    inside: dict[str, Any] = {
        "in_atomic_block": connection.in_atomic_block,
        "opened": [one.alias for one in connections.all(initialized_only=True)],
        "connected": connection.connection is not None,
    }
    return JsonResponse(inside)
