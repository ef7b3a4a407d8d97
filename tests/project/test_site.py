"""The built site, page by page in Chromium: complete in itself, without errors, fit for a phone.

Each page is loaded once, and looked at as it is, in the dark, and as narrow as a phone.
`make site-test` builds _build/html first. Where there is no Chromium these tests skip and say so;
with CI=true they fail instead. With SCREENSHOTS=1, pictures of the pages go to _build/screenshots;
painting them takes longer than all the rest, so only people who look at them ask for them.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import browsed_site
import pytest
import yaml
from browsed_site import ALL, DOCUMENTS, HTML, PAGES, ROOT, SEARCH, faults_of, html_files
from playwright.sync_api import Browser, Page

from tools import chapters

SCREENSHOTS = ROOT / "_build" / "screenshots"
BASE = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]

pytestmark = pytest.mark.browser
browser, site = browsed_site.browser, browsed_site.site  # fixtures


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one visit to a page showed."""

    faults: list[str]
    """What went wrong, as `faults_of` lists it."""
    facts: dict[str, dict[str, Any]]
    """What FACTS measured in the page, each way of looking at it."""


#: How a page is looked at: width and colour scheme.
KINDS: dict[str, tuple[int, Any]] = {
    "light": (1280, "light"),
    "dark": (1280, "dark"),
    "phone": (390, "light"),
}


@pytest.fixture(scope="module")
def look(browser: Browser, site: str) -> Callable[[str], Look]:
    """Visits a page with a fresh profile, once."""

    @functools.cache
    def visit(name: str) -> Look:
        context = browser.new_context(
            viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce"
        )
        page = context.new_page()
        faults = faults_of(page)
        page.goto(site + name, wait_until="load")
        stem = name.removesuffix(".html").replace("/", "-")
        facts = {}
        for kind, (width, scheme) in KINDS.items():
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            # The page hears of the scheme by an event, which a busy machine delivers late.
            page.wait_for_function(
                "scheme => document.documentElement.dataset.theme === scheme", arg=scheme
            )
            # Lazy images and late scripts get their chance to misbehave.
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
            page.wait_for_load_state("networkidle")
            facts[kind] = page.evaluate(FACTS)
            if os.environ.get("SCREENSHOTS"):
                page.evaluate("window.scrollTo(0, 0)")
                page.screenshot(path=SCREENSHOTS / f"{stem}-{kind}.png", full_page=True)
        context.close()
        return Look(faults=faults, facts=facts)

    return visit


def test_the_site_has_every_document_of_the_table_of_contents() -> None:
    for document in chapters.toc_files():
        assert (HTML / document.relative_to(ROOT)).with_suffix(".html").exists()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_no_other_host_and_raises_no_error(
    look: Callable[[str], Look], name: str
) -> None:
    assert look(name).faults == []


def test_the_root_address_is_the_landing_page_and_says_what_it_is(
    browser: Browser, site: str
) -> None:
    page = browser.new_page()
    page.goto(site)
    assert page.title().startswith("Trained to Predict: ")
    for selector in ('link[rel="canonical"]', 'meta[property="og:url"]'):
        place = page.locator(selector).first
        assert (place.get_attribute("href") or place.get_attribute("content")) == BASE
    assert page.locator('meta[name="description"]').get_attribute("content")
    page.get_by_role("link", name="Start reading").click()
    assert (
        page.url
        == site + chapters.toc_notebooks()[0].relative_to(ROOT).with_suffix(".html").as_posix()
    )
    page.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("name", ["index.html", "book/index.html"])
def test_the_first_screen_says_what_this_is_for_whom_and_how_to_begin(
    visit: Callable[..., Page], name: str, width: int, height: int
) -> None:
    page = visit(name)
    page.set_viewport_size({"width": width, "height": height})
    for shown in (
        page.locator("article h1"),
        page.locator("article .lead"),
        page.get_by_text("For whom."),
        page.get_by_role("link", name="Start reading"),
        page.get_by_role("link", name="Open in Colab"),
    ):
        box = shown.bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height
    picture = page.locator("figure.explore").bounding_box()
    assert picture is not None
    assert picture["y"] < height  # and the picture begins there


def test_the_live_picture_answers_the_keyboard(visit: Callable[..., Page]) -> None:
    page = visit("index.html")
    slider = page.get_by_role("slider", name="Steps of training")
    before = page.locator("figure.explore .explore-text:visible").get_attribute("aria-label")
    slider.press("End")
    after = page.locator("figure.explore .explore-text:not([hidden])").get_attribute("aria-label")
    assert before != after
    assert "0.00 still to be learnt" in str(after)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("storage", [True, False])
def test_a_first_visit_has_the_system_s_colours_before_any_script_of_the_theme(
    browser: Browser, site: str, scheme: Any, storage: bool
) -> None:
    """Scripts in files are held back; one logo is shown, in the room it keeps."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    if not storage:
        context.add_init_script(
            "Object.defineProperty(window, 'localStorage', {get() { throw Error('none'); }})"
        )
    page = context.new_page()
    page.route("**/*.js*", lambda route: route.abort())
    page.goto(site + "book/index.html", wait_until="load")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    boxes = [each.bounding_box() for each in page.locator("img.logo__image:visible").all()]
    assert [box["width"] / box["height"] for box in boxes if box] == [pytest.approx(1.6, abs=0.02)]
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_without_a_script_a_page_is_light_and_has_its_colours(
    browser: Browser, site: str, scheme: Any
) -> None:
    context = browser.new_context(java_script_enabled=False, color_scheme=scheme)
    page = context.new_page()
    page.goto(site + "book/training/lstm.html", wait_until="load")
    colour = "e => getComputedStyle(e).getPropertyValue('--pst-color-text-base')"
    assert page.locator("html").evaluate(colour)
    assert page.locator("html").get_attribute("data-theme") == "light"
    assert page.locator("img.logo__image:visible").count() == 1
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_no_script_keeps_a_page_from_being_painted(name: str) -> None:
    text = (HTML / name).read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]* src=[^>]*>", text)
    assert scripts
    assert [each for each in scripts if " defer" not in each] == []


def test_the_copy_button_is_seen_where_nothing_hovers(browser: Browser, site: str) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(site + "book/training/lstm.html", wait_until="load")
    page.wait_for_selector("button.copybtn", state="attached")
    assert page.evaluate("matchMedia('(hover: none)').matches")
    seen = "e => getComputedStyle(e).opacity"
    assert page.locator("button.copybtn:visible").first.evaluate(seen) == "1"
    context.close()


def test_search_and_current_chapter_are_in_sight_beside_the_last_chapter(
    visit: Callable[..., Page],
) -> None:
    last = chapters.toc_notebooks()[-1].relative_to(ROOT).with_suffix(".html").as_posix()
    page = visit(last)
    for name in (".logo", ".search-button-field", "nav a.current"):
        box = page.locator(f".bd-sidebar-primary {name}").first.bounding_box()
        assert box is not None
        assert 0 <= box["y"] < box["y"] + box["height"] <= 900
    link = page.locator(".bd-sidebar-primary nav a").first
    link.focus()  # the list follows the keyboard
    box = link.bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 900


def test_the_icons_of_a_page_are_there() -> None:
    for name in ("index.html", DOCUMENTS[0]):
        text = (HTML / name).read_text(encoding="utf-8")
        for kind, file in (("icon", "favicon.png"), ("apple-touch-icon", "apple-touch-icon.png")):
            (link,) = re.findall(rf'<link rel="{kind}"[^>]*href="([^"]*{file})"', text)
            assert ((HTML / name).parent / link).stat().st_size < 20_000


def test_what_crawlers_and_lost_readers_get() -> None:
    missing = (HTML / "404.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:href|action)="([^"]+)"', missing) == [BASE, f"{BASE}search.html"]
    listed = re.findall("<loc>(.*?)</loc>", (HTML / "sitemap.xml").read_text(encoding="utf-8"))
    known = {*ALL} - {SEARCH, "book/index.html"}
    assert set(listed) == {BASE, *(BASE + name for name in known)}
    assert f"Sitemap: {BASE}sitemap.xml" in (HTML / "robots.txt").read_text(encoding="utf-8")
    assert (HTML / "_static" / "card.png").stat().st_size < 300_000
    assert not (HTML / "genindex.html").exists()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_page_says_what_a_link_to_it_shows(name: str) -> None:
    text = (HTML / name).read_text(encoding="utf-8")
    tags = dict(re.findall(r'<meta property="(og:[\w:]+)" content="([^"]*)"', text))
    assert {"og:title", "og:description", "og:url", "og:image", "og:image:alt"} <= set(tags)
    assert re.search(r'<link rel="canonical" href="([^"]+)"', text)[1] == tags["og:url"]  # type: ignore[index]
    titles = re.findall(r"<title>(.*?)</title>", text)
    assert len(titles) == 1
    assert not re.fullmatch(r"(.+) &#8212; \1", titles[0])


@pytest.mark.parametrize("path", chapters.toc_notebooks(), ids=lambda path: path.stem)
def test_a_chapter_says_what_it_takes_and_is_edited_as_a_notebook(path: Path) -> None:
    text = (HTML / path.relative_to(ROOT)).with_suffix(".html").read_text(encoding="utf-8")
    assert re.search(
        r"</h1>\s*<p class=\"chapter-cost\">[\w -]+ · about \d+ minutes to read · "
        r"about [\w .]+ of memory to run<",
        text,
    )
    place = chapters.repository_url().replace("github.com", "github.dev")
    assert f'href="{place}/blob/main/{path.relative_to(ROOT).as_posix()}"' in text
    assert not re.search(r"<th[^>]*>(?:<p></p>)?</th>", text)


@pytest.mark.parametrize("name", PAGES)
def test_on_a_phone_choosing_a_section_closes_the_contents_and_nothing_is_cut(
    visit: Callable[..., Page], name: str
) -> None:
    page = visit(name)
    page.set_viewport_size({"width": 390, "height": 844})
    cut = "[...document.querySelectorAll('.prev-next-area a')].filter(" + (
        "e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert page.evaluate(cut) == 0
    if page.locator(".secondary-toggle").count() == 0:
        return
    page.locator(".secondary-toggle").first.click()
    drawer = page.locator("#pst-secondary-sidebar-modal")
    assert drawer.evaluate("e => e.open")
    link = drawer.locator("a[href^='#']:visible").last
    place = link.get_attribute("href")
    link.click()
    assert not drawer.evaluate("e => e.open")
    assert page.url.endswith(str(place))


#: Pages with a picture whose frames are files.
WITH_FRAMES = [
    name for name in ALL if "_images/frames/" in (HTML / name).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_FRAMES[:2])
def test_frames_are_fetched_when_a_reader_touches_the_picture(
    browser: Browser, site: str, name: str
) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site + name, wait_until="load")
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    picture = page.locator("figure.explore:has(img)").first
    picture.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    frames = picture.locator("img")
    missing = "e => [...e.querySelectorAll('img')].filter(i => !i.naturalWidth).length"
    assert picture.evaluate(missing) == frames.count() - 1
    picture.locator("input").first.focus()
    page.wait_for_function(
        "picture => [...picture.querySelectorAll('img')].every(i => i.naturalWidth)",
        arg=picture.element_handle(),
    )
    assert sum("/frames/" in url for url in asked) >= frames.count()
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_one_heading_and_describes_itself(
    look: Callable[[str], Look], name: str
) -> None:
    facts = look(name).facts["light"]
    assert facts["headings"] == 1
    assert facts["description"]
    assert facts["language"] == "en"
    assert facts["images_without_text"] == []
    assert facts["broken_images"] == []


@pytest.mark.parametrize("name", PAGES)
def test_mathematics_is_typeset_in_the_page(look: Callable[[str], Look], name: str) -> None:
    """KaTeX ran at build time: no raw TeX is left, no formula failed, and its fonts are loaded."""
    facts = look(name).facts["light"]
    assert facts["failed_formulas"] == 0
    assert facts["raw_formulas"] == 0
    assert facts["formula_font"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(look: Callable[[str], Look], name: str) -> None:
    """At 390 px nothing sticks out: wide tables, code and formulas scroll inside themselves."""
    assert look(name).facts["phone"]["width"] <= 390


@pytest.mark.parametrize("name", PAGES)
def test_formulas_fit_a_large_screen_and_what_scrolls_shows_so(
    look: Callable[[str], Look], name: str
) -> None:
    """On a phone as well: what is wider than its box has shadows on the sides that hide some."""
    facts = look(name).facts
    assert facts["light"]["wide_formulas"] == []
    for kind in KINDS:
        assert facts[kind]["cut_without_hint"] == []


@pytest.mark.parametrize("name", PAGES)
def test_no_line_of_a_phone_begins_with_a_full_stop_and_printed_sentences_wrap(
    look: Callable[[str], Look], name: str
) -> None:
    """A formula may end a line, and then a browser would part it from the sign behind it."""
    facts = look(name).facts["phone"]
    assert facts["stops_alone"] == []
    assert facts["sentences_cut"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_words_of_drawings_can_be_read_on_the_page_itself(
    look: Callable[[str], Look], name: str, scheme: str
) -> None:
    """Drawings are part of the page, in its colours; a file would be black on white in the dark."""
    facts = look(name).facts[scheme]
    assert facts["drawings_as_files"] == []
    assert [seen for seen in facts["words_of_drawings"] if seen[0] < 4.5] == []
    assert {seen[2] for seen in facts["words_of_drawings"]} <= {facts["page_background"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_and_links_can_be_read(look: Callable[[str], Look], name: str, scheme: str) -> None:
    """Contrast of running text and links against the page is at least 4.5 to 1 (WCAG AA)."""
    facts = look(name).facts[scheme]
    assert facts["theme"] == scheme
    assert len(facts["contrast"]) >= 1
    assert [seen for seen in facts["contrast"] if seen[0] < 4.5] == []


#: Measured in the page; contrast is that of the article's first pieces of text.
FACTS = """
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
  const contrast = element => {
    const a = luminance(parse(getComputedStyle(element).color));
    const b = luminance(background(element));
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), element.textContent.slice(0, 60)];
  };
  const text = 'p, a:not(.headerlink), h1, h2, h3, code, figcaption, .output pre, ' +
    'form.guess label, form.guess button, .outcome > summary, .guess-table :is(th, td, button)';
  // The sign behind a formula stands right of the formula's last part, in the same line.
  const alone = joined => {
    const range = document.createRange();
    range.selectNodeContents(joined.lastChild);
    const sign = range.getClientRects()[0];
    const part = [...joined.querySelectorAll('.katex-html > .base')].at(-1);
    const end = part.getBoundingClientRect();
    return sign.left < end.right - 1 || sign.top > end.bottom || sign.bottom < end.top;
  };
  const cut = sentence => {
    const right = sentence.closest('pre').getBoundingClientRect().right;
    return [...sentence.getClientRects()].some(line => line.right > right);
  };
  const formulas = [...document.querySelectorAll('main .math')];
  // Boxes within a closed result have no width, and are looked at where it is opened.
  const scrolls = e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1;
  const hinted = e => getComputedStyle(e).backgroundImage.split('linear-gradient').length === 5 &&
    getComputedStyle(e).backgroundAttachment === 'local, local, scroll, scroll';
  const wide = [...document.querySelectorAll(
    'main article :is(.katex-display, .pst-scrollable-table-container, pre)')].filter(scrolls);
  return {
    headings: document.querySelectorAll('main article h1').length,
    description: document.querySelector('meta[name="description"]')?.content ?? '',
    language: document.documentElement.lang,
    theme: document.documentElement.dataset.theme,
    width: document.documentElement.scrollWidth,
    images_without_text: [...document.images].filter(i => !i.alt.trim())
      .map(i => i.src.slice(0, 80)),
    broken_images: [...document.images].filter(i => i.complete && !i.naturalWidth)
      .map(i => i.src.slice(0, 80)),
    failed_formulas: document.querySelectorAll('.katex-error').length,
    raw_formulas: formulas.filter(f => !f.querySelector('.katex')).length,
    formula_font: !formulas.length ||
      [...document.fonts].some(f => f.family.includes('KaTeX') && f.status === 'loaded'),
    stops_alone: [...document.querySelectorAll('main .joined')]
      .filter(e => e.checkVisibility() && alone(e)).map(e => e.textContent.slice(0, 60)),
    wide_formulas: wide.filter(e => e.matches('.katex-display'))
      .map(e => e.textContent.slice(0, 60)),
    cut_without_hint: wide.filter(e => !hinted(e)).map(e => e.textContent.slice(0, 60)),
    sentences_cut: [...document.querySelectorAll('main pre .printed-sentence')]
      .filter(e => e.checkVisibility() && cut(e)).map(e => e.textContent.slice(0, 60)),
    drawings_as_files: [...document.querySelectorAll('main article img[src$=".svg"]')]
      .map(i => i.getAttribute('src')),
    words_of_drawings: [...document.querySelectorAll('main svg.drawing text')]
      .map(e => [...contrast(e), background(e).join()]),
    page_background: background(document.querySelector('main')).join(),
    contrast: [...document.querySelectorAll('main article :is(' + text + ')')]
      .filter(e => e.textContent.trim() && e.checkVisibility()).slice(0, 400).map(contrast),
  };
}
"""


# --- results that wait for a guess ----------------------------------------------------------------

#: Pages that ask for a guess.
ASKING = [
    name for name in ALL if '<form class="guess"' in (HTML / name).read_text(encoding="utf-8")
]
#: One page is enough for what the script does everywhere alike.
one_page = pytest.mark.parametrize("name", ASKING[:1])
each_asking = pytest.mark.parametrize("name", [name for name in ASKING if name in PAGES])

#: Forms and results of a page, as they are.
STATE = """
() => ({
  forms: [...document.querySelectorAll('form.guess')].map(f => [f.dataset.guess, !f.hidden]),
  outcomes: [...document.querySelectorAll('details.outcome')].map(o => ({
    keys: JSON.parse(o.dataset.guess), open: o.open,
    title: o.querySelector('summary').innerText, text: o.innerText,
  })),
  rows: [...document.querySelectorAll('.guess-table tbody tr')]
    .map(row => [row.dataset.guess, ...[...row.querySelectorAll('td')].map(c => c.textContent)]),
  truths: Object.fromEntries([...document.querySelectorAll('.guess-table tbody tr')]
    .map(row => [row.dataset.guess, row.dataset.truth])),
  focus: document.activeElement?.id ?? '',
  said: [...document.querySelectorAll('.guess-status')].map(s => s.textContent).filter(Boolean),
})
"""


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Callable[..., Page]]:
    """Opens a page in a fresh profile, with what a visitor's browser may lack."""
    contexts = []

    def open_page(name: str, *, script: bool = True, storage: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": 1280, "height": 900},
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        contexts.append(context)
        if not storage:
            context.add_init_script(
                "Object.defineProperty(window, 'localStorage', {get() { throw Error('none'); }})"
            )
        page = context.new_page()
        page.goto(site + name, wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()


@each_asking
def test_without_a_script_results_are_closed_and_a_click_opens_them(
    visit: Callable[..., Page], name: str
) -> None:
    page = visit(name, script=False)
    outcomes = page.locator("details.outcome")
    assert outcomes.count() >= 1
    for i in range(outcomes.count()):
        assert outcomes.nth(i).get_attribute("open") is None
        summary = outcomes.nth(i).locator("> summary")
        assert summary.inner_text() == "The result: make your guess first, then open it"
        assert not outcomes.nth(i).locator(".cell_output").first.is_visible()
        summary.press("Enter")
        assert outcomes.nth(i).locator(".cell_output").first.is_visible()
    assert not page.locator("form.guess").first.is_visible()
    assert not page.locator(".guess-table").first.is_visible()
    assert page.locator(".guess-stored-table").first.is_visible()


@each_asking
def test_a_guess_opens_its_result_and_is_there_after_a_reload(
    visit: Callable[..., Page], name: str
) -> None:
    page = visit(name)
    state = page.evaluate(STATE)
    assert all(shown for _, shown in state["forms"])
    assert not any(outcome["open"] for outcome in state["outcomes"])
    assert all(row[1:] == ["no guess yet", "not yet"] for row in state["rows"])
    keys = [key for key, _ in state["forms"]]
    assert keys == [row[0] for row in state["rows"]]
    assert all(state["truths"].values())
    for number, key in enumerate(keys):
        form = page.locator(f'form.guess[data-guess="{key}"]')
        form.get_by_role("textbox", name="Your guess").fill(f"about {number}")
        form.get_by_role("textbox", name="Your guess").press("Enter")
    for _ in range(2):
        state = page.evaluate(STATE)
        assert [row[:2] for row in state["rows"]] == [
            [key, f"about {number}"] for number, key in enumerate(keys)
        ]
        assert {row[0]: row[2] for row in state["rows"]} == state["truths"]
        for outcome in state["outcomes"]:
            assert outcome["open"]
            assert outcome["title"] == "The result"
            guessed = "; ".join(f"about {keys.index(key)}" for key in outcome["keys"])
            assert f"Your guess: {guessed}" in outcome["text"]
            for key in outcome["keys"]:
                said = f"You guessed about {keys.index(key)}; it is {state['truths'][key]}."
                assert said in outcome["text"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        page.reload(wait_until="load")
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_function(
            "scheme => document.documentElement.dataset.theme === scheme", arg=scheme
        )
        facts = page.evaluate(FACTS)
        assert [seen for seen in facts["contrast"] if seen[0] < 4.5] == []
        assert (facts["stops_alone"], facts["sentences_cut"]) == ([], [])
        assert facts["cut_without_hint"] == []


@each_asking
def test_each_field_and_button_has_a_name(visit: Callable[..., Page], name: str) -> None:
    page = visit(name)
    for form in page.locator("form.guess").all():
        label = form.locator("label")
        assert len(label.inner_text()) > len("Your guess: ")
        assert label.get_attribute("for") == form.locator("input").get_attribute("id")
        assert form.get_by_role("button", name="Enter my guess").count() == 1
        assert form.locator(".guess-status").get_attribute("aria-live") == "polite"
    identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    named = [one for one in identifiers if one.startswith(("guess-", "outcome-"))]
    assert len(named) == len(set(named))


@one_page
def test_a_result_that_waits_leads_to_its_question_by_keyboard_alone(
    visit: Callable[..., Page], name: str
) -> None:
    page = visit(name)
    first = page.evaluate(STATE)["outcomes"][0]
    summary = page.locator("details.outcome > summary").first
    for press in ("Enter", "Space"):
        summary.press(press)
        state = page.evaluate(STATE)
        assert not state["outcomes"][0]["open"]
        assert state["focus"] == page.locator("form.guess input").first.get_attribute("id")
        assert "opens when you have entered a guess" in state["said"][0]
    outline = "e => getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")  # nothing typed
    assert "a rough one will do" in page.evaluate(STATE)["said"][0]
    assert not page.evaluate(STATE)["outcomes"][0]["open"]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Show it anyway"
    page.keyboard.press("Enter")
    state = page.evaluate(STATE)
    assert state["outcomes"][0]["open"]
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    key = first["keys"][0]
    assert "Your guess:" not in state["outcomes"][0]["text"]
    assert "You guessed" not in state["outcomes"][0]["text"]
    assert state["rows"][0] == [key, "no guess yet", state["truths"][key]]


@one_page
def test_guesses_hold_where_nothing_can_be_stored_and_can_be_forgotten(
    visit: Callable[..., Page], name: str
) -> None:
    page = visit(name, storage=False)
    page.locator("form.guess input").first.fill("<b>3</b>")
    page.locator("form.guess button[type=submit]").first.click()
    state = page.evaluate(STATE)
    assert state["outcomes"][0]["open"]
    assert "Your guess: <b>3</b>" in state["outcomes"][0]["text"]
    page.get_by_role("button", name="Forget my guesses").click()
    state = page.evaluate(STATE)
    assert not state["outcomes"][0]["open"]
    assert state["rows"][0][1:] == ["no guess yet", "not yet"]


@one_page
def test_a_link_into_a_result_opens_it_and_print_shows_all(
    visit: Callable[..., Page], name: str
) -> None:
    page = visit(name)
    page.evaluate("document.querySelector('.outcome .cell_output').id = 'inside'")
    page.evaluate("location.hash = '#inside'")
    page.wait_for_function("document.querySelector('details.outcome').open")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    outcomes = page.evaluate(STATE)["outcomes"]
    assert all((outcome["open"], outcome["title"]) == (True, "The result") for outcome in outcomes)
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert "enter your guess" in page.evaluate(STATE)["outcomes"][-1]["title"]
    opened = [outcome["open"] for outcome in page.evaluate(STATE)["outcomes"]]
    assert opened == [True] + [False] * (len(opened) - 1)


#: What is stored of the page's guesses.
STORED = "'guesses:' + location.pathname"


@one_page
@pytest.mark.parametrize("stored", ["5", '"x"', "[1]", "null", "{"])
def test_what_is_stored_may_be_anything(visit: Callable[..., Page], name: str, stored: str) -> None:
    page = visit(name)
    page.evaluate(f"stored => localStorage.setItem({STORED}, stored)", stored)
    page.reload(wait_until="load")
    page.locator("form.guess input").first.fill("3")
    page.locator("form.guess input").first.press("Enter")
    assert page.evaluate(STATE)["outcomes"][0]["open"]


@one_page
def test_two_tabs_keep_each_other_s_guesses(visit: Callable[..., Page], name: str) -> None:
    one = visit(name)
    other = one.context.new_page()
    other.goto(one.url, wait_until="load")
    other.locator("form.guess input").nth(1).fill("typed, not entered")
    for page, i in ((one, 0), (other, 1)):
        page.locator("form.guess input").nth(i).press("Home")
        page.locator("form.guess input").nth(i).type("3 ")
        page.locator("form.guess input").nth(i).press("Enter")
        page.wait_for_timeout(200)  # the other tab hears of it by an event
    wanted = ["3", "3 typed, not entered"]
    for page in (one, other):
        page.wait_for_function(
            "() => document.querySelector('.guess-table tr:nth-child(2) td').textContent[0] === '3'"
        )
        assert [row[1] for row in page.evaluate(STATE)["rows"][:2]] == wanted
    one.reload(wait_until="load")
    assert [row[1] for row in one.evaluate(STATE)["rows"][:2]] == wanted


@one_page
def test_an_address_that_names_nothing_raises_no_error(
    visit: Callable[..., Page], name: str
) -> None:
    page = visit(name)
    faults = faults_of(page)
    for place in ("#%", "#nowhere", "#"):
        page.goto(page.url.partition("#")[0] + place)
        page.reload(wait_until="load")
    assert faults == []


@one_page
def test_another_guess_leaves_the_reader_where_it_was_entered(
    visit: Callable[..., Page], name: str
) -> None:
    """And not at the result whose title was clicked before, far below."""
    page = visit(name)
    page.locator("details.outcome > summary").last.click()
    field = page.locator("form.guess input").first
    field.fill("3")
    field.press("Enter")
    state = page.evaluate(STATE)
    assert state["outcomes"][0]["open"]
    assert not state["outcomes"][-1]["open"]
    assert state["focus"] == field.get_attribute("id")
    page.locator(".guess-skip").last.press("Enter")
    assert page.evaluate(STATE)["outcomes"][-1]["open"]
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_result_of_two_guesses_opens_after_both(visit: Callable[..., Page]) -> None:
    two = re.compile(r'<details class="outcome"[^>]*data-guess="[^"]*&quot;, &quot;')
    page = visit(next(name for name in ASKING if two.search((HTML / name).read_text("utf-8"))))
    state = page.evaluate(STATE)
    number = next(i for i, outcome in enumerate(state["outcomes"]) if len(outcome["keys"]) == 2)
    first, second = state["outcomes"][number]["keys"]
    page.locator("details.outcome > summary").nth(number).press("Enter")
    for key in (first, second):
        assert not page.evaluate(STATE)["outcomes"][number]["open"]
        page.locator(f'form.guess[data-guess="{key}"] .guess-skip').press("Enter")
    state = page.evaluate(STATE)
    assert state["outcomes"][number]["open"]
    assert state["said"] == ["The result is open. Go to the result"]
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


@one_page
def test_a_guess_of_one_long_word_fits_a_phone(visit: Callable[..., Page], name: str) -> None:
    page = visit(name)
    page.set_viewport_size({"width": 390, "height": 844})
    for field in page.locator("form.guess input").all():
        field.fill("W" * 80)
        field.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


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


def test_the_reference_has_a_place_for_every_public_name() -> None:
    """A link from elsewhere, and the search, lead to the very name."""
    from tools import reference

    for package in reference.PACKAGES:
        page = HTML / "book" / "reference" / f"{package}.html"
        wanted = {name for names in reference.by_module()[package].values() for name in names}
        assert wanted <= read_links(page).places
        assert page.stat().st_size < 700_000
