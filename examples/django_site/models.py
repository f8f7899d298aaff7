"""The models of the board: posts and their attachments."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.urls import reverse


class Post(models.Model):
    """One text by one author."""

    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    title = models.CharField(max_length=200)
    text = models.TextField(max_length=20_000)
    written = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        """The default order: newest first."""

        ordering = ("-id",)

    def __str__(self) -> str:
        """Return the title."""
        return str(self.title)

    def get_absolute_url(self) -> str:
        """Return the URL of the post's page."""
        return reverse("post", args=[self.pk])


class Attachment(models.Model):
    """One file attached to a post."""

    post = models.ForeignKey(Post, models.CASCADE, related_name="attachments")
    file = models.FileField(upload_to="attachments/%Y/%m")
    name = models.CharField(max_length=200)
    size = models.PositiveBigIntegerField()

    class Meta:
        """The default order: oldest first."""

        ordering = ("id",)

    def __str__(self) -> str:
        """Return the original name of the file."""
        return str(self.name)
