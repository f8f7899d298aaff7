"""The views of the bank: ordinary Django.

They wait for a database or by `time.sleep`, except `depth`, which is for a server that
patches nothing.
"""

from __future__ import annotations

import asyncio
import os
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


class RequestedFailure(Exception):
    """Raised by views that are asked to fail."""


def _sleep(seconds: float) -> None:
    """Sleep in a query, or by time.sleep: for SQLite, and if BANK_SLEEPS says so."""
    if os.environ.get("BANK_SLEEPS") == "clock":
        time.sleep(seconds)
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_sleep(%s)", [seconds])
        elif connection.vendor == "mysql":
            cursor.execute("SELECT SLEEP(%s)", [seconds])
        else:
            time.sleep(seconds)


@transaction.non_atomic_requests  # type: ignore[untyped-decorator]
def prepare(request: HttpRequest) -> HttpResponse:
    """Create the tables and the accounts."""
    with connection.schema_editor() as editor:
        for model in (Account, Move):
            editor.create_model(model)
    Account.objects.bulk_create(
        Account(id=number, balance=BALANCE) for number in range(1, ACCOUNTS + 1)
    )
    return HttpResponse("prepared")


def slow(request: HttpRequest) -> HttpResponse:
    """Sleep in the database."""
    _sleep(float(request.GET.get("seconds", "1")))
    return HttpResponse("slept")


def move(request: HttpRequest) -> HttpResponse:
    """Transfer money; sleep for `sleep` seconds within, fail if `fail` is given.

    With `nested`, a savepoint within is rolled back.
    """
    numbers = sorted((int(request.GET["source"]), int(request.GET["target"])))
    amount = int(request.GET["amount"])
    seconds = float(request.GET.get("sleep", "0"))
    with transaction.atomic():
        # Lock in the order of the keys, else two transfers deadlock.
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
            _sleep(seconds)
        if "nested" in request.GET:
            try:
                with transaction.atomic():
                    Account.objects.filter(pk=target.pk).update(balance=0)
                    raise RequestedFailure
            except RequestedFailure:
                pass
        if "fail" in request.GET:
            raise RequestedFailure
        Account.objects.filter(pk=target.pk).update(balance=F("balance") + amount)
        Move.objects.create(source=source, target=target, amount=amount)
    return HttpResponse("moved")


def sums(request: HttpRequest) -> HttpResponse:
    """Return the total, and whether the balances match the transfers."""
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
    """Stream all accounts while they are read from the database."""
    seconds = float(request.GET.get("sleep", "0"))

    def lines() -> Iterator[str]:
        with transaction.atomic():
            for account in Account.objects.order_by("pk").iterator(chunk_size=2):
                yield f"{account.pk} {account.balance}\n"
                time.sleep(seconds)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def later(request: HttpRequest) -> HttpResponse:
    """Use the database before and after an `await` of asyncio."""
    before = await Account.objects.acount()
    await asyncio.sleep(float(request.GET.get("sleep", "0")))
    account = await Account.objects.aget(pk=1)
    return JsonResponse({"accounts": before, "balance": account.balance})


async def later_stream(request: HttpRequest) -> StreamingHttpResponse:
    """Stream from an asynchronous iterator."""

    async def lines() -> AsyncIterator[str]:
        async for account in Account.objects.order_by("pk")[:3]:
            await asyncio.sleep(0.01)
            yield f"{account.pk}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def visit(request: HttpRequest) -> HttpResponse:
    """Keep the visitor's name in the session; count visits there and in the cache."""
    name = request.session.setdefault("name", request.GET["name"])
    request.session["visits"] = request.session.get("visits", 0) + 1
    cache.add(f"visits of {name}", 0)
    counted = cache.incr(f"visits of {name}")
    time.sleep(0.02)
    return JsonResponse([name, request.session["visits"], counted], safe=False)


def spend(request: HttpRequest) -> HttpResponse:
    """Reduce a balance, then fail if asked; ATOMIC_REQUESTS rolls that back."""
    Account.objects.filter(pk=1).update(balance=F("balance") - 1)
    if "sleep" in request.GET:
        _sleep(float(request.GET["sleep"]))
    if "fail" in request.GET:
        raise RequestedFailure
    return HttpResponse("spent")


def depth(request: HttpRequest) -> HttpResponse:
    """Sleep in a transaction; return the depth of atomic blocks before and within."""
    before = len(connection.atomic_blocks)
    with transaction.atomic():
        sleep(0.3)
        return JsonResponse([before, len(connection.atomic_blocks)], safe=False)


@transaction.non_atomic_requests  # type: ignore[untyped-decorator]
def pool(request: HttpRequest) -> HttpResponse:
    """Return the statistics of the pools."""
    return JsonResponse({k: asdict(v) for k, v in pool_statistics().items()})


def state(request: HttpRequest) -> HttpResponse:
    """Return the state of this request's connection."""
    inside: dict[str, Any] = {
        "in_atomic_block": connection.in_atomic_block,
        "opened": [one.alias for one in connections.all(initialized_only=True)],
        "connected": connection.connection is not None,
    }
    return JsonResponse(inside)
