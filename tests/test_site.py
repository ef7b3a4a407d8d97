"""The built site, page by page in Chromium: complete in itself, without errors, fit for a phone.

`make site-test` builds _build/html first. Where there is no Chromium these tests skip and say so;
with CI=true they fail instead. Screenshots go to _build/screenshots.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
SCREENSHOTS = ROOT / "_build" / "screenshots"

#: Written by Sphinx itself rather than by us; still loaded, but not judged as prose.
GENERATED = {"genindex.html", "search.html"}

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = pytest.mark.browser


def html_files() -> list[str]:
    """Every page, as a path below the site's root; none when the site is not built."""
    return sorted(
        str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts
    )


PAGES = [name for name in html_files() if name != "index.html"]
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
    """Debian's, Ubuntu's or Google's build, whichever the machine has."""
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


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page with a fresh profile, at desktop width."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def visit(page: Page, address: str) -> dict[str, list[str]]:
    """Load `address`, scroll through it, and return what went wrong, by kind."""
    trouble: dict[str, list[str]] = {"console": [], "failed": [], "elsewhere": []}

    def on_request(request: Any) -> None:
        parsed = urlparse(request.url)
        if parsed.scheme not in ("data", "blob") and parsed.hostname != "127.0.0.1":
            trouble["elsewhere"].append(request.url)

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            trouble["console"].append(message.text)

    def on_response(response: Any) -> None:
        if response.status >= 400:
            trouble["failed"].append(f"{response.status} {response.url}")

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: trouble["console"].append(str(error)))
    page.on("requestfailed", lambda request: trouble["failed"].append(request.url))
    page.on("response", on_response)
    page.goto(address, wait_until="load")
    # Lazy images and late scripts get their chance to misbehave.
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    return trouble


def test_the_site_has_every_document_of_the_table_of_contents() -> None:
    from tools import chapters

    for document in chapters.toc_files():
        assert (HTML / document.relative_to(ROOT)).with_suffix(".html").exists()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_no_other_host_and_raises_no_error(page: Page, site: str, name: str) -> None:
    assert visit(page, site + name) == {"console": [], "failed": [], "elsewhere": []}


def test_the_front_door_leads_to_the_landing_page(page: Page, site: str) -> None:
    page.goto(site)
    page.wait_for_url(site + "book/index.html")
    assert page.title().startswith("Trained to Predict")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_page_has_one_heading_and_describes_itself(page: Page, site: str, name: str) -> None:
    page.goto(site + name)
    assert page.locator("main article h1").count() == 1
    assert page.locator('meta[name="description"]').get_attribute("content")
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.evaluate("[...document.images].filter(i => !i.alt.trim()).map(i => i.src)") == []
    assert (
        page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length") == 0
    )


@pytest.mark.parametrize("name", CHAPTERS)
def test_mathematics_is_typeset_in_the_page(page: Page, site: str, name: str) -> None:
    """KaTeX ran at build time: no raw TeX is left, no formula failed, and its fonts are loaded."""
    page.goto(site + name)
    assert page.locator(".katex-error").count() == 0
    for formula in page.locator("main .math").all():
        assert formula.locator(".katex").count() >= 1
    if page.locator("main .katex").count():
        assert page.evaluate(
            "document.fonts.ready.then(() => document.fonts.check('16px KaTeX_Main'))"
        )


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_page_fits_a_phone(browser: Browser, site: str, name: str) -> None:
    """At 390 px nothing sticks out: wide tables, code and formulas scroll inside themselves."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, device_scale_factor=2)
    page = context.new_page()
    page.goto(site + name)
    width = page.evaluate("document.documentElement.scrollWidth")
    shot(page, name, "phone")
    context.close()
    assert width <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_text_and_links_can_be_read(browser: Browser, site: str, name: str, scheme: Any) -> None:
    """Contrast of running text and links against the page is at least 4.5 to 1 (WCAG AA)."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(site + name)
    assert page.locator("html").get_attribute("data-theme") == scheme
    ratios = page.evaluate(CONTRAST)
    shot(page, name, scheme)
    context.close()
    assert len(ratios) >= 1
    assert min(ratios) >= 4.5


#: Contrast ratios of the first paragraphs and links of the article.
CONTRAST = """
() => {
  const channel = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const background = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > .9) return colour;
    }
    return [255, 255, 255];
  };
  const seen = [...document.querySelectorAll(
    'main article p, main article a:not(.headerlink), main article h1, ' +
    'main article h2, main article code')];
  return seen.slice(0, 200).map(element => {
    const a = luminance(parse(getComputedStyle(element).color));
    const b = luminance(background(element));
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  });
}
"""


def shot(page: Page, name: str, kind: str) -> None:
    """Keep a picture of the page, for people to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name.removesuffix('.html').replace('/', '-')}-{kind}.png"
    page.screenshot(path=path, full_page=True)


class _Links(HTMLParser):
    """The links of a page and the places in it that a link can name."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = {""}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if values.get("id"):
            self.places.add(str(values["id"]))
        for key in ("href", "src"):
            if values.get(key) and tag != "base":
                self.links.append(str(values[key]))


def read_links(path: Path) -> _Links:
    parser = _Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_every_link_inside_the_site_leads_somewhere() -> None:
    pages = {name: read_links(HTML / name) for name in html_files()}
    broken = []
    for name, page in pages.items():
        for link in page.links:
            if urlparse(link).scheme or link.startswith("//"):
                continue
            target, place = urldefrag(
                urljoin(name, link.split("?")[0] if "#" not in link else link)
            )
            target = unquote(target).lstrip("/")
            if target in pages:
                if unquote(place) not in pages[target].places:
                    broken.append(f"{name}: {link}")
            elif not (HTML / target).exists():
                broken.append(f"{name}: {link}")
    assert broken == []


def test_a_chapter_opens_in_colab_at_our_repository() -> None:
    from tools import chapters

    owner_and_name = chapters.repository_url().removeprefix("https://github.com/")
    for path in chapters.toc_notebooks():
        name = path.relative_to(ROOT)
        text = (HTML / name).with_suffix(".html").read_text(encoding="utf-8")
        assert f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{name}" in text
