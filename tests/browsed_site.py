"""The built site: its pages, its address on this machine, and a Chromium to look at it with."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tools import chapters, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = chapters.ROOT
HTML = ROOT / "_build" / "html"
HOST = "127.0.0.1"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")

#: The one page that is no document: nobody links to it, and the sitemap leaves it out.
SEARCH = "search.html"


def html_files() -> list[str]:
    """Every page, as a path below the site's root; none when the site is not built."""
    return sorted(
        str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts
    )


def shared(names: list[str], share: str) -> list[str]:
    """The landing page, and of the others the share "k/n"."""
    first = [name for name in names if name == "book/index.html"]
    return first + chapters.share_of([name for name in names if name not in first], share)


#: The landing page stands at the root address as well; 404.html is no page of the theme.
ALL = [name for name in html_files() if name not in {"index.html", "404.html"}]
#: Those that are looked at: all, or a share (`make site-sample`).
PAGES = shared(ALL, os.environ.get("SHARE") or "1/1")
DOCUMENTS = [name for name in PAGES if name != SEARCH]


def missing(what: str) -> NoReturn:
    """End a test that lacks something: with CI=true, where all should be there, as a failure."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """A test's output is no place for an access log."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address on this machine at which a folder is served."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The site's address on this machine."""
    assert (HTML / "index.html").exists(), "the site is not built: run `make site-test`"
    with served(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; one at a time, by module."""
    pytest.importorskip("playwright.sync_api", reason="playwright drives Chromium")
    try:
        chromium.path()
    except SystemExit as none:
        missing(str(none))
    with chromium.running() as browser:
        yield browser


def faults_of(page: Page) -> list[str]:
    """What goes wrong in a page from now on; the list grows while the page is looked at.

    Warnings and errors in its console, errors that nobody caught, requests that fail, and requests
    to any other host. What leaving a page breaks off, as the fetching of its icon, is no fault.
    """
    faults: list[str] = []

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            faults.append(message.text)

    def on_request(request: Any) -> None:
        if not request.url.startswith((f"http://{HOST}:", "file:", "data:", "blob:")):
            faults.append(f"another host: {request.url}")

    def on_response(response: Any) -> None:
        if response.status >= 400:
            faults.append(f"{response.status} {response.url}")

    def on_failed(request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":
            faults.append(f"{request.failure} {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", on_request)
    page.on("response", on_response)
    page.on("requestfailed", on_failed)
    return faults
