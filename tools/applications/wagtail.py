"""Wagtail, a content management system on Django, driven through its admin pages."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any

from .client import at_once, check, data_folder, fetch, main, program, run

SETTINGS = """
ALLOWED_HOSTS = ["*"]
WAGTAILIMAGES_MAX_UPLOAD_SIZE = 50_000_000
"""


def prepare() -> None:
    """Create a project, its database and an administrator."""
    site = data_folder() / "site"
    site.mkdir()
    run([program("wagtail"), "start", "project", str(site)])
    with (site / "project" / "settings" / "dev.py").open("a") as file:
        file.write(SETTINGS)
    manage = [sys.executable, "manage.py"]
    run([*manage, "migrate", "--verbosity", "0"], site)
    run(
        [*manage, "createsuperuser", "--noinput"],
        site,
        DJANGO_SUPERUSER_USERNAME="admin",
        DJANGO_SUPERUSER_EMAIL="admin@localhost.example",
        DJANGO_SUPERUSER_PASSWORD="secret",
    )


def make_app() -> Any:
    """Return the application of the project."""
    sys.path.insert(0, str(data_folder() / "site"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings.dev"
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def _picture() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((1500, 1500), 50).save(file, "PNG")
    return file.getvalue()


def drive(url: str) -> None:
    """Log in, upload an image, edit and publish pages, view them."""
    import requests

    session = requests.Session()

    def post(path: str, files: Any = None, **fields: str) -> requests.Response:
        token = session.cookies["csrftoken"]
        data = {"csrfmiddlewaretoken": token, **fields}
        return session.post(url + path, data=data, files=files, timeout=60)

    check("front page", fetch(f"{url}/").status == 200)
    session.get(f"{url}/admin/login/", timeout=60)
    wrong = post("/admin/login/", username="admin", password="wrong")
    check("wrong password", "didn" in wrong.text, wrong.text[-2000:])
    reply = post("/admin/login/", username="admin", password="secret", next="/admin/")
    check("log in", "/admin/account/" in reply.text, reply.text)
    picture = _picture()
    files = {"file": ("noise.png", picture, "image/png")}
    session.get(f"{url}/admin/images/add/", timeout=60)
    reply = post("/admin/images/add/", files, title="Noise")
    check(f"upload of an image of {len(picture) >> 20} MB", "Noise" in reply.text)
    listing = session.get(f"{url}/admin/images/", timeout=60).text
    renditions = re.findall(r'src="(/media/images/[^"]+)"', listing)
    check("image list with a rendition", renditions, listing[-2000:])
    edit = "/admin/pages/3/edit/"
    page = session.get(url + edit, timeout=60)
    check("page editor", page.status_code == 200 and "title" in page.text)
    form = {
        name: value
        for name, value in re.findall(
            r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text
        )
        if name != "csrfmiddlewaretoken"
    }
    fields = {**form, "title": "A new title é", "slug": "home"}
    reply = post(edit, **fields, **{"action-publish": "action-publish"})
    check("publish", reply.status_code == 200 and "published" in reply.text.lower())
    front = fetch(f"{url}/").text
    check("published title", "A new title é" in front, front)
    history = session.get(f"{url}/admin/pages/3/history/", timeout=60)
    check("history", history.status_code == 200 and "Published" in history.text)
    found = session.get(f"{url}/admin/pages/search/?q=title", timeout=60)
    check("search", found.status_code == 200)
    pages = at_once(lambda _: "A new title é" in fetch(f"{url}/").text)
    check("50 pages at once", all(pages), pages)
    cookies = {"Cookie": "; ".join(f"{n}={v}" for n, v in session.cookies.items())}
    admin = at_once(lambda _: fetch(f"{url}/admin/", headers=cookies).status, 20)
    check("20 admin pages at once", set(admin) == {200}, admin)


if __name__ == "__main__":
    main(prepare, drive)
