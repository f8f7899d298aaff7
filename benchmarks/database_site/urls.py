"""The site's URLs, and two for pages that mostly wait for the database."""

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

#: Duration of the slow page's query.
SLOW_SECONDS = 0.05
#: Number of queries of the page `many`.
MANY = 25

_one_post = OnePost.as_view()


def slow(request: HttpRequest) -> HttpResponse:
    """Render a post after a slow query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [SLOW_SECONDS])
    page: HttpResponse = _one_post(request, pk=1000).render()
    return page


def many(request: HttpRequest) -> HttpResponse:
    """Render posts that are fetched one by one (the N+1 query problem)."""
    titles = [
        Post.objects.values_list("title", flat=True).get(pk=1000 + number)
        for number in range(MANY)
    ]
    page: HttpResponse = render(request, "board/live.html", {"titles": titles})
    return page


urlpatterns = [*site, path("slow", slow), path("many", many)]
