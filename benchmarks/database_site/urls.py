"""The site's addresses, and two for pages that mostly wait for the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection
from django.shortcuts import render
from django.urls import path

from examples.django_site.models import Post
from examples.django_site.urls import urlpatterns as site
from examples.django_site.views import OnePost

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

#: How long the database takes for the slow page.
SLOW_SECONDS = 0.05
#: How many queries the page makes that makes many.
MANY = 25

_one_post = OnePost.as_view()


def slow(request: HttpRequest) -> HttpResponse:
    """A post, after a query that takes its time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [SLOW_SECONDS])
    page: HttpResponse = _one_post(request, pk=1000).render()
    return page


def many(request: HttpRequest) -> HttpResponse:
    """Posts that are fetched one by one, as careless views do."""
    titles = [
        Post.objects.values_list("title", flat=True).get(pk=1000 + number)
        for number in range(MANY)
    ]
    page: HttpResponse = render(request, "board/live.html", {"titles": titles})
    return page


urlpatterns = [*site, path("slow", slow), path("many", many)]
