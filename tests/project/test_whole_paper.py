"""The whole book on paper and offline, as `make paper-test` has just made it.

Not among the tests that `make test` names, which try a few pages (test_paper.py): this is for the
weekly workflow and for releases.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import browsed_site
import paper_check as check
import pytest
from browsed_site import faults_of, missing
from bs4 import BeautifulSoup
from pypdf import PdfReader

from tools import chapters
from tools.paper import pages, pdf
from tools.paper.pages import OUT, STEM

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]

browser = browsed_site.browser  # a fixture

FILES = {kind: OUT / f"{STEM}.{kind}" for kind in ("pdf", "epub", "zip")}


@pytest.fixture(scope="module")
def book() -> list[pages.Page]:
    return pages.read()


@pytest.fixture(scope="module")
def printed() -> PdfReader:
    return PdfReader(FILES["pdf"])


@pytest.mark.parametrize(("kind", "most"), [("pdf", 30e6), ("epub", 25e6), ("zip", 12e6)])
def test_a_file_is_there_and_not_too_large(kind: str, most: float) -> None:
    assert 1e6 < FILES[kind].stat().st_size < most


# --- PDF -----------------------------------------------------------------------------------------


def test_the_pdf_has_the_pages_of_a_book_and_its_contents_name_them(
    printed: PdfReader, book: list[pages.Page]
) -> None:
    assert 300 < len(printed.pages) < 1200
    assert check.wrong_numbers(printed, book) == []
    assert len(pdf.headings(printed)) == len(book) + len({p.part for p in book} - {""})


def test_the_pdf_holds_the_text_of_each_page_of_the_book(
    printed: PdfReader, book: list[pages.Page]
) -> None:
    """Its headings, and its last paragraphs: nothing is cut at an end."""
    text = check.words("".join(page.extract_text() for page in printed.pages))
    missing = []
    for page in book:
        for tag in [*page.article.find_all(["h2", "h3"]), *page.article.find_all("p")[-2:]]:
            if tag.select_one(".katex") is None and not check.holds(text, tag.get_text()):
                missing.append(f"{page.name}: {tag.get_text()[:60]}")
    assert missing == []


def test_every_sign_of_the_pdf_has_a_font_and_every_link_leads_somewhere(
    printed: PdfReader,
) -> None:
    assert [n for n, page in enumerate(printed.pages, 1) if check.boxes(page)] == []
    assert check.dead_links(printed) == []
    assert check.internal_links(printed) > 500


# --- EPUB ----------------------------------------------------------------------------------------


def test_a_strict_reader_finds_no_fault_in_the_epub() -> None:
    said = check.epub_faults(FILES["epub"])
    if said is None:
        missing("no epubcheck here, or no Java for it (Debian: apt-get install epubcheck)")
    assert said == ""


def test_the_epub_holds_each_page_of_the_book_and_its_formulas(book: list[pages.Page]) -> None:
    with zipfile.ZipFile(FILES["epub"]) as archive:
        for page in book:
            text = archive.read(f"EPUB/{page.slug}.xhtml").decode("utf-8")
            assert text.count("<math ") == len(page.article.select(".katex"))
            (heading,) = BeautifulSoup(text, "html.parser").select("h1")
            assert heading.get_text().strip()


# --- zip -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(FILES["zip"]) as archive:
        archive.extractall(folder)
    return folder / f"{STEM}-{chapters.version()}"


def test_every_link_of_the_zip_leads_to_a_file_in_it(unpacked: Path) -> None:
    dead = []
    for path in unpacked.rglob("*.html"):
        if "_static" in path.parts:
            continue
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for tag in soup.select("a, img, link, script, [data-source]"):
            to = tag.get("href") or tag.get("src") or tag.get("data-source") or ""
            link = urldefrag(str(to))[0].split("?")[0]
            if link and not urlparse(link).scheme and not (path.parent / unquote(link)).exists():
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_every_page_of_the_zip_opens_from_disk_without_an_error(
    browser: Any, unpacked: Path, book: list[pages.Page]
) -> None:
    page = browser.new_page()
    faults = faults_of(page)
    for one in book:
        page.goto((unpacked / f"{one.name}.html").as_uri(), wait_until="load")
        assert one.title.split()[0] in page.title()
    page.close()
    assert faults == []
