"""The live page without a server; the integration tests use one."""

from __future__ import annotations

import json
from unittest import skipUnless

from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from examples.django_site import live
from examples.django_site.feed import MAX_UNREAD, Feed
from examples.django_site.models import Post


class FeedTests(TestCase):
    """The feed."""

    def test_all_subscribers_receive(self) -> None:
        """Each subscriber receives all messages and the end."""
        feed: Feed[int] = Feed()
        with feed.subscription() as one, feed.subscription() as other:
            waiting = one.get()
            feed.send(1)
            feed.close()
            self.assertEqual(waiting.result, 1)
            self.assertIsNone(one.get().result)
            self.assertEqual(other.pending, [1, None])
        self.assertEqual(len(feed), 0)

    def test_slow_subscriber(self) -> None:
        """A subscriber with too many unread messages is ended; others are not."""
        feed: Feed[int] = Feed()
        with feed.subscription() as slow, feed.subscription() as quick:
            for number in range(MAX_UNREAD + 1):
                feed.send(number)
                self.assertEqual(quick.get().result, number)
            self.assertEqual(len(slow.pending), MAX_UNREAD)
            self.assertIsNone(slow.pending[-1])
            self.assertEqual(len(feed), 1)

    def test_close_with_a_full_queue(self) -> None:
        """A full queue receives the end in place of its last message."""
        feed: Feed[int] = Feed()
        with feed.subscription() as slow:
            for number in range(MAX_UNREAD):
                feed.send(number)
            feed.close()
            self.assertIsNone(slow.pending[-1])


class PageTests(TestCase):
    """The page itself."""

    def test_newest_posts(self) -> None:
        """The page shows the newest posts."""
        ann = get_user_model().objects.create_user("ann", password="-")
        Post.objects.create(author=ann, title="Hello", text="-")
        self.assertContains(self.client.get("/live"), "Hello")

    def test_other_servers(self) -> None:
        """On another server the events answer 501."""
        self.assertContains(
            self.client.get("/live/events"), "needs txgreenwsgi", status_code=501
        )


@skipUnless(connection.vendor == "sqlite", "PostgreSQL uses NOTIFY instead")
class AnnounceTests(TransactionTestCase):
    """Announcements of posts."""

    def test_after_the_commit(self) -> None:
        """A post is announced when it is committed, and not after a rollback."""
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
