"""The book on paper and offline: what `tools.paper` makes of small pages, and of a few of the book.

The whole book is printed and looked through by `make paper-test` (test_whole_paper.py). The tests
marked `browser` need the built site and Chromium.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from typing import Any

import browsed_site
import paper_check as check
import pytest
from bs4 import BeautifulSoup, Tag
from PIL import Image, ImageChops, ImageStat

from companion import figures
from tools import chapters
from tools.paper import epub, offline, pages

HTML = pages.HTML


WIDGET = """
<figure class="explore"><style>.explore{{}}</style>
<form autocomplete="off" onsubmit="return false" oninput="f()">
<div class="explore-controls">
<fieldset class="explore-control"><legend>Writer</legend><div class="explore-options">
<label><input type="radio" name="w" value="0">source</label>
<label><input type="radio" name="w" value="1" checked>LSTM</label></div></fieldset>
<label class="explore-control"><span class="explore-name">Order: <span class="explore-value">2
</span></span><input type="range" aria-label="Order" aria-valuetext="2"></label></div>
<div class="explore-frames"><img hidden alt="one" loading="lazy" src="../one.webp">
<img alt="two" width="40" height="20" src="../two.webp"></div>
<span class="explore-status" role="status"></span></form>
<noscript>The controls need JavaScript.</noscript><figcaption>A caption</figcaption></figure>
"""

#: Models that run in the page, without their weights, style sheets and scripts.
MODELS = """
<div class="play" data-kind="writes"><form><p class="play-title">A writer</p>
<p class="play-notice" role="status">No script has run here</p><fieldset disabled="disabled">
<label>Text <textarea class="play-text">ROMEO:
</textarea></label><label>Seed <input type="number" value="0"></label>
<button type="button">Let it write</button></fieldset></form></div>
<div class="play" data-kind="answers"><form><p class="play-title">A talker</p>
<fieldset disabled="disabled"><label>Thing <select><option>the model is loading</option></select>
</label><button type="button">Ask</button></fieldset></form></div>
"""

FORMULA = (
    '<span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>H</mi><mo>&lt;</mo>'
    '<mn>2</mn></mrow><annotation encoding="application/x-tex">H &lt; 2</annotation></semantics>'
    '</math></span><span class="katex-html" aria-hidden="true">H&lt;2</span></span>'
)

PAGE = f"""<!DOCTYPE html><html><body><header>Not this</header>
<article class="bd-article"><section id="a-page">
<h1>A page &amp; {FORMULA}<a class="headerlink" href="#a-page">#</a></h1>
<p>See <a href="other.html#place">there</a>, <a href="#a-page">here</a>, <a
href="other.html">that</a> and <a href="../genindex.html">the index</a>.<br>
A line &nbsp; more <!-- unseen --></p>
<div class="cell"><details class="admonition hide above-input"><summary><p>Show code</p></summary>
<div class="cell_input"><pre>folded = 1</pre></div></details></div>
<div class="cell"><div class="cell_input"><pre> </pre></div><div class="cell_output"></div></div>
<form class="guess" hidden><label for="g">?</label><input id="g"></form>
<details class="outcome" id="outcome-x"><summary>The result: make your guess first</summary>
<div class="outcome-guess" hidden></div><p>It is 3.</p></details>
<div class="admonition dropdown toggle"><p class="admonition-title">Solution</p>
<p>Because.</p></div>
<svg class="drawing" role="group" viewbox="0 0 1 1" fill="var(--pst-color-primary,#2b93a2)">
<lineargradient id="g1"/>
<rect width="1" height="1" fill="url(#g1)"/><a href="other.html"><text>To other</text></a></svg>
<dl><dd>A definition of nothing</dd></dl><p id="g2">One</p><p id="g2">Two</p>
{WIDGET}{MODELS}
</section><section id="second"><h2>Second</h2><button>Copy</button>
<table border="1"><tr><td align="left">1</td><td>2</td></tr></table>
</section></article></body></html>"""

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
    for name, colour in (("one", "red"), ("two", "blue")):
        Image.new("RGB", (4, 2), colour).save(folder / f"{name}.webp", lossless=True)
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


def test_a_model_that_runs_in_the_page_leaves_its_text_and_says_where_it_runs(page: Any) -> None:
    writer, talker = page.article.select(".model")
    address = f"{chapters.project()['project']['urls']['Documentation']}book/a-page.html"
    for model, title, does in (
        (writer, "A writer", "goes on with this text"),
        (talker, "A talker", "answers your questions"),
    ):
        assert model.select_one(".play-title").get_text() == title
        said = f"The model runs in this page of the site, and {does} there: {address}"
        assert model.select_one(".play-place").get_text() == said
        assert model.select_one("a")["href"] == address
    assert [text.get_text() for text in page.article.select(".play-text")] == ["ROMEO:\n"]
    for dead in ("label", "select", "textarea", "fieldset"):
        assert page.article.select(dead) == [], dead
    assert "loading" not in page.article.get_text()


def test_nothing_is_left_that_only_a_screen_can_use(page: Any) -> None:
    for kind in ("button", "form", "style", ".headerlink", "[hidden]"):
        assert page.article.select(kind) == [], kind
    assert page.title == "A page & H < 2"


def test_a_cell_with_nothing_to_show_leaves_no_box(page: Any) -> None:
    assert len(page.article.select(".cell")) == 1


def test_each_page_of_the_book_has_its_part() -> None:
    toc = chapters.toc()
    assert toc[0] == ("book/index", "")
    assert dict(toc)["book/training/lstm"] == "Training"
    assert dict(toc)["book/reference/core"] == "Reference"
    assert "" not in {part for _, part in toc[1:]}


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
    assert "border" not in raw
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
        "other.xhtml", *[f"{documentation}book/a-page.html"] * 2,
    ]  # fmt: skip
    contents = parsed(book, "nav.xhtml")
    assert [str(link["href"]) for link in contents.select("a")] == [
        "a-page.xhtml", "a-page.xhtml#second", "other.xhtml",
    ]  # fmt: skip
    assert contents.select_one("span").get_text() == "A part"  # type: ignore[union-attr]


def test_a_picture_with_fewer_colours_is_smaller_and_looks_the_same() -> None:
    ax = figures.new_axes(width=4, height=2)
    ax.plot([0, 1, 2], [0, 2, 1], label="a line")
    ax.legend()
    plot = io.BytesIO()
    ax.figure.savefig(plot, format="png", dpi=200)
    small = pages.fewer_colours(plot.getvalue())
    assert len(small) < 0.7 * len(plot.getvalue())
    before, after = (Image.open(f).convert("RGB") for f in (plot, io.BytesIO(small)))
    changed = ImageStat.Stat(ImageChops.difference(before, after))
    assert max(changed.mean) < 1  # of 255 steps
    assert before.getpixel((0, 0)) == after.getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_with_holes_stays_as_it_is() -> None:
    made = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(made, "PNG")
    assert pages.fewer_colours(made.getvalue()) == made.getvalue()


def test_pictures_become_files_that_every_reader_shows(book: zipfile.ZipFile) -> None:
    (image,) = parsed(book, "a-page.xhtml").select("img")
    data = book.read(f"EPUB/{image['src']}")
    drawn = Image.open(io.BytesIO(data))
    assert drawn.format == "PNG"
    assert drawn.convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    assert image["style"] == "width: 40px"


def faults_of(path: Path) -> str:
    said = check.epub_faults(path)
    if said is None:
        pytest.skip("no epubcheck here, or no Java for it (Debian: apt-get install epubcheck)")
    return said


@pytest.mark.slow
def test_a_strict_reader_finds_no_fault_in_a_small_epub(
    book: zipfile.ZipFile, tmp_path: Path
) -> None:
    assert faults_of(tmp_path / "book.epub") == ""


@pytest.mark.slow
def test_a_strict_reader_finds_a_fault_where_there_is_one(
    book: zipfile.ZipFile, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "bad.epub", "w") as bad:
        for entry in book.infolist():
            content = book.read(entry)
            bad.writestr(entry, content.replace(b"</p>", b"</p></q>", 1))
    assert "ERROR" in faults_of(tmp_path / "bad.epub")


# --- zip -----------------------------------------------------------------------------------------


def test_a_zip_leaves_out_the_notebooks_and_links_to_them_in_the_repository(tmp_path: Path) -> None:
    site = tmp_path / "site"
    left_out = ("_sources/book/x.ipynb", ".doctrees/x", "objects.inv")
    for name in ("_static/a.css", *left_out):
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


browser = browsed_site.browser  # a fixture


@pytest.fixture(scope="module")
def few(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three pages of the book as a PDF."""
    from pypdf import PdfReader

    from tools.paper import pdf

    path = tmp_path_factory.mktemp("paper") / "few.pdf"
    order = [entry for entry in chapters.toc() if entry[0] in FEW]
    path.write_bytes(pdf.made(browser, pages.read(order)))
    return PdfReader(path)


@pytest.mark.browser
def test_a_printed_book_has_contents_with_numbers_and_links(few: Any) -> None:
    order = [entry for entry in chapters.toc() if entry[0] in FEW]
    assert check.wrong_numbers(few, pages.read(order)) == []
    assert check.dead_links(few) == []
    assert check.internal_links(few) > 20
    first = few.page_labels.index("1")
    assert few.page_labels[:first] == ["i", "ii", "iii"][:first]
    assert few.page_labels[first:] == [str(n + 1) for n in range(len(few.pages) - first)]
    assert few.metadata.title == "Trained to Predict"
    outline = [item for item in few.outline if not isinstance(item, list)]
    assert [str(item.title) for item in outline] == [
        "Trained to Predict", "Cross-entropy", "Reference",
    ]  # fmt: skip


@pytest.mark.browser
def test_a_printed_chapter_holds_all_its_text_and_code(few: Any) -> None:
    """The folded and the wide included; and no sign that its font lacks."""
    printed = check.words("".join(page.extract_text() for page in few.pages))
    chapter = chapters.read_notebook(chapters.ROOT / f"{FEW[1]}.ipynb")
    for cell in chapters.code_cells(chapter):
        if "remove-input" in cell["metadata"].get("tags", []):
            continue
        for line in cell["source"].splitlines():
            assert check.words(line) in printed, line
    assert "Writer:LSTMA;Review:1" in printed
    assert [check.boxes(page) for page in few.pages] == [0] * len(few.pages)


@pytest.mark.browser
def test_what_is_wider_than_the_page_or_cannot_be_shown_is_refused(browser: Any) -> None:
    from tools.paper import pdf

    wide = '<div class="bd-article"><pre style="width:2000px!important">wide</pre></div>'
    with pytest.raises(ValueError, match=r"wider than the page: .*wide"):
        pdf.printed(browser, pdf.shell(wide, "", HTML), tagged=False)
    missing = '<div class="bd-article"><img src="missing.png"></div>'
    with pytest.raises(ValueError, match=r"cannot be shown: .*missing\.png"):
        pdf.printed(browser, pdf.shell(missing, "", HTML), tagged=False)


@pytest.mark.browser
def test_a_sign_without_a_font_and_a_dead_link_are_noticed(browser: Any) -> None:
    from pypdf import PdfReader, PdfWriter
    from pypdf.annotations import Link
    from pypdf.generic import NameObject, TextStringObject

    from tools.paper import pdf

    text = '<div class="bd-article"><p>\U0010fffd</p></div>'
    made = pdf.printed(browser, pdf.shell(text, "", HTML), tagged=False)
    reader = PdfReader(io.BytesIO(made))
    assert check.boxes(reader.pages[0]) == 1
    writer = PdfWriter(clone_from=reader)
    link = Link(rect=(0, 0, 9, 9), url="https://x.invalid")
    writer.add_annotation(0, link)
    added = writer.pages[0]["/Annots"][0].get_object()  # type: ignore[index]
    del added["/A"]
    added[NameObject("/Dest")] = TextStringObject("nowhere")
    assert check.dead_links(writer) == ["nowhere"]  # type: ignore[arg-type]


#: Text whose colour on its background is too pale to read on paper, by WCAG's formula.
PALE = """
() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const channel = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > .9) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(
    document.querySelector("article.bd-article"), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("svg")) continue;
    if (!element.getClientRects().length) continue;
    const paper = luminance(behind(element));
    const ink = luminance(numbers(getComputedStyle(element).color));
    const ratio = (Math.max(paper, ink) + .05) / (Math.min(paper, ink) + .05);
    if (ratio < 4.5 || paper < .6) found.push(`${ratio.toFixed(1)} ${node.data.slice(0, 40)}`);
  }
  return found;
}
"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_that_a_reader_prints_is_dark_on_white_whole_and_open(
    browser: Any, scheme: str
) -> None:
    from tools.paper import pdf

    page = browser.new_page(viewport={"width": pdf.TEXT_WIDTH, "height": 900}, color_scheme=scheme)
    page.goto((HTML / f"{FEW[1]}.html").as_uri(), wait_until="load")
    page.wait_for_function("s => document.documentElement.dataset.theme === s", arg=scheme)
    page.emulate_media(media="print", color_scheme=scheme)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(PALE) == []
    assert page.evaluate(pdf.TOO_WIDE, pdf.TEXT_WIDTH) == []
    assert page.locator(".cell_input:visible").count() == page.locator(".cell_input").count()
    assert page.locator(".explore-frames > :visible").count() == page.locator(".explore").count()
    for hidden in ("header:visible", ".bd-sidebar-primary:visible", "article button:visible"):
        assert page.locator(hidden).count() == 0
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize(
    "name", ["training/generating_text", "objective_mismatch/competing_objectives"]
)
def test_a_model_on_a_page_that_a_reader_prints_has_no_dead_controls(
    browser: Any, name: str
) -> None:
    page = browser.new_page()
    page.goto((HTML / "book" / f"{name}.html").as_uri(), wait_until="load")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".play .play-title:visible").count() == 1
    assert page.locator(".play :is(button, input, select, .play-notice):visible").count() == 0
    where = "getComputedStyle(document.querySelector('.play form'), '::after').content"
    assert page.evaluate(where) == '"The model runs in this page of the site."'
    page.close()


@pytest.mark.browser
def test_pages_open_from_disk_without_an_error(browser: Any) -> None:
    page = browser.new_page()
    faults = browsed_site.faults_of(page)
    for name in FEW:
        page.goto((HTML / f"{name}.html").as_uri(), wait_until="networkidle")
        assert "Trained to Predict" in page.title()
    page.close()
    assert faults == []


def test_a_paragraph_is_printed_in_one_piece_or_two_and_not_in_part() -> None:
    printed = check.words("It ends on the next page: only a- | a table, drawn last | fter a break.")
    assert check.holds(printed, "only after a break.")
    assert check.holds(printed, "It ends on the next page")
    assert not check.holds(printed, "only after a break is it cut")
