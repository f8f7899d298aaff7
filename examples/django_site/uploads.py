"""Files attached to a post: uploads with progress reports, and downloads.

While a request waits for its body, other requests run; one of them reports the progress
of the upload.
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
#: Minimum interval between progress reports.
PAUSE_SECONDS = 0.1


class Progress:
    """The progress of an upload; exists while it is uploaded or watched.

    Attributes:
        received: number of bytes of files received.
        total: size of the whole body in bytes; 0 until it has begun.
        ended: True when the upload has ended.
    """

    _known: ClassVar[WeakValueDictionary[str, Progress]] = WeakValueDictionary()

    def __init__(self) -> None:
        self.received = self.total = 0
        self.ended = False
        self._watchers: list[Deferred[None]] = []

    @classmethod
    def of(cls, key: str) -> Progress:
        """Return the progress of the upload named `key`, which the page has chosen."""
        return cls._known.setdefault(key, cls())

    @classmethod
    def is_known(cls, key: str) -> bool:
        """Return whether an upload named `key` is in progress or watched."""
        return key in cls._known

    def advance(self, received: int = 0, *, ended: bool = False) -> None:
        """Count more received bytes and wake the watchers. Never parks."""
        self.received += received
        self.ended |= ended
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.callback(None)

    def wait(self, seconds: float) -> None:
        """Wait for progress, at most `seconds`. Parks."""
        advanced: Deferred[None] = Deferred(self._watchers.remove)
        self._watchers.append(advanced)
        try:
            wait(advanced, timeout=seconds)
        except TimedOut:
            return  # the caller reports the same progress again


class CountingHandler(FileUploadHandler):
    """Counts the data on its way to the handlers that store it."""

    _progress: Progress | None = None

    def handle_raw_input(
        self,
        input_data: Any,
        META: Mapping[str, Any],
        content_length: int,
        boundary: bytes,
        encoding: str | None = None,
    ) -> None:
        """Start to count if the upload has a name. Called by Django."""
        key = self.request.GET.get("progress", "")
        if key:
            self._progress = Progress.of(key)
            self._progress.total = content_length

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        """Count a chunk and pass it on."""
        if self._progress is not None:
            self._progress.advance(len(raw_data))
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """Do nothing: another handler has the file."""

    def upload_complete(self) -> None:
        """Mark the progress as ended."""
        if self._progress is not None:
            self._progress.advance(ended=True)

    def upload_interrupted(self) -> None:
        """Mark the progress as ended after an error."""
        self.upload_complete()


class AttachForm(forms.Form):
    """The form for a file."""

    file = forms.FileField(max_length=200)


@require_POST
@login_required
def attach(request: HttpRequest, pk: int) -> HttpResponse:
    """Attach a file to a post; for its author only. Parks while the body arrives."""
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
    """Send a file; the server does not read it into memory."""
    attachment = get_object_or_404(Attachment, pk=pk)
    # As a download: uploaded content must not be shown as a page of this site.
    return FileResponse(
        attachment.file.open("rb"), as_attachment=True, filename=attachment.name
    )


@never_cache
@require_GET
def progress(request: HttpRequest, key: str) -> HttpResponse | StreamingHttpResponse:
    """Stream the progress of an upload as events until it has ended. Parks."""
    if "txgreenwsgi.wait" not in request.META:
        return HttpResponse("this page needs txgreenwsgi\n", status=501)

    def events() -> Iterator[str]:
        upload = Progress.of(key)
        while True:
            state = {
                "received": upload.received,
                "total": upload.total,
                "ended": upload.ended,
            }
            yield f"data: {json.dumps(state)}\n\n"
            if upload.ended:
                return
            upload.wait(HEARTBEAT_SECONDS)
            sleep(PAUSE_SECONDS)

    return StreamingHttpResponse(
        events(),
        content_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )
