"""The initial tables of the board."""

from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

ID = models.BigAutoField(
    auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
)


class Migration(migrations.Migration):
    """Posts and attachments."""

    initial = True
    dependencies = (migrations.swappable_dependency(settings.AUTH_USER_MODEL),)
    operations = (
        migrations.CreateModel(
            name="Post",
            fields=[
                ("id", ID),
                ("title", models.CharField(max_length=200)),
                ("text", models.TextField(max_length=20_000)),
                ("written", models.DateTimeField(auto_now_add=True)),
                ("changed", models.DateTimeField(auto_now=True)),
                (
                    "author",
                    models.ForeignKey(
                        settings.AUTH_USER_MODEL, django.db.models.deletion.CASCADE
                    ),
                ),
            ],
            options={"ordering": ("-id",)},
        ),
        migrations.CreateModel(
            name="Attachment",
            fields=[
                ("id", ID),
                ("file", models.FileField(upload_to="attachments/%Y/%m")),
                ("name", models.CharField(max_length=200)),
                ("size", models.PositiveBigIntegerField()),
                (
                    "post",
                    models.ForeignKey(
                        "board.post",
                        django.db.models.deletion.CASCADE,
                        related_name="attachments",
                    ),
                ),
            ],
            options={"ordering": ("id",)},
        ),
    )
