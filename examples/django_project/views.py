"""The pages of the guest book: ordinary Django views, none of them async.

They know Django, and `sleep`. That a query waits without stopping the others is the
business of the database's engine, which the settings name.
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

LONGEST_SLEEP_SECONDS = 10.0
ENTRIES_A_PAGE = 20
EXPORT_BLOCK = 100


class EntryForm(forms.Form):
    """What a visitor fills in."""

    name = forms.CharField(max_length=80)
    text = forms.CharField(max_length=500, label="Message")


@require_http_methods(["GET", "HEAD", "POST"])
def guest_book(request: HttpRequest) -> HttpResponse:
    """Show the newest entries and the form; write what was posted. Parks."""
    form = EntryForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        Entry.objects.create(**form.cleaned_data)
        return redirect("guest-book")
    context = {"form": form, "entries": Entry.objects.all()[:ENTRIES_A_PAGE]}
    return render(request, "guest_book.html", context)


@require_GET
def export(request: HttpRequest) -> StreamingHttpResponse:
    """Send all entries as lines of text, a block at a time, oldest first.

    At no time are more than a block of them in memory, however many there are
    and however slowly they are read. Parks, while the response is sent.
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
    """Sleep for `?seconds=`, at most ten, then count the entries. Parks."""
    try:
        seconds = float(request.GET.get("seconds", "1"))
    except ValueError:
        return JsonResponse({"error": "seconds must be a number"}, status=400)
    sleep(min(max(0.0, seconds), LONGEST_SLEEP_SECONDS))
    return JsonResponse({"entries": Entry.objects.count()})
