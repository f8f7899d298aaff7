"""Check the links of the built site, without a network.

    python docs/check_links.py docs/_build

Every relative link has to lead to a file of the site, and every fragment to an
element of that page. Exits with status 1 and a list of the broken links.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and anchors of one page.

    Attributes:
        links: values of `href` and `src`, in order.
        anchors: values of `id` and of `name` of an `a`.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the attributes of one element. Called by the parser."""
        for name, value in attrs:
            if value is None:
                continue
            if name in ("href", "src"):
                self.links.append(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)


def broken_links(site: Path) -> list[str]:
    """Return one line for each broken link of the site in that directory."""
    paths = sorted(site.rglob("*.html"))
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in paths}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve()
            if not parts.path:
                target = path
            elif target.is_dir():
                target = target / "index.html"
            fragment = unquote(parts.fragment)
            if not target.exists():
                broken.append(f"{path.relative_to(site.resolve())}: no file {link}")
            elif fragment and target in pages and fragment not in pages[target].anchors:
                broken.append(f"{path.relative_to(site.resolve())}: no anchor {link}")
    return broken


def main() -> None:
    """Check the site named on the command line."""
    site = Path(sys.argv[1])
    if not (site / "index.html").exists():
        raise SystemExit(f"{site} has no index.html: build the site first")
    broken = broken_links(site)
    if broken:
        raise SystemExit("\n".join(broken))
    print(f"{len(list(site.rglob('*.html')))} pages: all links lead somewhere")


if __name__ == "__main__":
    main()
