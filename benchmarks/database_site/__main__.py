"""`python -m benchmarks.database_site`: fill the tables, print a session key.

The session belongs to a logged-in user without special permissions.
"""

from __future__ import annotations

import os
import random
from importlib import import_module
from typing import Any

import django

POSTS = 2_000
USERS = 50
_WORDS = [
    "time",
    "and",
    "tide",
    "wait",
    "for",
    "no",
    "view",
    "but",
    "ours",
    "may",
    "wait",
    "for",
    "them",
]


def fill() -> str:
    """Create and fill the tables; return the key of a session."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.database_site.settings"
    django.setup()
    management: Any = import_module("django.core.management")
    auth: Any = import_module("django.contrib.auth")
    sessions: Any = import_module("django.contrib.sessions.backends.db")
    models: Any = import_module("examples.django_site.models")

    management.call_command("migrate", verbosity=0)
    chance = random.Random(1)  # the same data in each run
    users = [
        auth.get_user_model().objects.create(username=f"user-{number}")
        for number in range(USERS)
    ]
    models.Post.objects.bulk_create(
        models.Post(
            author=chance.choice(users),
            title=" ".join(chance.choices(_WORDS, k=5)),
            text=" ".join(chance.choices(_WORDS, k=100)),
        )
        for _ in range(POSTS)
    )
    posts = models.Post.objects.order_by("id")[:POSTS:3]
    models.Attachment.objects.bulk_create(
        models.Attachment(post=post, file="none", name="a.txt", size=1)
        for post in posts
    )
    session = sessions.SessionStore()
    session[auth.SESSION_KEY] = str(users[0].pk)
    session[auth.BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[auth.HASH_SESSION_KEY] = users[0].get_session_auth_hash()
    session.create()
    return str(session.session_key)


if __name__ == "__main__":
    print(fill())
