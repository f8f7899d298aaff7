"""The views of posts: ordinary Django views that do not depend on the server.

They must never wait for anything but the database.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin, UserPassesTestMixin
from django.db import transaction
from django.db.models import Q
from django.http import StreamingHttpResponse
from django.views.decorators.http import require_safe
from django.views.generic import CreateView, DetailView, ListView, UpdateView

from .live import announce
from .models import Post

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import QuerySet
    from django.forms import ModelForm
    from django.http import HttpRequest, HttpResponse

EXPORT_BLOCK = 200


class Posts(ListView):
    """The list of posts, filtered by the words in `?q=`; newest first."""

    template_name = "board/posts.html"
    paginate_by = 20

    def get_queryset(self) -> QuerySet[Post]:
        """Return the posts with their authors and files."""
        posts = Post.objects.select_related("author").prefetch_related("attachments")
        for word in self.request.GET.get("q", "").split()[:10]:
            posts = posts.filter(Q(title__icontains=word) | Q(text__icontains=word))
        return posts

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add the search terms."""
        return super().get_context_data(q=self.request.GET.get("q", ""), **context)


class OnePost(DetailView):
    """The page of one post with its files."""

    template_name = "board/post.html"
    queryset = Post.objects.select_related("author").prefetch_related("attachments")


class NewPost(LoginRequiredMixin, CreateView):
    """Create a post, which appears on the live page at once."""

    model = Post
    fields = ("title", "text")
    template_name = "board/edit.html"

    def form_valid(self, form: ModelForm) -> HttpResponse:
        """Save the post and announce it in the same transaction."""
        form.instance.author = self.request.user
        with transaction.atomic():
            response = super().form_valid(form)
            announce(self.object)
        messages.success(self.request, "The post is on the board.")
        return response


class EditPost(LoginRequiredMixin, UserPassesTestMixin, UpdateView):
    """Edit a post; for its author only."""

    model = Post
    fields = ("title", "text")
    template_name = "board/edit.html"

    def test_func(self) -> bool:
        """Return whether the user is the author."""
        return bool(self.get_object().author_id == self.request.user.pk)


class _Echo:
    """A file for `csv.writer` whose `write` returns the row."""

    def write(self, row: str) -> str:
        return row


@require_safe
def export(request: HttpRequest) -> StreamingHttpResponse:
    """Stream all posts as a CSV file, oldest first.

    At most one block of posts is in memory, however slow the client is.
    """
    posts = Post.objects.order_by("id").values_list(
        "id", "author__username", "written", "title", "text"
    )

    def lines() -> Iterator[str]:
        writer: Any = csv.writer(_Echo())
        yield writer.writerow(["id", "author", "written", "title", "text"])
        last = 0
        # Not iterator(), whose cursor would hold a database connection until the
        # client has read the last line.
        while block := list(posts.filter(id__gt=last)[:EXPORT_BLOCK]):
            yield "".join(map(writer.writerow, block))
            last = block[-1][0]

    return StreamingHttpResponse(
        lines(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="posts.csv"'},
    )
