"""Django's settings for the guest book: the least that a real project has.

It knows Django, and the engine of txgreenwsgi; it must never hold a secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PROJECT = Path(__file__).resolve().parent

# A new one at each start: good enough where nothing signed lives longer than
# the process, and nothing that could be copied into a real site.
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
        # SQLite blocks while it works; here each connection has a thread of its own,
        # and a view that asks for something waits without stopping the others.
        "ENGINE": "txgreenwsgi.django.backends.sqlite3",
        "NAME": os.environ.get("GUESTBOOK_DATABASE", PROJECT / "guestbook.sqlite3"),
        # How many seconds a writer waits for another to finish.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
