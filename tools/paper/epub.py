"""The whole book as one EPUB 3, with formulas as MathML.

Pages come from the built site and are written as XHTML by `xhtml`, which knows what HTML may leave
out and XML may not. Each picture becomes a file; WebP, which older readers lack, becomes PNG.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import io
import re
import uuid
import zipfile
from collections.abc import Iterable
from pathlib import Path

from bs4 import Tag
from bs4.element import Comment, NavigableString
from PIL import Image

from tools import chapters
from tools.paper import pages
from tools.paper.pages import Page

VOID = {"br", "col", "hr", "img", "input", "wbr", "source", "area", "embed", "meta", "link"}

#: SVG's names with capitals, which a parser of HTML makes small.
SVG_NAMES = {
    name.lower(): name
    for name in (
        "viewBox", "preserveAspectRatio", "clipPath", "clipPathUnits", "linearGradient",
        "radialGradient", "gradientUnits", "gradientTransform", "patternUnits", "textLength",
        "lengthAdjust", "markerWidth", "markerHeight", "markerUnits", "refX", "refY", "textPath",
        "startOffset", "pathLength", "foreignObject",
    )
}  # fmt: skip

#: Attributes that XHTML no longer has, or that only scripts and screens use.
DROPPED = re.compile(
    r"on\w+|border|align|valign|cellpadding|cellspacing|scoped|target|data-.*|xmlns:.*|autocomplete|"
    r"aria-hidden|nowrap"
)

NAMESPACES = {"svg": "http://www.w3.org/2000/svg", "math": "http://www.w3.org/1998/Math/MathML"}

MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".gif": "image/gif"}


# --- XHTML ---------------------------------------------------------------------------------------


def xhtml(node: Tag) -> str:
    """An element as XML."""
    out: list[str] = []
    _write(node, out, in_svg=False)
    return "".join(out)


def _write(node: Tag, out: list[str], *, in_svg: bool) -> None:
    in_svg = in_svg or node.name == "svg"
    name = SVG_NAMES.get(node.name, node.name) if in_svg else node.name
    attributes = {}
    for key, value in node.attrs.items():
        text = value if isinstance(value, str) else " ".join(value or [])
        if DROPPED.fullmatch(key) or (key == "class" and not text):
            continue
        attributes[SVG_NAMES.get(key, key) if in_svg else key] = text
    if name in NAMESPACES:
        attributes["xmlns"] = NAMESPACES[name]
    written = "".join(f' {key}="{html.escape(value)}"' for key, value in attributes.items())
    if name in VOID or (in_svg and not node.contents):
        out.append(f"<{name}{written}/>")
        return
    out.append(f"<{name}{written}>")
    for child in node.children:
        if isinstance(child, Tag):
            _write(child, out, in_svg=in_svg)
        elif isinstance(child, NavigableString) and not isinstance(child, Comment):
            out.append(html.escape(str(child), quote=False))
    out.append(f"</{name}>")


def formulas(article: Tag) -> None:
    """MathML in place of what KaTeX drew, with its TeX as the alternative text."""
    for drawn in pages.having(article, "katex"):
        math = drawn.select_one("math")
        if math is None:
            raise ValueError(f"a formula has no MathML: {drawn.get_text()[:80]}")
        annotation = math.find("annotation")
        if isinstance(annotation, Tag):
            math["alttext"] = annotation.get_text()
            annotation.decompose()
        for semantics in math.select("semantics"):
            semantics.unwrap()
        drawn.replace_with(math)


def drawings(article: Tag) -> None:
    """Drawings as an EPUB has them: links with a title, and no colours of the page.

    They name a colour of the page and another one for where there is none: that one.
    """
    for drawing in article.find_all("svg"):
        for tag in [drawing, *drawing.find_all(True)]:
            for key, value in tag.attrs.items():
                if isinstance(value, str) and "var(" in value:
                    tag[key] = re.sub(r"var\(--[\w-]+,\s*([^()]*(?:\([^()]*\))?)\)", r"\1", value)
        for data in drawing.find_all("metadata"):
            data.decompose()
        if drawing.get("role") not in ("img", None):
            del drawing["role"]
        for link in drawing.find_all("a"):
            link.insert(0, pages.new("title", link.get_text(), ""))


def sizes(article: Tag) -> None:
    """Pictures are as wide as on the site, and never wider than the screen."""
    for image in article.find_all("img"):
        style = str(image.attrs.pop("style", ""))
        named = re.search(r"(?<!-)width:\s*([\d.]+)px", style)
        width = named[1] if named else image.get("width")
        for key in ("width", "height"):
            image.attrs.pop(key, None)
        if width and str(width).replace(".", "").isdecimal():
            image["style"] = f"width: {width}px"
        image.attrs.setdefault("alt", "")


def lists(article: Tag) -> None:
    """A list of definitions begins with a term; one that does not is none."""
    for listed in article.find_all("dl"):
        first = listed.find(True, recursive=False)
        if isinstance(first, Tag) and first.name == "dd":
            for one in [listed, *listed.find_all(["dt", "dd"], recursive=False)]:
                one.name = "div"


class Pictures:
    """The pictures of a book, each once, by their names in the EPUB."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self.files: dict[str, bytes] = {}

    def add(self, content: bytes, ending: str) -> str:
        """Keep a picture; its address. WebP becomes PNG."""
        if ending == ".png":
            content = pages.fewer_colours(content)
        elif ending == ".webp":
            made = io.BytesIO()
            few = (
                Image.open(io.BytesIO(content))
                .convert("RGB")
                .quantize(64, dither=Image.Dither.NONE)
            )
            few.save(made, "PNG", optimize=True)
            content, ending = made.getvalue(), ".png"
        name = f"images/{hashlib.sha256(content).hexdigest()[:24]}{ending}"
        self.files[name] = content
        return name

    def from_site(self, path: str) -> str:
        """Keep a picture that is a file of the site."""
        return self.add((self.site / path).read_bytes(), Path(path).suffix.lower())


# --- the book ------------------------------------------------------------------------------------


def document(title: str, body: str, kind: str = "") -> str:
    """One XHTML file."""
    space = ' xmlns:epub="http://www.idpf.org/2007/ops"' if kind == "nav" else ""
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n'
        f'<html xmlns="http://www.w3.org/1999/xhtml"{space} lang="en" xml:lang="en"><head>'
        f'<meta charset="utf-8"/><title>{html.escape(title)}</title>'
        f'<link rel="stylesheet" type="text/css" href="epub.css"/></head>'
        f"<body>{body}</body></html>\n"
    )


def chapter(page: Page, known: set[str], pictures: Pictures) -> str:
    """A page as XHTML."""
    formulas(page.article)
    drawings(page.article)
    lists(page.article)
    pages.rewrite(
        page,
        lambda name, place: f"{pages.slug(name)}.xhtml" + (f"#{place}" if place else ""),
        pictures.from_site,
        known,
    )
    sizes(page.article)
    page.article.name = "main"
    page.article.attrs = {}
    return document(page.title, xhtml(page.article))


def navigation(book: list[Page]) -> str:
    """The table of contents: parts, their pages, and the sections of each."""

    def item(page: Page) -> str:
        rows = "".join(
            f'<li><a href="{page.slug}.xhtml#{html.escape(str(section["id"]))}">'
            f"{html.escape(pages.plain(heading))}</a></li>"
            for section in page.article.select("section[id]")
            if isinstance(heading := section.find(["h1", "h2", "h3"], recursive=False), Tag)
            and heading.name == "h2"
        )
        inside = f"<ol>{rows}</ol>" if rows else ""
        return f'<li><a href="{page.slug}.xhtml">{html.escape(page.title)}</a>{inside}</li>'

    rows = []
    for part in dict.fromkeys(page.part for page in book):
        own = "".join(item(page) for page in book if page.part == part)
        rows.append(f"<li><span>{html.escape(part)}</span><ol>{own}</ol></li>" if part else own)
    return document(
        "Contents",
        f'<nav epub:type="toc" id="toc"><h1>Contents</h1><ol>{"".join(rows)}</ol></nav>',
        "nav",
    )


def title_page() -> str:
    """What the book is called, whose it is, and what may be done with it."""
    return document(
        "Trained to Predict",
        f'<main class="title-page"><h1>Trained to Predict</h1>{pages.about_book()}</main>',
    )


def package(names: Iterable[str], texts: dict[str, str]) -> str:
    """The EPUB's list of its files, `names`, and their order; `texts` are those that are XHTML."""
    project = chapters.project()["project"]
    site = project["urls"]["Documentation"]
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, site + chapters.version())
    manifest, spine = [], []
    for number, name in enumerate(names):
        kind = {".xhtml": "application/xhtml+xml", ".css": "text/css"} | MEDIA
        has = [
            word
            for word, sign in (("mathml", "<math "), ("svg", "<svg "))
            if sign in texts.get(name, "")
        ]
        if name == "nav.xhtml":
            has.append("nav")
        properties = f' properties="{" ".join(has)}"' if has else ""
        manifest.append(
            f'<item id="i{number}" href="{name}" media-type="{kind[Path(name).suffix]}"'
            f"{properties}/>"
        )
        if name in texts:
            spine.append(f'<itemref idref="i{number}"/>')
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = "".join(
        f'<meta property="schema:{key}">{value}</meta>'
        for key, value in (
            ("accessMode", "textual"), ("accessMode", "visual"),
            ("accessModeSufficient", "textual"), ("accessibilityFeature", "alternativeText"),
            ("accessibilityFeature", "MathML"), ("accessibilityFeature", "tableOfContents"),
            ("accessibilityFeature", "structuralNavigation"), ("accessibilityHazard", "none"),
            ("accessibilitySummary", "Pictures have alternative texts, formulas are MathML."),
        )
    )  # fmt: skip
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" '
        'xml:lang="en"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'<dc:identifier id="id">urn:uuid:{identifier}'
        "</dc:identifier><dc:title>Trained to Predict</dc:title><dc:language>en</dc:language>"
        f"<dc:creator>{html.escape(project['authors'][0]['name'])}</dc:creator>"
        f"<dc:rights>Text and figures: CC BY 4.0. Code: BSD-3-Clause.</dc:rights>"
        f"<dc:source>{site}</dc:source>"
        f'<meta property="dcterms:modified">{now}</meta>{about}</metadata>'
        f"<manifest>{''.join(manifest)}</manifest><spine>{''.join(spine)}</spine></package>\n"
    )


CONTAINER = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/>'
    "</rootfiles></container>\n"
)


def write(book: list[Page], path: Path, site: Path = pages.HTML) -> None:
    """Write a book to `path`."""
    known = {page.name for page in book}
    pictures = Pictures(site)
    toc = navigation(book)
    texts = {"title.xhtml": title_page(), "nav.xhtml": toc}
    texts |= {f"{page.slug}.xhtml": chapter(page, known, pictures) for page in book}
    style = (Path(__file__).parent / "epub.css").read_text(encoding="utf-8")
    listed = package([*texts, "epub.css", *pictures.files], texts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("EPUB/package.opf", listed)
        archive.writestr("EPUB/epub.css", style)
        for name, text in texts.items():
            archive.writestr(f"EPUB/{name}", text)
        for name, content in pictures.files.items():
            archive.writestr(f"EPUB/{name}", content, zipfile.ZIP_STORED)
