"""The model of the guest book."""

from __future__ import annotations

from django.db import models


class Entry(models.Model):
    """One entry in the guest book."""

    name = models.CharField(max_length=80)
    text = models.CharField(max_length=500)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        """The default order: newest first."""

        ordering = ("-id",)

    def __str__(self) -> str:
        """Return the entry as one line of text."""
        return f"{self.name}: {self.text}"
