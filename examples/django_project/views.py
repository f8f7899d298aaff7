"""The views of the guest book: ordinary Django views, all synchronous.

They know Django and `sleep`. The database engine in the settings makes queries park.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from django.http import JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from txgreenwsgi import sleep

from .models import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest, HttpResponse

MAX_SLEEP_SECONDS = 10.0
ENTRIES_A_PAGE = 20
EXPORT_BLOCK = 100


class EntryForm(forms.Form):
    """The form for a new entry."""

    name = forms.CharField(max_length=80)
    text = forms.CharField(max_length=500, label="Message")


@require_http_methods(["GET", "HEAD", "POST"])
def guest_book(request: HttpRequest) -> HttpResponse:
    """Show the newest entries and the form; save a posted entry. Parks."""
    form = EntryForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        Entry.objects.create(**form.cleaned_data)
        return redirect("guest-book")
    context = {"form": form, "entries": Entry.objects.all()[:ENTRIES_A_PAGE]}
    return render(request, "guest_book.html", context)


@require_GET
def export(request: HttpRequest) -> StreamingHttpResponse:
    """Stream all entries as lines of text, oldest first. Parks.

    At most one block of entries is in memory, however slow the client is.
    """

    def lines() -> Iterator[str]:
        last_id = 0
        entries = Entry.objects.order_by("id")
        while block := list(entries.filter(id__gt=last_id)[:EXPORT_BLOCK]):
            yield "".join(f"{entry}\n" for entry in block)
            last_id = block[-1].pk

    return StreamingHttpResponse(lines(), content_type="text/plain; charset=utf-8")


@require_GET
def slow(request: HttpRequest) -> JsonResponse:
    """Sleep for `?seconds=`, at most 10, then return the number of entries. Parks."""
    try:
        seconds = float(request.GET.get("seconds", "1"))
    except ValueError:
        return JsonResponse({"error": "seconds must be a number"}, status=400)
    sleep(min(max(0.0, seconds), MAX_SLEEP_SECONDS))
    return JsonResponse({"entries": Entry.objects.count()})
