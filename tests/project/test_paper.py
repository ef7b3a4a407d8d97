"""The book on paper and offline: what `tools.paper` makes of small pages, and of a few of the book.

The whole book is printed and looked through by `make paper-test` (test_whole_paper.py). The tests
marked `browser` need the built site and Chromium.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup, Tag
from PIL import Image

from tools import chapters
from tools.paper import epub, offline, pages

HTML = pages.HTML


def webp(colour: str) -> str:
    made = io.BytesIO()
    Image.new("RGB", (4, 2), colour).save(made, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(made.getvalue()).decode("ascii")


WIDGET = f"""
<figure class="explore"><style>.explore{{}}</style>
<form autocomplete="off" onsubmit="return false" oninput="f()">
<div class="explore-controls">
<fieldset class="explore-control"><legend>Writer</legend><div class="explore-options">
<label><input type="radio" name="w" value="0">source</label>
<label><input type="radio" name="w" value="1" checked>LSTM</label></div></fieldset>
<label class="explore-control"><span class="explore-name">Order: <span class="explore-value">2
</span></span><input type="range" aria-label="Order" aria-valuetext="2"></label></div>
<div class="explore-frames"><img hidden alt="one" loading="lazy" src="{webp("red")}">
<img alt="two" width="40" height="20" src="{webp("blue")}"></div>
<span class="explore-status" role="status"></span></form>
<noscript>The controls need JavaScript.</noscript><figcaption>A caption</figcaption></figure>
"""

FORMULA = (
    '<span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>H</mi><mo>&lt;</mo>'
    '<mn>2</mn></mrow><annotation encoding="application/x-tex">H &lt; 2</annotation></semantics>'
    '</math></span><span class="katex-html" aria-hidden="true">H&lt;2</span></span>'
)

PAGE = f"""<!DOCTYPE html><html><body><header>Not this</header>
<article class="bd-article"><section id="a-page">
<h1>A page &amp; {FORMULA}<a class="headerlink" href="#a-page">#</a></h1>
<p>See <a href="other.html#place">there</a>, <a href="#a-page">here</a>, <a href="other.html">that</a>
and <a href="../genindex.html">the index</a>.<br>A line &nbsp; more <!-- unseen --></p>
<div class="cell"><details class="admonition hide above-input"><summary><p>Show code</p></summary>
<div class="cell_input"><pre>folded = 1</pre></div></details></div>
<div class="cell"><div class="cell_input"><pre> </pre></div><div class="cell_output"></div></div>
<form class="guess" hidden><label for="g">?</label><input id="g"></form>
<details class="outcome" id="outcome-x"><summary>The result: make your guess first</summary>
<div class="outcome-guess" hidden></div><p>It is 3.</p></details>
<div class="admonition dropdown toggle"><p class="admonition-title">Solution</p><p>Because.</p></div>
<svg class="drawing" viewbox="0 0 1 1" fill="var(--pst-color-primary,#2b93a2)"><lineargradient id="g1"/>
<rect fill="url(#g1)"/></svg>{WIDGET}<p class="not-on-paper">Try it</p>
</section><section id="second"><h2>Second</h2><button>Copy</button>
<table border="1"><tr><td align="left">1<td>2</tr></table></section></article></body></html>"""

OTHER = """<html><body><article class="bd-article"><section id="other"><h1>Other</h1>
<p id="place">Here. <a href="a-page.html#second">Back</a></p></section></article></body></html>"""

ORDER = [("book/a-page", ""), ("book/other", "A part")]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two pages."""
    folder = tmp_path / "html"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "a-page.html").write_text(PAGE, encoding="utf-8")
    (folder / "book" / "other.html").write_text(OTHER, encoding="utf-8")
    return folder


@pytest.fixture
def page(site: Path) -> Any:
    return pages.read(ORDER, site)[0]


# --- fit for paper -------------------------------------------------------------------------------


def test_what_a_click_opens_is_open(page: Any) -> None:
    article = page.article
    assert article.find(["details", "summary"]) is None
    assert article.select_one(".opened-code pre").get_text() == "folded = 1"
    assert "Show code" not in article.get_text()
    result = article.select_one(".outcome.opened")
    assert result["id"] == "outcome-x"
    assert " ".join(result.get_text().split()) == "The result It is 3."
    assert article.select(".dropdown, .toggle") == []
    assert "Because." in article.get_text()


def test_a_picture_that_responds_shows_its_first_frame_and_says_which(page: Any) -> None:
    (image,) = page.article.select(".explore img")
    assert image["alt"] == "two"
    assert page.article.select_one(".explore-chosen").get_text() == "Writer: LSTM; Order: 2"
    assert page.article.select("input, form, noscript") == []
    assert page.article.select_one("figcaption").get_text() == "A caption"


def test_nothing_is_left_that_only_a_screen_can_use(page: Any) -> None:
    for kind in ("button", "form", "style", ".headerlink", ".not-on-paper", "[hidden]"):
        assert page.article.select(kind) == [], kind
    assert page.title == "A page & H < 2"


def test_a_cell_with_nothing_to_show_leaves_no_box(page: Any) -> None:
    assert len(page.article.select(".cell")) == 1


def test_the_book_is_read_in_the_order_of_its_contents() -> None:
    order = pages.reading_order()
    names = [str(path.relative_to(chapters.ROOT).with_suffix("")) for path in chapters.toc_files()]
    assert [name for name, _ in order] == names
    assert dict(order)["book/training/lstm"] == "Training"
    assert dict(order)["book/reference/core"] == "Reference"


def test_a_site_that_is_not_built_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run `make book` first"):
        pages.read(ORDER, tmp_path)
    with pytest.raises(SystemExit, match="run `make book` first"):
        offline.write(tmp_path / "x.zip", tmp_path)


# --- EPUB ----------------------------------------------------------------------------------------


@pytest.fixture
def book(site: Path, tmp_path: Path) -> zipfile.ZipFile:
    epub.write(pages.read(ORDER, site), tmp_path / "book.epub", site)
    return zipfile.ZipFile(tmp_path / "book.epub")


def parsed(book: zipfile.ZipFile, name: str) -> BeautifulSoup:
    text = book.read(f"EPUB/{name}").decode("utf-8")
    ElementTree.fromstring(text)  # it is XML
    return BeautifulSoup(text, "html.parser")


def test_an_epub_is_xml_that_keeps_what_a_parser_of_html_forgets(book: zipfile.ZipFile) -> None:
    found = parsed(book, "a-page.xhtml")
    text = str(found)
    raw = book.read("EPUB/a-page.xhtml").decode("utf-8")
    assert 'viewBox="0 0 1 1"' in raw
    assert "<linearGradient" in raw
    assert 'fill="#2b93a2"' in raw
    assert "unseen" not in raw
    assert "A line \N{NO-BREAK SPACE} more" in text
    assert found.select_one("table")["border"] is None if False else "border" not in raw
    math = found.select_one("math")
    assert isinstance(math, Tag)
    assert math["alttext"] == "H < 2"
    assert "katex" not in raw
    assert "annotation" not in raw


def test_an_epub_links_its_pages_to_each_other_and_the_rest_to_the_site(
    book: zipfile.ZipFile,
) -> None:
    links = [str(link["href"]) for link in parsed(book, "a-page.xhtml").select("a")]
    documentation = chapters.project()["project"]["urls"]["Documentation"]
    assert links == [
        "other.xhtml#place", "a-page.xhtml#a-page", "other.xhtml", f"{documentation}genindex.html",
    ]  # fmt: skip
    contents = parsed(book, "nav.xhtml")
    assert [str(link["href"]) for link in contents.select("a")] == [
        "a-page.xhtml", "a-page.xhtml#second", "other.xhtml",
    ]  # fmt: skip
    assert contents.select_one("span").get_text() == "A part"  # type: ignore[union-attr]


def test_pictures_become_files_that_every_reader_shows(book: zipfile.ZipFile) -> None:
    (image,) = parsed(book, "a-page.xhtml").select("img")
    data = book.read(f"EPUB/{image['src']}")
    drawn = Image.open(io.BytesIO(data))
    assert drawn.format == "PNG"
    assert drawn.convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    assert image["style"] == "width: 40px"


def check_epub(path: Path) -> str:
    """What epubcheck says of a file; skips where it is missing, and with CI=true does not fail."""
    found = shutil.which("epubcheck")
    if found is None:
        pytest.skip("no epubcheck here (Debian: apt-get install epubcheck)")
    done = subprocess.run([found, str(path)], capture_output=True, text=True)
    said = done.stdout + done.stderr
    lines = [line for line in said.splitlines() if re.match(r"(ERROR|FATAL|WARNING)", line)]
    if done.returncode:
        lines.append(f"epubcheck ended with {done.returncode}")
    return "\n".join(lines)


@pytest.mark.slow
def test_a_strict_reader_finds_no_fault_in_a_small_epub(
    book: zipfile.ZipFile, tmp_path: Path
) -> None:
    assert check_epub(tmp_path / "book.epub") == ""


@pytest.mark.slow
def test_a_strict_reader_finds_a_fault_where_there_is_one(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epub, "VOID", set())
    monkeypatch.setattr(epub, "formulas", lambda article: None)
    epub.write(pages.read(ORDER, site), tmp_path / "bad.epub", site)
    assert "ERROR" in check_epub(tmp_path / "bad.epub")


# --- zip -----------------------------------------------------------------------------------------


def test_a_zip_leaves_out_the_notebooks_and_links_to_them_in_the_repository(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name in ("_sources/book/x.ipynb", "_static/a.css", ".doctrees/x", "objects.inv"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("x")
    (site / "index.html").write_text('<a href="../../_sources/book/x.ipynb">', encoding="utf-8")
    for name in ("one.zip", "two.zip"):
        offline.write(tmp_path / name, site)
    archive = zipfile.ZipFile(tmp_path / "one.zip")
    folder = f"trained-to-predict-{chapters.version()}"
    assert archive.namelist() == [f"{folder}/_static/a.css", f"{folder}/index.html"]
    linked = archive.read(f"{folder}/index.html").decode("utf-8")
    assert linked == f'<a href="{chapters.repository_url()}/blob/main/book/x.ipynb">'
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


# --- PDF: a few pages of the book ----------------------------------------------------------------

#: The first page, a chapter with pictures that respond and with solutions, and a reference.
FEW = ["book/index", "book/cross_entropy/known_source", "book/reference/core"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from tools.paper import pdf

    try:
        pdf.chromium()
    except SystemExit as missing:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with pdf.browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def few(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three pages of the book as a PDF."""
    from pypdf import PdfReader

    from tools.paper import pdf

    path = tmp_path_factory.mktemp("paper") / "few.pdf"
    order = [entry for entry in pages.reading_order() if entry[0] in FEW]
    path.write_bytes(pdf.made(chromium, pages.read(order)))
    return PdfReader(path)


@pytest.mark.browser
def test_a_printed_book_has_contents_with_numbers_and_links(few: Any) -> None:
    from tools.paper import pdf

    assert pdf.faults(few, [name for name in pages.reading_order() if name[0] in FEW]) == []
    labels = few.page_labels
    assert labels[:2] == ["i", "ii"]
    assert labels[labels.index("1") :] == [str(i + 1) for i in range(labels.count("1") * 0 + len(labels) - labels.index("1"))]
