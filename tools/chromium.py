"""The Chromium of this machine, which looks at the site, prints the book, and turns slides."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: As Debian, Ubuntu and Google name it.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def path() -> str:
    """Where it is, as the variable CHROMIUM names it or by its names; SystemExit for none."""
    named = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else NAMES
    found = next((path for path in map(shutil.which, named) if path), None)
    if found is None:
        raise SystemExit(
            "no Chromium here; install it (Debian: apt-get install chromium) or name it in the "
            "variable CHROMIUM"
        )
    return found


@contextmanager
def running() -> Iterator[Browser]:
    """A running one."""
    from playwright.sync_api import sync_playwright

    executable = path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()
