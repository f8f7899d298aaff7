"""The statements of docs/moving.md, the guide to migrating from gunicorn."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, LOOPBACK, ServerProcess, start

PAGE = CHECKOUT / "docs" / "moving.md"

SETTINGS = """
SECRET_KEY = "nothing is signed"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": "x", "CONN_MAX_AGE": 60
    }
}
"""
URLS = """
import time
import requests
from django.contrib.auth.hashers import make_password
from django.http import HttpResponse
from django.urls import path

def log_in(request):
    return HttpResponse(make_password("secret"))

def slow(request):
    time.sleep(60)

urlpatterns = [
    path("login", log_in), path("slow", slow), path("", lambda _: HttpResponse("here"))
]
"""
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its headings, as code hosts write them."""
    found = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found]
    return {heading.replace(" ", "-") for heading in plain}


class PageTests(SynchronousTestCase):
    """The page itself."""

    def test_links(self) -> None:
        """Each link leads to an existing page or heading."""
        links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text("utf-8"))
        self.assertGreater(len(links), 10)
        for link in links:
            place, _, anchor = link.partition("#")
            target = (PAGE.parent / place).resolve() if place else PAGE
            self.assertTrue(target.exists(), link)
            if anchor:
                self.assertIn(anchor, anchors(target), link)


class ShopTests(SynchronousTestCase):
    """A Django project written for gunicorn."""

    def setUp(self) -> None:
        """Write the project."""
        self.folder = Path(self.mktemp()).absolute()
        shop = self.folder / "shop"
        shop.mkdir(parents=True)
        for name, text in (("settings", SETTINGS), ("urls", URLS), ("wsgi", WSGI)):
            (shop / f"{name}.py").write_text(text)
        (shop / "__init__.py").write_text("")
        self.words = (
            "greenwsgi",
            f"--chdir={self.folder}",
            "--app=shop.wsgi:application",
        )

    def check(self) -> str:
        """Return the output of `--check`."""
        checking = ServerProcess(*self.words, "--check")
        self.addCleanup(checking.kill)
        checking.wait_ended()
        return checking.log()

    def test_persistent_connections(self) -> None:
        """`--check` reports that CONN_MAX_AGE has no effect, with the remedy."""
        said = self.check()
        self.assertRegex(said, r"warning +DATABASES\['default'\]\['CONN_MAX_AGE'\]")
        self.assertIn("txgreenwsgi.django.backends.postgresql", said)

    def test_views(self) -> None:
        """`--check` sees modules that only the views import."""
        self.assertRegex(self.check(), r"green +requests")

    def test_passwords(self) -> None:
        """With the option on the page, other requests run during password hashing."""
        found = re.search(r"--offload (django[\w.]+)", PAGE.read_text("utf-8"))
        assert found is not None
        listen = f"--listen=tcp:0:interface={LOOPBACK}"
        server = start(self, *self.words, listen, f"--offload={found[1]}")
        self.assertEqual(server.fetch("/").text, "here")
        hashes: list[str] = []
        hashing = [
            threading.Thread(target=lambda: hashes.append(server.fetch("/login").text))
            for _ in range(4)
        ]
        for thread in hashing:
            thread.start()
        served = 0
        while any(thread.is_alive() for thread in hashing):
            served += server.fetch("/").status == 200
        self.assertEqual(len({each.split("$")[0] for each in hashes}), 1)
        self.assertTrue(all(each.startswith("pbkdf2_sha256$") for each in hashes))
        # Without the option only two or three pages would be served in between.
        self.assertGreater(served, 8)

    def test_timeout(self) -> None:
        """A request that exceeds its time limit gets 504, and others continue."""
        listen = f"--listen=tcp:0:interface={LOOPBACK}"
        server = start(self, *self.words, listen, "--request-timeout=1")
        began = time.monotonic()
        with server.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(server.fetch("/").text, "here")
            self.assertIn(b" 504 ", client.read_until(b"\r\n"))
        self.assertLess(time.monotonic() - began, 20)
