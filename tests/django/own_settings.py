"""Settings for Django's own tests on a backend of txgreenwsgi.

OWN_DATABASE   sqlite3, postgresql or mysql
OWN_PORT       the port of the database server
"""

from __future__ import annotations

import os
from typing import Any

_NAME = os.environ["OWN_DATABASE"]


def _database(alias: str) -> dict[str, Any]:
    options: dict[str, Any] = {"green_pool": {"max_size": 8, "wait_timeout": 10}}
    if _NAME == "sqlite3":
        where = {"NAME": ":memory:"}
    else:
        where = {
            "NAME": "postgres" if _NAME == "postgresql" else "",
            "HOST": "127.0.0.1",
            "PORT": os.environ["OWN_PORT"],
            "USER": "postgres" if _NAME == "postgresql" else "root",
        }
    return {
        "ENGINE": f"txgreenwsgi.django.backends.{_NAME}",
        "OPTIONS": options,
        "TEST": {"NAME": f"test_{alias}"} if _NAME != "sqlite3" else {},
        **where,
    }


DATABASES = {"default": _database("default"), "other": _database("other")}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
