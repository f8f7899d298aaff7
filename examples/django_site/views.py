"""The pages of posts: ordinary Django views that know nothing of the server.

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
    """All posts, or those in which the words of `?q=` are found; newest first."""

    template_name = "board/posts.html"
    paginate_by = 20

    def get_queryset(self) -> QuerySet[Post]:
        """Give the posts, each with its author and its files."""
        posts = Post.objects.select_related("author").prefetch_related("attachments")
        for word in self.request.GET.get("q", "").split()[:10]:
            posts = posts.filter(Q(title__icontains=word) | Q(text__icontains=word))
        return posts

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add what was searched for."""
        return super().get_context_data(q=self.request.GET.get("q", ""), **context)


class OnePost(DetailView):
    """A post and its files."""

    template_name = "board/post.html"
    queryset = Post.objects.select_related("author").prefetch_related("attachments")


class NewPost(LoginRequiredMixin, CreateView):
    """Write a post; those who look at the live page see it at once."""

    model = Post
    fields = ("title", "text")
    template_name = "board/edit.html"

    def form_valid(self, form: ModelForm) -> HttpResponse:
        """Keep the post, and announce it if, and only if, it was kept."""
        form.instance.author = self.request.user
        with transaction.atomic():
            response = super().form_valid(form)
            announce(self.object)
        messages.success(self.request, "It is on the board.")
        return response


class EditPost(LoginRequiredMixin, UserPassesTestMixin, UpdateView):
    """Change a post of one's own."""

    model = Post
    fields = ("title", "text")
    template_name = "board/edit.html"

    def test_func(self) -> bool:
        """Tell whether the one who asks is the author."""
        return bool(self.get_object().author_id == self.request.user.pk)


class _Echo:
    """A file whose `write` gives back what it is given, for `csv.writer`."""

    def write(self, row: str) -> str:
        return row


@require_safe
def export(request: HttpRequest) -> StreamingHttpResponse:
    """All posts as a CSV file, a block at a time, oldest first.

    At no time are more than a block of them in memory, however many there are
    and however slowly they are read.
    """
    posts = Post.objects.order_by("id").values_list(
        "id", "author__username", "written", "title", "text"
    )

    def lines() -> Iterator[str]:
        writer: Any = csv.writer(_Echo())
        yield writer.writerow(["id", "author", "written", "title", "text"])
        last = 0
        # Not iterator(), whose cursor would keep a connection until the slowest
        # of readers has read the last line.
        while block := list(posts.filter(id__gt=last)[:EXPORT_BLOCK]):
            yield "".join(map(writer.writerow, block))
            last = block[-1][0]

    return StreamingHttpResponse(
        lines(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="posts.csv"'},
    )
