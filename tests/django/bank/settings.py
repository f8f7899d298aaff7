"""Settings of the bank; the test that serves it sets the environment.

BANK_ENGINE   the backend
BANK_NAME     the name of the database, or its file
BANK_PORT     the port of the database server
BANK_DRIVER   "psycopg2" to hide psycopg 3 from Django
BANK_POOL     OPTIONS["green_pool"], in JSON
BANK_ATOMIC   enables ATOMIC_REQUESTS, if set
BANK_REDIS    the port of the Redis server, if there is one
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django

_ENGINE = os.environ["BANK_ENGINE"]

if os.environ.get("BANK_DRIVER") == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment]

SECRET_KEY = "nothing is signed here"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "txgreenwsgi.django",
    "tests.django.bank",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
ROOT_URLCONF = "tests.django.bank.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LANGUAGES = [("en", "English"), ("de", "German"), ("fr", "French")]

_default: dict[str, Any] = {
    "ENGINE": _ENGINE,
    "NAME": os.environ.get("BANK_NAME", ""),
    "ATOMIC_REQUESTS": "BANK_ATOMIC" in os.environ,
    "OPTIONS": {},
}
if "BANK_POOL" in os.environ:
    _default["OPTIONS"]["green_pool"] = json.loads(os.environ["BANK_POOL"])
if "sqlite3" in _ENGINE:
    _default["OPTIONS"]["timeout"] = 20
    if django.VERSION >= (5, 1):
        _default["OPTIONS"]["transaction_mode"] = "IMMEDIATE"
else:
    _default |= {
        "HOST": "127.0.0.1",
        "PORT": os.environ["BANK_PORT"],
        "USER": "postgres" if "postgresql" in _ENGINE else "root",
    }
DATABASES = {"default": _default}

if "BANK_REDIS" in os.environ:
    CACHES = {
        "default": {
            "BACKEND": "txgreenwsgi.django.cache.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{os.environ['BANK_REDIS']}",
            "OPTIONS": {
                "pool_class": "redis.BlockingConnectionPool",
                "max_connections": 8,
            },
        }
    }
