"""A site that computes and blocks, under the command's default settings."""

from __future__ import annotations

import io
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.mixed_load import trivial_page

from .gallery_app import THUMBNAIL
from .processes import LOOPBACK, ServerProcess, start

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = 6
SECONDS = 4.0
PAGES_PER_SECOND = 20.0
#: Time in which the routes must have moved to threads, on a slow machine.
MOVE_SECONDS = 60.0


def photograph() -> bytes:
    """Return a JPEG of 12 megapixels."""
    noise = Image.effect_noise((4000, 3000), 30)
    file = io.BytesIO()
    Image.merge("RGB", (noise, noise, noise)).save(file, "JPEG", quality=80)
    return file.getvalue()


class GalleryTests(SynchronousTestCase):
    """Six clients upload photographs and log in; another requests a trivial page."""

    def setUp(self) -> None:
        """Serve the gallery with its default settings."""
        folder = tempfile.mkdtemp(prefix="gallery-")
        self.addCleanup(shutil.rmtree, folder)
        environ = {"GALLERY_DATABASE": str(Path(folder) / "gallery.sqlite3")}
        self.server: ServerProcess = start(
            self,
            "greenwsgi",
            "--app=tests.integration.gallery_app:app",
            f"--listen=tcp:0:interface={LOOPBACK}",
            environ=environ,
        )
        self.image = photograph()

    def upload(self) -> str:
        """Upload a photograph; return its number."""
        boundary = "boundary-of-the-parts"
        head = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            'name="image"; filename="a.jpeg"\r\n\r\n'
        )
        body = head.encode() + self.image + f"\r\n--{boundary}--\r\n".encode()
        fields = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        answer = self.server.fetch("/photographs", "POST", body, fields)
        self.assertEqual(answer.status, 201, answer.text)
        return answer.text

    def log_in(self) -> None:
        """Log in, and fail to."""
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        for body, status in (("password=correct+horse", 200), ("password=x", 403)):
            answer = self.server.fetch("/login", "POST", body, fields)
            self.assertEqual(answer.status, status)

    def seconds_of(self, function: Callable[[], object]) -> float:
        """Return the time that `function` takes."""
        began = time.monotonic()
        function()
        return time.monotonic() - began

    def test_trivial_page(self) -> None:
        """The trivial page is quick, and every upload is stored."""
        numbers: list[str] = []
        stop = threading.Event()

        def client() -> None:
            while not stop.is_set():
                numbers.append(self.upload())
                self.log_in()

        # Unloaded: an upload holds up a server of one thread for so long.
        alone = min(
            self.seconds_of(lambda: numbers.append(self.upload())) for _ in "12"
        )
        with ThreadPoolExecutor(CLIENTS) as executor:
            clients = [executor.submit(client) for _ in range(CLIENTS)]
            try:
                for route in ("POST /photographs", "POST /login"):
                    self.server.wait_logged(f"{route} has held up", MOVE_SECONDS)
                latencies = trivial_page(self.server.port, PAGES_PER_SECOND, SECONDS)
            finally:
                stop.set()
            for done in clients:
                done.result()
        # With all requests in one thread, the page waits for six uploads and logins.
        self.assertLess(statistics.median(latencies), alone / 2)
        self.assertGreater(len(numbers), CLIENTS)
        self.assertEqual(
            sorted(map(int, numbers)), list(range(1, len(numbers) + 1)), "rows"
        )
        for number in (1, len(numbers)):
            answer = self.server.fetch(f"/photographs/{number}")
            with Image.open(io.BytesIO(answer.body)) as image:
                self.assertEqual(image.size, THUMBNAIL)
        self.server.ask_to_stop()
        self.server.wait_ended()
