"""One row for each page of the built site: weight, stillness, accessibility, code, legibility.

`make site-test` prints the table (_build/site-table.txt) and holds the bars below. Bytes are those
of a server that compresses text, as all do. Without the package axe-playwright-python the columns
of axe are empty, and with CI=true that is a failure.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browsed_site
import pytest
from browsed_site import IN_CI, PAGES, ROOT
from playwright.sync_api import Browser, Page

from tools import chapters

pytestmark = pytest.mark.browser
browser, site = browsed_site.browser, browsed_site.site  # fixtures

TABLE = ROOT / "_build" / "site-table.txt"

#: The bars. Kilobytes are 1,000 bytes.
MOST_KILOBYTES = 700
MOST_SHIFT = 0.025
LEAST_LABEL = 9.0
MOST_WIDE_CODE = 0.1
MOST_SCREENS = {1280: 2.0, 390: 2.6}

#: Points of the smallest lettering in figures, as `companion.figures` draws them.
FIGURE_POINTS = 10

NOTEBOOKS = {
    p.relative_to(ROOT).with_suffix(".html").as_posix() for p in chapters.toc_notebooks()
} & {*PAGES}


def axe_script() -> str:
    """The checker's script; empty where its package is not installed."""
    try:
        import axe_playwright_python
    except ModuleNotFoundError:
        if IN_CI:
            pytest.fail("axe-playwright-python is missing: pip install -e '.[dev]'")
        return ""
    return Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


RULES = """
(only) => axe.run(document, {
  runOnly: only.length ? {type: 'rule', values: only}
    : {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']},
  rules: only.length ? {} : {'label-content-name-mismatch': {enabled: true}},
  resultTypes: ['violations'],
}).then(found => found.violations.flatMap(rule => rule.nodes.map(node =>
  `${rule.id}: ${node.target.join(' ')}`)))
"""

SHIFTS = """
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) {
    if (!entry.hadRecentInput) window.shifted = (window.shifted ?? 0) + entry.value;
  }
}).observe({type: 'layout-shift', buffered: true});
"""

#: Code that is wider than its box, and where the first picture, form or guess stands.
LARGE = """
() => {
  const shown = e => e.checkVisibility({visibilityProperty: true});
  const code = [...document.querySelectorAll('.cell_input pre')].filter(shown);
  const wide = code.filter(e => e.scrollWidth > e.clientWidth + 1);
  const first = [...document.querySelectorAll('main article :is(.cell_output img, svg.drawing, ' +
    'form.guess, figure, .explore, .play)')].filter(shown)[0];
  const top = first ? first.getBoundingClientRect().top + scrollY : Infinity;
  return {code: code.length, wide: wide.length, screens: top / innerHeight};
}
"""

#: What a phone shows: the height of the smallest lettering, in pixels of the screen.
SMALL = """
(points) => {
  const shown = e => e.checkVisibility({visibilityProperty: true});
  const drawn = [...document.querySelectorAll('main svg text')].filter(shown)
    .map(e => {
      const svg = e.ownerSVGElement;
      const scale = svg.getScreenCTM().a;
      return [parseFloat(getComputedStyle(e).fontSize) * scale, e.textContent];
    });
  const figures = [...document.querySelectorAll('main img[style*="--natural"]')].filter(shown)
    .map(e => {
      const width = e.clientWidth - 2 * parseFloat(getComputedStyle(e).paddingLeft);
      const scale = width / parseFloat(e.style.getPropertyValue('--natural'));
      return [points / 72 * 100 * scale, e.alt.slice(0, 40)];
    });
  const all = [...drawn, ...figures];
  return all.length ? all.reduce((a, b) => b[0] < a[0] ? b : a) : [Infinity, ''];
}
"""

#: Controls whose focus cannot be seen: no outline, and the shadow, rim and ground stay the same.
BLIND = """
() => {
  const look = e => {
    const s = getComputedStyle(e);
    return [s.boxShadow, s.borderColor, s.backgroundColor, s.textDecorationLine].join();
  };
  const blind = [];
  const seen = new Set();
  const controls = 'a[href], button, input, select, summary, [tabindex="0"]';
  for (const e of document.querySelectorAll(controls)) {
    const kind = `${e.tagName}.${e.className}`;
    if (seen.has(kind) || !e.checkVisibility({visibilityProperty: true})) continue;
    seen.add(kind);
    document.activeElement?.blur();
    const before = look(e);
    e.focus({focusVisible: true, preventScroll: true});
    if (document.activeElement !== e) continue;
    const s = getComputedStyle(e);
    const outlined = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0;
    const slider = e.matches('.explore input');  // its knob, or its label, has the outline
    if (!outlined && !slider && look(e) === before) blind.push(kind);
  }
  return blind;
}
"""


def on_the_way(url: str, body: bytes) -> int:
    """Bytes of a file as a server sends it: text is compressed."""
    packed = url.rsplit(".", 1)[-1].partition("?")[0] in {"png", "webp", "woff2", "woff", "jpg"}
    return len(body) if packed else len(gzip.compress(body, 6))


@pytest.fixture(scope="module")
def row(browser: Browser, site: str) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Measures a page, once; at the end the table is written."""
    rows: dict[str, dict[str, Any]] = {}
    script = axe_script()

    def checked(page: Page, only: list[str]) -> list[str] | None:
        if not script:
            return None
        if not page.evaluate("typeof axe === 'object'"):
            page.evaluate(script)
        found: list[str] = page.evaluate(RULES, only)
        return found

    @functools.cache
    def measure(name: str) -> dict[str, Any]:
        context = browser.new_context(
            viewport={"width": 1280, "height": 900}, reduced_motion="reduce"
        )
        context.add_init_script(SHIFTS)
        context.set_default_timeout(120_000)  # a busy machine is no fault of the page
        page = context.new_page()
        bodies: dict[str, int] = {}
        responses: list[Any] = []
        page.on("response", lambda response: responses.append(response))
        page.goto(site + name, wait_until="load")
        page.wait_for_load_state("networkidle")
        for response in responses:
            bodies[response.url] = on_the_way(response.url, response.body())
        row: dict[str, Any] = {"kilobytes": sum(bodies.values()) / 1000, "files": len(bodies)}
        row["html"] = bodies.get(site + name, 0) / 1000
        for place in range(30):  # what comes late may push what is read
            page.evaluate(f"window.scrollTo(0, {place} * 800)")
        row |= page.evaluate(LARGE)
        row["first"] = {1280: row["screens"]}
        row["blind"] = page.evaluate(BLIND)
        row["axe light"] = checked(page, [])
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        row["axe dark"] = checked(page, ["color-contrast"])
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(200)
        row["shift"] = page.evaluate("window.shifted ?? 0")
        row["first"][390] = page.evaluate(LARGE)["screens"]
        row["label"], row["where"] = page.evaluate(SMALL, FIGURE_POINTS)
        page.evaluate("window.scrollTo(0, 0)")  # elsewhere the header may cover half of a link
        row["axe phone"] = checked(page, [])
        context.close()
        rows[name] = row
        return row

    yield measure
    if rows:
        TABLE.write_text(table(rows), encoding="utf-8")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as text; "-" where nothing was measured."""

    def count(found: list[str] | None) -> str:
        return "-" if found is None else str(len(found))

    lines = [
        f"{'page':52}{'html kB':>8}{'all kB':>8}{'files':>6}{'shift':>7}{'axe l/d/p':>11}"
        f"{'blind':>6}{'code':>6}{'wide':>6}{'screens':>8}{'label px':>9}"
    ]
    for name, row in sorted(rows.items()):
        axe = "/".join(count(row[f"axe {kind}"]) for kind in ("light", "dark", "phone"))
        label = "-" if row["label"] == float("inf") else f"{row['label']:.1f}"
        screens = f"{row['screens']:.1f}" if name in NOTEBOOKS else "-"
        lines.append(
            f"{name.removeprefix('book/').removesuffix('.html'):52}{row['html']:8.0f}"
            f"{row['kilobytes']:8.0f}{row['files']:6}{row['shift']:7.3f}{axe:>11}"
            f"{len(row['blind']):6}{row['code']:6}{row['wide']:6}{screens:>8}{label:>9}"
        )
    total = sum(row["code"] for row in rows.values())
    wide = sum(row["wide"] for row in rows.values())
    lines.append(f"code cells that scroll sideways at 1280: {wide} of {total}")
    return "\n".join(lines) + "\n"


each_page = pytest.mark.parametrize("name", PAGES)
Row = Callable[[str], dict[str, Any]]


@each_page
def test_a_page_is_light_and_stays_still(row: Row, name: str) -> None:
    seen = row(name)
    assert seen["kilobytes"] <= MOST_KILOBYTES
    assert seen["shift"] < MOST_SHIFT


@each_page
def test_a_page_is_accessible_and_every_focus_is_seen(row: Row, name: str) -> None:
    seen = row(name)
    assert seen["blind"] == []
    for kind in ("axe light", "axe dark", "axe phone"):
        assert not seen[kind], kind


@pytest.mark.parametrize("name", PAGES)
def test_labels_of_figures_and_drawings_can_be_read_on_a_phone(row: Row, name: str) -> None:
    seen = row(name)
    assert seen["label"] >= LEAST_LABEL, seen["where"]


@pytest.mark.parametrize("width", MOST_SCREENS)
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_a_chapter_shows_a_picture_or_asks_for_a_guess_within_two_screens_or_three_of_a_phone(
    row: Row, name: str, width: int
) -> None:
    assert row(name)["first"][width] <= MOST_SCREENS[width]


def test_at_most_one_code_cell_in_ten_scrolls_sideways(row: Row) -> None:
    seen = [row(name) for name in sorted(NOTEBOOKS)]
    wide = sum(each["wide"] for each in seen)
    assert wide <= MOST_WIDE_CODE * sum(each["code"] for each in seen)
