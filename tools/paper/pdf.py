"""The whole book as one PDF, printed by Chromium.

All pages become one document, so that links between them lead to places in it. Its headings are its
outline, and their page numbers go into a table of contents, which is printed by itself and put
before it.
"""

from __future__ import annotations

import html
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bs4 import BeautifulSoup
from pikepdf import ObjectStreamMode, Pdf
from pypdf import PdfReader, PdfWriter
from pypdf.constants import PageLabelStyle
from pypdf.generic import ArrayObject, Destination, FloatObject, NameObject, NullObject

from tools import chapters, chromium
from tools.paper import pages
from tools.paper.pages import Page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: Milliseconds for a thousand pages of a busy machine.
PATIENCE = 1_200_000

#: The width of the text on A4 in CSS pixels: 210 mm less two margins of 17 mm (print.css).
TEXT_WIDTH = round((210 - 2 * 17) / 25.4 * 96)

#: A link of the table of contents has this address until the pages are put together.
MARK = "https://contents.invalid/"

#: Formulas wider than the page get a smaller type; in the page, as only it knows its widths.
SHRINK = """
() => document.querySelectorAll(".katex-display").forEach(box => {
  const ratio = box.clientWidth / box.scrollWidth;
  if (ratio < 1) box.style.fontSize = `${Math.floor(98 * ratio)}%`;
})
"""

#: What sticks out of the page on the right, as Chromium would make everything smaller for it.
TOO_WIDE = """
width => [...document.querySelectorAll(".bd-article *")].filter(element => {
  if (!element.checkVisibility() || element.closest(".katex-mathml, svg")) return false;
  const box = element.getBoundingClientRect();
  return box.width > 1 && box.right > width + 2;
}).map(element => `${element.tagName} ${element.textContent.trim().slice(0, 60)}`).slice(0, 5)
"""

#: Fonts and pictures are loaded; the addresses of pictures that are not.
READY = """
async () => {
  await document.fonts.ready;
  const images = [...document.images];
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  return images.filter(image => !image.naturalWidth).map(image => image.src.slice(0, 200));
}
"""


# --- one document --------------------------------------------------------------------------------


def style_sheets(first: Path) -> list[str]:
    """The paths of the style sheets of a page of the site."""
    soup = BeautifulSoup(first.read_text(encoding="utf-8"), "html.parser")
    links = [str(link["href"]) for link in soup.select('link[rel~="stylesheet"]')]
    return [pages.resolve("book/index", link.split("?")[0])[0] for link in links]


def shell(body: str, style: str, site: Path) -> str:
    """A document with the site's style sheets, in its light colours, and without a script."""
    sheets = "".join(
        f'<link rel="stylesheet" href="{(site / sheet).as_uri()}">'
        for sheet in style_sheets(site / "book" / "index.html")
    )
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"><title>Trained to Predict</title>{sheets}<style>{style}</style>'
        f'</head><body class="on-paper">{body}</body></html>'
    )


def lower_headings(page: Page) -> None:
    """A chapter stands below its part: its title becomes a heading of level two, and so on."""
    for tag in page.article.find_all(["h1", "h2", "h3", "h4", "h5"]):
        level = int(tag.name[1])
        tag["class"] = " ".join([*pages.classes(tag), f"was-h{level}"])
        tag.name = f"h{level + 1}"


def opener(part: str, own: list[Page]) -> str:
    """The page that begins a part."""
    links = "".join(f'<li><a href="#{p.slug}">{html.escape(p.title)}</a></li>' for p in own)
    return (
        f'<section class="bd-article part"><h1>{html.escape(part)}</h1><ul>{links}</ul></section>'
    )


def document(book: list[Page], site: Path) -> str:
    """All pages in one HTML document."""
    known = {page.name for page in book}
    body, style, part = [], [], ""
    for page in book:
        if page.part != part:
            part = page.part
            body.append(opener(part, [other for other in book if other.part == part]))
        pages.prefix_places(page, f"{page.slug}--")
        pages.rewrite(
            page,
            lambda name, place: f"#{pages.slug(name)}" + (f"--{place}" if place else ""),
            lambda path: (site / path).as_uri(),
            known,
        )
        if page.part:
            lower_headings(page)
        running = page.title.replace("\\", "\\\\").replace('"', '\\"')
        style.append(f'@page {page.slug} {{ @top-right {{ content: "{running}" }} }}')
        page.article["id"] = page.slug
        page.article["style"] = f"page: {page.slug}"
        body.append(str(page.article))
    return shell("".join(body), "".join(style), site)


# --- printed -------------------------------------------------------------------------------------


def printed(browser: Browser, text: str, *, tagged: bool) -> bytes:
    """A document as PDF; ValueError for what cannot be shown or is wider than the page."""
    page = browser.new_page(viewport={"width": TEXT_WIDTH, "height": 900}, color_scheme="light")
    page.set_default_timeout(PATIENCE)
    page.emulate_media(media="print")
    pages.OUT.mkdir(parents=True, exist_ok=True)
    # Below the home folder: Ubuntu's Chromium does not see /tmp.
    with tempfile.TemporaryDirectory(dir=pages.OUT) as folder:
        path = Path(folder) / "printed.html"
        path.write_text(text, encoding="utf-8")
        page.goto(path.as_uri(), wait_until="load")
    broken = page.evaluate(READY)
    if broken:
        raise ValueError(f"pictures that cannot be shown: {', '.join(broken)}")
    page.evaluate(SHRINK)
    wide = page.evaluate(TOO_WIDE, TEXT_WIDTH)
    if wide:
        raise ValueError(f"wider than the page: {'; '.join(wide)}")
    made = page.pdf(
        format="A4", print_background=True, prefer_css_page_size=True, tagged=tagged, outline=tagged
    )
    page.close()
    return made


def headings(reader: PdfReader) -> list[Destination]:
    """The first page's heading, and those of the parts and of their pages, in order."""
    found: list[Destination] = []
    for item in reader.outline:
        if isinstance(item, Destination):
            found.append(item)
        elif len(found) > 1:  # the first page has sections, parts have pages
            found += [one for one in item if isinstance(one, Destination)]
    return found


def contents(book: list[Page], numbers: list[int], site: Path) -> str:
    """Title page and table of contents, as a document; `numbers` are those of `headings`."""
    rows, part, at = [], "", 0

    def row(kind: str, text: str) -> str:
        nonlocal at
        link = f'<a href="{MARK}{at}"><span>{html.escape(text)}</span><b></b>{numbers[at]}</a>'
        at += 1
        return f'<p class="{kind}">{link}</p>'

    for page in book:
        if page.part != part:
            part = page.part
            rows.append(row("contents-part", part))
        rows.append(row("contents-page", page.title))
    if at != len(numbers):
        raise ValueError(f"the book has {at} parts and pages, its outline {len(numbers)}")
    title = (
        '<section class="title-page"><p class="title-of-book">Trained to Predict</p>'
        f"{pages.about_book()}</section>"
    )
    listed = (
        f'<section class="contents"><p class="contents-title">Contents</p>{"".join(rows)}</section>'
    )
    roman = "@page { @bottom-center { content: counter(page, lower-roman) } }"
    return shell(f'<div class="bd-article front">{title}{listed}</div>', roman, site)


def put_together(body: PdfReader, front: PdfReader) -> bytes:
    """The front pages before the others, with links, numbers of pages and a title."""
    writer = PdfWriter(clone_from=body)
    targets = headings(body)
    for number, page in enumerate(front.pages):
        writer.insert_page(page, number)
    count = len(front.pages)
    for page in writer.pages[:count]:
        for reference in page.get("/Annots", ArrayObject()):
            link = reference.get_object()
            address = str(link.get("/A", {}).get("/URI", ""))
            if address.startswith(MARK):
                target = targets[int(address.removeprefix(MARK))]
                place = writer.pages[count + number_of(body, target)]
                del link["/A"]
                link[NameObject("/Dest")] = ArrayObject(
                    [
                        place.indirect_reference, NameObject("/XYZ"),
                        NullObject(), FloatObject(target.top or 0), NullObject(),
                    ]
                )  # fmt: skip
    writer.set_page_label(0, count - 1, style=PageLabelStyle.LOWERCASE_ROMAN)
    writer.set_page_label(count, len(writer.pages) - 1, style=PageLabelStyle.DECIMAL)
    author = chapters.project()["project"]["authors"][0]["name"]
    writer.add_metadata({"/Title": "Trained to Predict", "/Author": author})
    made = io.BytesIO()
    writer.write(made)
    return compressed(made)


def compressed(made: io.BytesIO) -> bytes:
    """A PDF with its small objects packed together: what names the structure for screen readers is
    two hundred thousand of them, and more than half of the file."""
    smaller = io.BytesIO()
    with Pdf.open(made) as opened:
        opened.save(smaller, object_stream_mode=ObjectStreamMode.generate)
    return smaller.getvalue()


def number_of(reader: PdfReader, target: Destination) -> int:
    """The place of a heading's page, from 0."""
    found = reader.get_destination_page_number(target)
    if found is None:
        raise ValueError(f"the heading {target.title} is on no page")
    return found


def made(opened: Browser, book: list[Page], site: Path = pages.HTML) -> bytes:
    """A book as PDF."""
    body = PdfReader(io.BytesIO(printed(opened, document(book, site), tagged=True)))
    numbers = [1 + number_of(body, target) for target in headings(body)]
    front = printed(opened, contents(book, numbers, site), tagged=False)
    return put_together(body, PdfReader(io.BytesIO(front)))


def write(book: list[Page], path: Path) -> None:
    """Print a book to `path`."""
    with chromium.running() as opened:
        content = made(opened, book)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
