"""Django's settings for the site; environment variables configure a deployment.

It knows Django and `database.py`, and must never contain a secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .database import database_from

PROJECT = Path(__file__).resolve().parent
DATA = Path(os.environ.get("DJANGO_SITE_DATA", PROJECT))

# A new key at each start logs all users out. Set it to avoid that, and set it to the
# same value in all processes.
SECRET_KEY = os.environ.get("DJANGO_SITE_SECRET_KEY") or secrets.token_urlsafe(50)
DEBUG = os.environ.get("DJANGO_SITE_DEBUG") == "1"
ALLOWED_HOSTS = os.environ.get("DJANGO_SITE_HOSTS", "localhost,127.0.0.1,[::1]").split(
    ","
)

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "txgreenwsgi.django",
    "examples.django_site.apps.Board",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "examples.django_site.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PROJECT / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
WSGI_APPLICATION = "examples.django_site.wsgi.application"

DATABASES = {
    "default": database_from(
        os.environ.get("DJANGO_SITE_DATABASE", ""),
        DATA / "site.sqlite3",
        int(os.environ.get("DJANGO_SITE_CONNECTIONS", "10")),
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator")
]
# Hashing a password computes for a third of a second, which would block all requests.
PASSWORD_HASHERS = ["examples.django_site.hashers.OffloadedHasher"]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "posts"

MEDIA_ROOT = DATA / "media"
FILE_UPLOAD_HANDLERS = [
    "examples.django_site.uploads.CountingHandler",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
