"""Writing, reading, searching and exporting posts."""

from __future__ import annotations

import csv

from django.contrib.auth import get_user_model
from django.test import TestCase

from examples.django_site.models import Post


class PostTests(TestCase):
    """Two users and their posts."""

    def setUp(self) -> None:
        """Create two users and log Ann in."""
        users = get_user_model().objects
        self.ann = users.create_user("ann", password="-")
        self.bob = users.create_user("bob", password="-")
        self.client.force_login(self.ann)

    def test_write(self) -> None:
        """A new post is shown, escaped, with its author."""
        form = {"title": "<b>Hello</b>", "text": "world"}
        answer = self.client.post("/posts/new", form, follow=True)
        self.assertContains(answer, "&lt;b&gt;Hello&lt;/b&gt;")
        self.assertContains(answer, "The post is on the board.")
        self.assertEqual(Post.objects.get().author, self.ann)

    def test_must_log_in(self) -> None:
        """Anonymous users can read, and must log in to write."""
        self.client.logout()
        self.assertEqual(self.client.get("/").status_code, 200)
        answer = self.client.post("/posts/new", {"title": "x", "text": "y"})
        self.assertRedirects(answer, "/accounts/login?next=/posts/new")
        self.assertEqual(Post.objects.count(), 0)

    def test_only_the_author_edits(self) -> None:
        """Only the author can edit a post."""
        theirs = Post.objects.create(author=self.bob, title="Bob's", text="-")
        form = {"title": "mine", "text": "-"}
        answer = self.client.post(f"/posts/{theirs.pk}/edit", form)
        self.assertEqual(answer.status_code, 403)
        ours = Post.objects.create(author=self.ann, title="Ann's", text="-")
        answer = self.client.post(f"/posts/{ours.pk}/edit", form)
        self.assertRedirects(answer, f"/posts/{ours.pk}")
        titles = set(Post.objects.values_list("title", flat=True))
        self.assertEqual(titles, {"Bob's", "mine"})

    def test_search(self) -> None:
        """A post matches if title or text contain all words, ignoring case."""
        for title, text in (("Green tea", "hot"), ("Tea", "black"), ("Ink", "green")):
            Post.objects.create(author=self.bob, title=title, text=text)
        found = self.client.get("/?q=GREEN+tea").context["page_obj"].object_list
        self.assertEqual([post.title for post in found], ["Green tea"])
        self.assertContains(self.client.get("/?q=coffee"), "Nothing found")

    def test_pages(self) -> None:
        """A page has 20 posts and takes five queries."""
        for number in range(45):
            Post.objects.create(author=self.bob, title=f"number {number}", text="-")
        with self.assertNumQueries(5):  # session, user, count, posts, files
            answer = self.client.get("/?page=3")
        self.assertContains(answer, "number 0<")
        self.assertNotContains(answer, "number 5<")

    def test_export(self) -> None:
        """The CSV file contains all posts, in blocks, quoted."""
        for number in range(450):
            title = f'number {number}, "quoted"'
            Post.objects.create(author=self.bob, title=title, text="a\nb")
        answer = self.client.get("/export.csv")
        self.assertEqual(answer.headers["Content-Type"], "text/csv; charset=utf-8")
        blocks = [block.decode() for block in answer.streaming_content]
        self.assertEqual(len(blocks), 1 + 3)
        rows = list(csv.reader("".join(blocks).splitlines(keepends=True)))
        self.assertEqual(len(rows), 1 + 450)
        self.assertEqual(rows[1][3], 'number 0, "quoted"')
        self.assertEqual(rows[450][4], "a\nb")
