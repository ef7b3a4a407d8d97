"""The built site: its pages, its address on this machine, and a Chromium to look at it with."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"

#: Written by Sphinx itself rather than by us; still loaded, but not judged as prose.
GENERATED = {"search.html"}

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def html_files() -> list[str]:
    """Every page, as a path below the site's root; none when the site is not built."""
    return sorted(
        str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts
    )


def shared(names: list[str], share: str) -> list[str]:
    """The landing page and every n-th other, from the k-th on, for the share "k/n"."""
    number, of = (int(part) for part in share.split("/"))
    first = [name for name in names if name == "book/index.html"]
    return first + [name for name in names if name not in first][number - 1 :: of]


#: The landing page stands at the root address as well; 404.html is no page of the theme.
ALL = [name for name in html_files() if name not in {"index.html", "404.html"}]
#: Those that are looked at: all, or a share (`make site-sample`).
PAGES = shared(ALL, os.environ.get("SHARE") or "1/1")
CHAPTERS = [name for name in PAGES if name not in GENERATED]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """A test's output is no place for an access log."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The site's address on this machine."""
    assert (HTML / "index.html").exists(), "the site is not built: run `make site-test`"
    handler = functools.partial(_Quiet, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's, Ubuntu's or Google's build, whichever the machine has; one at a time, by module."""
    named = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else CHROMIUM
    found = next((path for path in map(shutil.which, named) if path), None)
    if found is None:
        message = (
            "no Chromium here, so the built site is not looked at; install it (Debian: "
            "apt-get install chromium) or name it in the variable CHROMIUM"
        )
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()
