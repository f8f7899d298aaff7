"""The live page, as far as it goes without a server: see the integration tests."""

from __future__ import annotations

import json
from unittest import skipUnless

from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from examples.django_site import live
from examples.django_site.feed import MOST_UNREAD, Feed
from examples.django_site.models import Post


class FeedTests(TestCase):
    """What goes from one to many."""

    def test_all_are_told(self) -> None:
        """Everyone who listens gets everything, and the end."""
        feed: Feed[int] = Feed()
        with feed.subscription() as one, feed.subscription() as other:
            waiting = one.get()
            feed.send(1)
            feed.close()
            self.assertEqual(waiting.result, 1)
            self.assertIsNone(one.get().result)
            self.assertEqual(other.pending, [1, None])
        self.assertEqual(len(feed), 0)

    def test_who_does_not_read_is_let_go(self) -> None:
        """One who is far behind is told to begin again; the others notice nothing."""
        feed: Feed[int] = Feed()
        with feed.subscription() as slow, feed.subscription() as quick:
            for number in range(MOST_UNREAD + 1):
                feed.send(number)
                self.assertEqual(quick.get().result, number)
            self.assertEqual(len(slow.pending), MOST_UNREAD)
            self.assertIsNone(slow.pending[-1])
            self.assertEqual(len(feed), 1)

    def test_close_with_a_full_queue(self) -> None:
        """The end is told also to those who have not read the rest."""
        feed: Feed[int] = Feed()
        with feed.subscription() as slow:
            for number in range(MOST_UNREAD):
                feed.send(number)
            feed.close()
            self.assertIsNone(slow.pending[-1])


class PageTests(TestCase):
    """What is there before anything happens."""

    def test_newest_posts(self) -> None:
        """The page begins with what is newest."""
        ann = get_user_model().objects.create_user("ann", password="-")
        Post.objects.create(author=ann, title="Hello", text="-")
        self.assertContains(self.client.get("/live"), "Hello")

    def test_other_servers(self) -> None:
        """A server without tasks says so instead of blocking."""
        self.assertContains(
            self.client.get("/live/events"), "needs txgreenwsgi", status_code=501
        )


@skipUnless(connection.vendor == "sqlite", "PostgreSQL tells its listeners itself")
class AnnounceTests(TransactionTestCase):
    """Only what is kept is announced."""

    def test_after_the_commit(self) -> None:
        """Readers hear of a post when it is committed, and not of one that is not."""
        ann = get_user_model().objects.create_user("ann", password="-")
        with live.feed.subscription() as queue:
            with transaction.atomic():
                post = Post.objects.create(author=ann, title="Hello", text="-")
                live.announce(post)
                self.assertEqual(queue.pending, [])
            (news,) = queue.pending
            assert news is not None
            self.assertEqual(news["title"], "Hello")
            self.assertEqual(json.loads(json.dumps(news)), news)
            try:
                with transaction.atomic():
                    live.announce(post)
                    raise LookupError
            except LookupError:
                self.assertEqual(queue.pending, [news])
