"""Views of files that come and go, and what is `async`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection
from django.http import FileResponse, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

if TYPE_CHECKING:
    from django.http import HttpRequest

#: What FileResponse has been given, and what has been signalled.
opened: list[object] = []


def send_file(request: HttpRequest) -> FileResponse:
    """This very file, while the database is in use."""
    connection.ensure_connection()
    opened.append(connection.connection)
    file = open(__file__, "rb")  # noqa: SIM115 - the response closes it
    opened.append(file)
    return FileResponse(file)


@csrf_exempt  # type: ignore[untyped-decorator] # Django has no annotations
def receive(request: HttpRequest) -> HttpResponse:
    """Tell how long the uploaded file is, and its name."""
    file = request.FILES["file"]
    return HttpResponse(f"{file.name} {sum(map(len, file.chunks()))}")


urlpatterns = [path("file", send_file), path("receive", receive)]
