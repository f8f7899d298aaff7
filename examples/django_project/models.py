"""What the guest book keeps."""

from __future__ import annotations

from django.db import models


class Entry(models.Model):
    """One thing that one visitor wrote."""

    name = models.CharField(max_length=80)
    text = models.CharField(max_length=500)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Newest first."""

        ordering = ("-id",)

    def __str__(self) -> str:
        """Give the entry as one line of text."""
        return f"{self.name}: {self.text}"
