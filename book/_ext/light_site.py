"""A Sphinx extension: what a page loads at first is small. Plain Sphinx, no Jupyter Book.

When the pages are written, the pictures inside their HTML become files of their own, which a
browser fetches when they come into view; the icons' fonts keep the icons that are used; and the
styles of all other icons go. `book/assets/site.js` fetches the other frames of a picture with a
slider once a reader touches it. The search's scripts are on its own page (book/_templates).
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

#: A picture inside the HTML of a page. SVG is text, small, and drawn by the page itself.
INLINE = re.compile(r'src="data:image/(?P<kind>webp|png|jpeg);base64,(?P<data>[A-Za-z0-9+/=\s]+)"')

#: Where those pictures go, below the site's root.
FRAMES = "_images/frames"


def pictures_to_files(page: str, site: Path, up: str) -> str:
    """The HTML of a page with its inline pictures written below `site`.

    up: the way from the page to the site's root, such as "../".
    """

    def move(found: re.Match[str]) -> str:
        data = base64.b64decode(found["data"])
        name = f"{hashlib.sha256(data).hexdigest()[:16]}.{found['kind']}"
        folder = site / FRAMES
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return f'loading="lazy" src="{up}{FRAMES}/{name}"'

    return INLINE.sub(move, page)


#: A picture of a cell as myst-nb writes it, and one of `explore`: both say how large they are.
SIZED = re.compile(r' style="width: (?P<w>\d+)px; height: (?P<h>\d+)px;"(?= />)')
FRAME = re.compile(r'(?<=<img)(?P<rest>[^>]*? class="dark-light"[^>]*? width="(?P<w>\d+)")')


def sized_pictures(page: str) -> str:
    """The HTML of a page whose pictures keep their place before they are there.

    `--natural` is what the style sheet holds a picture's width against on a phone.
    """
    page = SIZED.sub(
        r' loading="lazy" width="\g<w>" height="\g<h>" style="--natural: \g<w>px; width: \g<w>px"',
        page,
    )
    return FRAME.sub(r' style="--natural: \g<w>px"\g<rest>', page)


# --- what assistive technology reads -------------------------------------------------------------

#: The theme's markup, and what it should be: names that agree with what is seen, roles that exist.
NAMES = (
    ('title="Search" aria-label="Search"', 'title="Search"'),
    ('<span class="search-button__kbd-shortcut">',
     '<span class="search-button__kbd-shortcut" aria-hidden="true">'),
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ('<summary><span class="toctree-toggle"',
     '<summary aria-label="More pages"><span class="toctree-toggle"'),
    ('<th class="head"><p></p></th>', "<td></td>"),  # the corner of a table heads nothing
    ('<p aria-level="2" class="caption" role="heading">', '<p class="caption">'),
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    (' role="doc-biblioentry"', ""),  # given up by the standard that had it
)  # fmt: skip

#: A signature in the reference, and what stands in it for a list, which may not be there.
SIGNATURE = re.compile(r'(?s)<dt class="sig .*?</dt>')
LINES = {
    "<dl>": '<span class="sig-lines">', "</dl>": "</span>", "<dd>": '<span class="sig-line">',
    "</dd>": "</span>",
}  # fmt: skip


def named_controls(page: str) -> str:
    """The HTML of a page with the theme's names and roles mended."""
    for old, new in NAMES:
        page = page.replace(old, new)
    return SIGNATURE.sub(
        lambda found: re.sub("</?d[ld]>", lambda tag: LINES[tag[0]], found[0]), page
    )


# --- the first paint -----------------------------------------------------------------------------

#: A script of its own that the page waits for, and lines that speak of what such a script made.
WAITED_FOR = re.compile(r"<script(?![^>]* (?:defer|async|type))(?P<rest>[^>]* src=)")
LATER = re.compile(r"<script(?=>DOCUMENTATION_OPTIONS\.)")


def early_paint(page: str) -> str:
    """The HTML of a page that is painted before its scripts are there, and light without them.

    Scripts keep their order; lines within the page that use one of them wait, as a module does.
    """
    page = WAITED_FOR.sub(r"<script defer\g<rest>", page)
    page = LATER.sub('<script type="module"', page)
    return page.replace('data-theme="auto"', 'data-theme="light"', 1)


# --- icons ---------------------------------------------------------------------------------------

#: One icon in the theme's style sheet: its class names, and its place in the font.
ICON = re.compile(r'(?P<names>(?:\.fa-[\w-]+:{1,2}before,?)+)\{content:"(?P<text>\\?[^"]*)"\}')

#: A sign of the font in a style sheet, by its number or as itself.
SIGN = re.compile(r"\\([ef][0-9a-f]{3})|([\ue000-\uf8ff])")

#: The styles that make an icon turn, beat or grow, which no page uses.
MOVING = re.compile(r"@(?:-webkit-)?keyframes fa-[\w-]+\{(?:[^{}]*\{[^{}]*\})*\}")

FONT = re.compile(
    r'url\(\.\./vendor/fontawesome/webfonts/(fa-[\w-]+)\.woff2\) format\("woff2"\),\s*'
    r'url\([^)]*\.ttf\) format\("truetype"\)'
)


def used_icons(texts: Iterable[str]) -> set[str]:
    """The names of all icons in pages and scripts: fa-bars and the like."""
    return {name for text in texts for name in re.findall(r"\bfa-[a-z0-9-]+", text)}


def few_icons(css: str, used: set[str]) -> str:
    """The theme's style sheet without the icons that nothing uses."""

    def keep(found: re.Match[str]) -> str:
        names = re.findall(r"\.(fa-[\w-]+):", found["names"])
        wanted = [name for name in names if name in used]
        if not wanted:
            return ""
        selector = ",".join(f".{name}:before" for name in wanted)
        return f'{selector}{{content:"{found["text"]}"}}'

    return MOVING.sub("", ICON.sub(keep, css))


def small_font(path: Path, signs: set[int]) -> bytes:
    """The font at `path` with these signs only, as woff."""
    font = TTFont(path)
    options = subset.Options(layout_features=[], notdef_outline=True, name_IDs=[1, 2])
    options.flavor = "woff"
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=signs)
    subsetter.subset(font)
    font.flavor = "woff"
    out = io.BytesIO()
    font.save(out)
    return out.getvalue()


def shrink_icons(site: Path, pages: Iterable[str]) -> None:
    """Rewrite the theme's style sheet, and put fonts with the icons in use inside it."""
    static = site / "_static"
    sheet = static / "styles" / "pydata-sphinx-theme.css"
    css = sheet.read_text(encoding="utf-8")
    if not FONT.search(css):
        return  # an earlier build of these files did it
    scripts = [path.read_text(encoding="utf-8") for path in static.glob("scripts/*.js")]
    css = few_icons(css, used_icons([*pages, *scripts]))
    others = (static / "styles" / "sphinx-book-theme.css", *static.glob("*.css"))
    texts = [css, *(path.read_text(encoding="utf-8") for path in others)]
    found = [pair for text in texts for pair in SIGN.findall(text)]
    signs = {int(number, 16) if number else ord(itself) for number, itself in found}

    def inside(found: re.Match[str]) -> str:
        font = small_font(static / "vendor/fontawesome/webfonts" / f"{found[1]}.ttf", signs)
        return f'url(data:font/woff;base64,{base64.b64encode(font).decode()}) format("woff")'

    sheet.write_text(FONT.sub(inside, css), encoding="utf-8")


#: What the theme brings and no page loads: sources of scripts and styles, fonts, translations.
UNUSED = (
    "**/*.map",
    "vendor/fontawesome/**/*",
    "locales/**/*",
    "webpack-macros.html",
    "sbt-*.html",
)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Make the written pages small."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    pages = []
    for path in site.rglob("*.html"):
        if "_static" in path.parts:
            continue
        before = path.read_text(encoding="utf-8")
        up = "../" * (len(path.relative_to(site).parts) - 1)
        after = early_paint(named_controls(sized_pictures(pictures_to_files(before, site, up))))
        if after != before:
            path.write_text(after, encoding="utf-8")
        pages.append(after)
    shrink_icons(site, pages)
    for pattern in UNUSED:
        for path in (site / "_static").glob(pattern):
            if path.is_file():
                path.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("build-finished", finish, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
