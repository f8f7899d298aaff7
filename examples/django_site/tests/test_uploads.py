"""Attachments and upload progress."""

from __future__ import annotations

import tempfile

from django.contrib.auth import get_user_model
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase

from examples.django_site.models import Post
from examples.django_site.uploads import Progress


class UploadTests(TestCase):
    """Uploads to a post of Ann, in a temporary directory."""

    def setUp(self) -> None:
        """Create the user, the post and the directory, and log in."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.keep_files_in(folder.name)
        users = get_user_model().objects
        self.ann = users.create_user("ann", password="-")
        self.post = Post.objects.create(author=self.ann, title="Ann's", text="-")
        self.client.force_login(self.ann)

    def keep_files_in(self, folder: str) -> None:
        """Store uploads in `folder` during the test."""
        changed = self.settings(MEDIA_ROOT=folder)
        changed.enable()
        self.addCleanup(changed.disable)

    def attach(self, content: bytes, query: str = "") -> int:
        """Attach a file and return the status of the response."""
        file = SimpleUploadedFile("a photo.jpg", content)
        address = f"/posts/{self.post.pk}/attach{query}"
        return int(self.client.post(address, {"file": file}).status_code)

    def test_attach_and_download(self) -> None:
        """A download returns the attached bytes under the original name."""
        content = bytes(range(256)) * 2000
        self.assertEqual(self.attach(content), 302)
        attachment = self.post.attachments.get()
        answer = self.client.get(f"/attachments/{attachment.pk}")
        self.assertEqual(b"".join(answer.streaming_content), content)
        self.assertEqual(
            answer.headers["Content-Disposition"],
            'attachment; filename="a photo.jpg"',
        )

    def test_only_the_author_attaches(self) -> None:
        """Only the author can attach files to a post."""
        bob = get_user_model().objects.create_user("bob", password="-")
        self.client.force_login(bob)
        self.assertEqual(self.attach(b"x"), 403)
        self.assertEqual(self.post.attachments.count(), 0)

    def test_empty_file(self) -> None:
        """An empty file is rejected with an error on the page."""
        self.assertEqual(self.attach(b""), 400)

    def test_progress_is_counted(self) -> None:
        """The progress of a named upload counts all bytes and its end."""
        progress = Progress.of("holiday")
        self.assertEqual(self.attach(b"x" * 200_000, "?progress=holiday"), 302)
        self.assertEqual(progress.received, 200_000)
        self.assertGreater(progress.total, 200_000)
        self.assertTrue(progress.ended)
        self.assertIs(Progress.of("holiday"), progress)

    def test_progress_is_dropped(self) -> None:
        """The progress of an upload that is no longer watched is dropped."""
        Progress.of("gone")
        self.assertEqual(Progress.of("gone").received, 0)
        self.assertFalse(Progress.is_known("gone"))
