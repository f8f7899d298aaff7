"""Files for a post: taken in with their progress told, and given out again.

While a body is read its request waits for the client, and other requests run:
one of them is the page's question how far the upload is.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from django import forms
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.files.uploadhandler import FileUploadHandler
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST, require_safe
from twisted.internet.defer import Deferred

from txgreenwsgi import TimedOut, sleep, wait

from .models import Attachment, Post

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.http import HttpRequest

HEARTBEAT_SECONDS = 15.0
#: How long to wait before the next figure: nobody can read more of them.
PAUSE_SECONDS = 0.1


class Progress:
    """How far an upload is. There for as long as somebody feeds or watches it.

    Attributes:
        received: bytes of files so far.
        total: bytes of the whole body; 0 until it has begun.
        ended: whether no more will come.
    """

    _known: ClassVar[WeakValueDictionary[str, Progress]] = WeakValueDictionary()

    def __init__(self) -> None:
        self.received = self.total = 0
        self.ended = False
        self._watchers: list[Deferred[None]] = []

    @classmethod
    def of(cls, key: str) -> Progress:
        """The one that the page has named so."""
        return cls._known.setdefault(key, cls())

    def advance(self, received: int = 0, *, ended: bool = False) -> None:
        """Tell those who watch that so many more bytes are here. Never parks."""
        self.received += received
        self.ended |= ended
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.callback(None)

    def wait(self, seconds: float) -> None:
        """Wait until it goes on, or so long. Parks."""
        advanced: Deferred[None] = Deferred(self._watchers.remove)
        self._watchers.append(advanced)
        try:
            wait(advanced, timeout=seconds)
        except TimedOut:
            return  # the caller tells how far it is, even if that is no farther


class CountingHandler(FileUploadHandler):
    """Counts what passes on its way to the handlers that keep it."""

    _progress: Progress | None = None

    def handle_raw_input(
        self,
        input_data: Any,
        META: Mapping[str, Any],
        content_length: int,
        boundary: bytes,
        encoding: str | None = None,
    ) -> None:
        """Begin, if the page has named the upload. Django calls this."""
        key = self.request.GET.get("progress", "")
        if key:
            self._progress = Progress.of(key)
            self._progress.total = content_length

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        """Count a piece, and pass it on."""
        if self._progress is not None:
            self._progress.advance(len(raw_data))
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """A file has ended; another handler has it."""

    def upload_complete(self) -> None:
        """All files have ended."""
        if self._progress is not None:
            self._progress.advance(ended=True)

    def upload_interrupted(self) -> None:
        """No more comes."""
        self.upload_complete()


class AttachForm(forms.Form):
    """A file."""

    file = forms.FileField(max_length=200)


@require_POST
@login_required
def attach(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep a file with a post of one's own. Parks while the body arrives."""
    post = get_object_or_404(Post, pk=pk)
    if post.author_id != request.user.pk:
        raise PermissionDenied
    form = AttachForm(request.POST, request.FILES)
    if not form.is_valid():
        context = {"post": post, "form": form}
        return render(request, "board/post.html", context, status=400)
    file = form.cleaned_data["file"]
    post.attachments.create(file=file, name=PurePath(file.name).name, size=file.size)
    return redirect(post)


@require_safe
def download(request: HttpRequest, pk: int) -> FileResponse:
    """Give out a file; the server sends it without reading it into memory."""
    attachment = get_object_or_404(Attachment, pk=pk)
    # To be saved and not to be shown: what people upload is not our page.
    return FileResponse(
        attachment.file.open("rb"), as_attachment=True, filename=attachment.name
    )


@never_cache
@require_GET
def progress(request: HttpRequest, key: str) -> HttpResponse | StreamingHttpResponse:
    """How far an upload is, as events, until it has ended. Parks."""
    if "txgreenwsgi.wait" not in request.META:
        return HttpResponse("this page needs txgreenwsgi\n", status=501)

    def events() -> Iterator[str]:
        upload = Progress.of(key)
        while True:
            told = {
                "received": upload.received,
                "total": upload.total,
                "ended": upload.ended,
            }
            yield f"data: {json.dumps(told)}\n\n"
            if upload.ended:
                return
            upload.wait(HEARTBEAT_SECONDS)
            sleep(PAUSE_SECONDS)

    return StreamingHttpResponse(
        events(),
        content_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )
