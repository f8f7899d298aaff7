"""Views for uploads and downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection
from django.http import FileResponse, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

if TYPE_CHECKING:
    from django.http import HttpRequest

#: The database connection and the file of each download.
opened: list[object] = []


def send_file(request: HttpRequest) -> FileResponse:
    """Return this file, with an open database connection."""
    connection.ensure_connection()
    opened.append(connection.connection)
    file = open(__file__, "rb")  # noqa: SIM115 - the response closes it
    opened.append(file)
    return FileResponse(file)


@csrf_exempt  # type: ignore[untyped-decorator] # Django has no annotations
def receive(request: HttpRequest) -> HttpResponse:
    """Return the name and the length of the uploaded file."""
    file = request.FILES["file"]
    return HttpResponse(f"{file.name} {sum(map(len, file.chunks()))}")


urlpatterns = [path("file", send_file), path("receive", receive)]
