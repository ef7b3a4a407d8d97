"""A Sphinx extension: what a site shows to those who come from elsewhere.

The landing page stands at the root address as well; each page says what a link to it shows
elsewhere (title, sentence, picture); `404.html`, `sitemap.xml` and `robots.txt` are made, and the
icon as pictures, for browsers and telephones that read no SVG; and the button "Suggest edit" of a
chapter opens an editor of notebooks, not the file's JSON.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from xml.sax.saxutils import escape

from docutils import nodes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path as Outline
from sphinx.application import Sphinx

CARD = "_static/card.png"
#: Pixels that those who show links ask for.
CARD_SIZE = (1200, 630)
CARD_ALT = (
    "Trained to Predict: objective mismatch and generalization in language models. Claims are "
    "measured against a known truth wherever there is one."
)

ICON = Path(__file__).resolve().parents[1] / "assets" / "favicon.svg"
#: Pixels of the icon's pictures, and whether corners are round: a telephone rounds them itself.
ICONS = {"favicon.png": (48, True), "apple-touch-icon.png": (180, False)}

ADDRESS = re.compile(r'(?P<start>\s(?:href|src|action|data-source)=")(?P<to>[^"#][^"]*)"')


def at_root(page: str, folder: str) -> str:
    """The HTML of a page in `folder`, for a place one level higher."""

    def move(found: re.Match[str]) -> str:
        to = found["to"]
        if urlparse(to).scheme or to.startswith("/"):
            return found[0]
        to = to.removeprefix("../") if to.startswith("../") else f"{folder}/{to}"
        return f'{found["start"]}{to}"'

    page = ADDRESS.sub(move, page)
    return page.replace('data-content_root="../"', 'data-content_root="./"')


def sitemap(base: str, pages: list[str]) -> str:
    """The sitemap of these pages; the landing page's address is the root."""
    lines = [f"  <url><loc>{escape(base + page)}</loc></url>" for page in pages]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">',
            *lines,
            "</urlset>\n",
        ]
    )


NOT_FOUND = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="description" content="There is no page at this address.">
<title>Page not found &#8212; {title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 15vh auto; max-width: 34rem;
  padding: 0 1rem; }}
a {{ color: LinkText; }}
input, button {{ font: inherit; min-height: 44px; padding: 0 .8rem; }}
</style>
</head>
<body>
<main>
<h1>Page not found</h1>
<p>There is no page at this address. It may have been renamed: look for it in
<a href="{base}">the table of contents</a>, or search the book.</p>
<form action="{base}search.html" method="get" role="search">
<label for="q">Search</label> <input id="q" type="search" name="q"> <button>Search</button>
</form>
</main>
</body>
</html>
"""


def card() -> Figure:
    """The picture that a link to the book shows elsewhere: its name, and the one idea as bars."""
    width, height = CARD_SIZE
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="#12343b")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    ax.text(80, 490, "Trained to Predict", size=54, color="white", family="DejaVu Serif")
    ax.text(
        80, 372, "Objective mismatch and generalization\nin language models",
        size=25, color="#cfe6ea", linespacing=1.4, family="DejaVu Sans",
    )  # fmt: skip
    floor = 250
    for i, above in enumerate((300, 210, 150, 105, 74, 52, 36, 25, 18, 12)):
        x = 80 + 104 * i
        ax.add_patch(Rectangle((x, 60), 80, floor - 130, color="#6cc3d0"))
        ax.add_patch(Rectangle((x, floor - 70), 80, above / 2, color="#f0b45c"))
    ax.text(80, 24, "the lowest possible loss, known exactly", size=17, color="#6cc3d0")
    ax.text(1116, 24, "still to be learnt", size=17, color="#f0b45c", ha="right")
    return figure


def outline(steps: str) -> Outline:
    """The line that an SVG path draws; M, H and C are known, with places from the origin."""
    points: list[tuple[float, float]] = []
    codes: list[int] = []
    for command, numbers in re.findall(r"([A-Za-z])([^A-Za-z]*)", steps):
        values = [float(value) for value in re.findall(r"-?\d*\.?\d+", numbers)]
        if command == "H":
            values.append(points[-1][1])
        known = {"M": (2, Outline.MOVETO), "H": (2, Outline.LINETO), "C": (6, Outline.CURVE4)}
        size, code = known.get(command, (0, Outline.STOP))
        if len(values) != size:
            raise ValueError(f"a path of the icon must be made of M, H and C, got {steps!r}")
        points += zip(values[::2], values[1::2], strict=True)
        codes += [int(code)] * (size // 2)
    return Outline(points, codes)


def icon(pixels: int, *, rounded: bool) -> Figure:
    """The icon of the site, favicon.svg, as a picture so many pixels high and wide."""
    root = ElementTree.parse(ICON).getroot()
    _, _, width, height = map(float, root.get("viewBox", "").split())
    figure = Figure(figsize=(pixels / 72, pixels / 72), dpi=72, facecolor="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    for element in root:
        kind = element.tag.rpartition("}")[2]
        of = {key: float(value) for key, value in element.items() if re.fullmatch(r"[\d.]+", value)}
        if kind == "rect":
            corner = of["rx"] if rounded else 0
            style = f"round,pad=0,rounding_size={corner}" if corner else "square,pad=0"
            ax.add_patch(
                FancyBboxPatch(
                    (0, 0), of["width"], of["height"], style, color=element.get("fill"), lw=0
                )
            )
        elif kind == "circle":
            ax.add_patch(Circle((of["cx"], of["cy"]), of["r"], color=element.get("fill"), lw=0))
        elif kind == "path":
            line = of["stroke-width"]
            dashes = [float(part) / line for part in element.get("stroke-dasharray", "").split()]
            ax.add_patch(
                PathPatch(
                    outline(element.get("d", "")), fill=False, edgecolor=element.get("stroke"),
                    lw=line * pixels / width, capstyle="round", ls=(0, dashes) if dashes else "-",
                )
            )  # fmt: skip
        else:
            raise ValueError(f"the icon must be made of rect, circle and path, got {kind}")
    return figure


def describe(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Add what a link to this page shows elsewhere."""
    if template != "page.html" or doctree is None:
        return
    base = app.config.html_baseurl
    root = name == app.config.root_doc
    if root:
        context["pageurl"] = base
    title = app.config.html_title if root else html.unescape(
        re.sub(r"<[^>]+>", "", str(context["title"]))
    )  # fmt: skip
    described = re.search(r'<meta content="([^"]*)" name="description"', context["metatags"])
    tags = {
        "og:type": "website" if root else "article",
        "og:site_name": app.config.html_title,
        "og:title": title,
        "og:description": html.unescape(described[1]) if described else "",
        "og:url": context.get("pageurl") or f"{base}{name}.html",
        "og:image": f"{base}{CARD}",
        "og:image:width": str(CARD_SIZE[0]),
        "og:image:height": str(CARD_SIZE[1]),
        "og:image:alt": CARD_ALT,
    }
    lines = [
        f'<meta property="{key}" content="{html.escape(value)}" />'
        for key, value in tags.items()
        if value
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    context["metatags"] += "\n".join(["", *lines, ""])


def editable(page: str) -> str:
    """The HTML of a page whose button "Suggest edit" opens notebooks in an editor of notebooks."""
    return re.sub(
        r"https://github\.com/([\w.-]+/[\w.-]+)/edit/([^\"]+\.ipynb)",
        r"https://github.dev/\1/blob/\2",
        page,
    )


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write the root's page and what goes with it."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    base = app.config.html_baseurl
    root = f"{app.config.root_doc}.html"
    for name in app.env.found_docs:
        path = site / f"{name}.html"
        if path.exists():
            before = path.read_text(encoding="utf-8")
            if (after := editable(before)) != before:
                path.write_text(after, encoding="utf-8")
    landing = (site / root).read_text(encoding="utf-8")
    (site / "index.html").write_text(at_root(landing, Path(root).parent.name), encoding="utf-8")
    missing = NOT_FOUND.format(base=html.escape(base), title=html.escape(app.config.html_title))
    (site / "404.html").write_text(missing, encoding="utf-8")
    others = sorted(f"{name}.html" for name in app.env.found_docs if f"{name}.html" != root)
    (site / "sitemap.xml").write_text(sitemap(base, ["", *others]), encoding="utf-8")
    robots = f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n"
    (site / "robots.txt").write_text(robots, encoding="utf-8")
    card().savefig(site / CARD)
    for file, (pixels, rounded) in ICONS.items():
        icon(pixels, rounded=rounded).savefig(site / "_static" / file, transparent=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("html-page-context", describe, priority=600)
    app.connect("build-finished", finish, priority=410)  # after light_site.py
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
