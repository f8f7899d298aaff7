"""Django's settings for the guest book: the minimum of a real project.

It knows Django and the database engine of txgreenwsgi; it must never contain a secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PROJECT = Path(__file__).resolve().parent

# Generated at each start: sufficient because nothing signed outlives the process, and
# useless when copied into a real site.
SECRET_KEY = secrets.token_urlsafe(50)
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = ["examples.django_project.apps.GuestBook"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "examples.django_project.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PROJECT / "templates"],
        "OPTIONS": {"context_processors": ["django.template.context_processors.csrf"]},
    }
]
WSGI_APPLICATION = "examples.django_project.wsgi.application"

DATABASES = {
    "default": {
        # SQLite blocks. With this engine each connection has a dedicated thread, so a
        # query parks its request and does not stop the others.
        "ENGINE": "txgreenwsgi.django.backends.sqlite3",
        "NAME": os.environ.get("GUESTBOOK_DATABASE", PROJECT / "guestbook.sqlite3"),
        # Seconds that a writer waits for another one.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
