"""What could be wrong with a printed book or an EPUB, looked for in the files themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from pypdf import PdfReader

from tools.paper import pages, pdf

#: In a page's drawing: a font is chosen, or signs are drawn by their numbers in it.
DRAWN = re.compile(rb"/(\S+) [\d.]+ Tf|<([0-9A-Fa-f]+)> Tj")


def words(text: str) -> str:
    """A text without what differs between a page and its print: blanks and hyphens."""
    return re.sub(r"[\s\u00ad\u200b-]+", "", text)


def holds(printed: str, paragraph: str) -> bool:
    """Whether a printed text has the `words` of a paragraph: in one piece, or in two where a page
    ends in it. (What is drawn last on that page, such as a table's frame, then stands between.)"""
    wanted = words(paragraph)
    first = next(n for n in range(len(wanted), -1, -1) if wanted[:n] in printed)
    return wanted[first:] in printed


def boxes(page: Any) -> int:
    """How many signs of a page no font has: drawn as the empty box, which is number 0 of a font."""
    fonts = page.get("/Resources", {}).get("/Font", {})
    contents = page.get_contents()
    found, wide = 0, False
    for font, signs in DRAWN.findall(contents.get_data() if contents is not None else b""):
        if font:
            chosen = fonts[f"/{font.decode()}"].get_object()
            wide = chosen["/Subtype"] == "/Type0"
        elif wide:
            found += [signs[i : i + 4] for i in range(0, len(signs), 4)].count(b"0000")
    return found


def dead_links(reader: PdfReader) -> list[str]:
    """Links within the document that lead nowhere, and those that only a link could have made."""
    places = reader.named_destinations
    numbers = {page.indirect_reference.idnum for page in reader.pages if page.indirect_reference}
    dead = []
    for page in reader.pages:
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            if link.get("/Subtype") != "/Link":
                continue
            address = str(link.get("/A", {}).get("/URI", ""))
            target = link.get("/Dest")
            if isinstance(target, list):
                if target[0].idnum not in numbers:
                    dead.append("a page that is not there")
            elif target is not None:
                if str(target) not in places and str(target).removeprefix("/") not in places:
                    dead.append(str(target))
            elif not address.startswith(("http:", "https:", "mailto:")) or pdf.MARK in address:
                dead.append(address or "nothing")
    return dead


def internal_links(reader: PdfReader) -> int:
    """How many links of a document lead to a place in it."""
    return sum(
        "/Dest" in reference.get_object()
        for page in reader.pages
        for reference in page.get("/Annots", [])
    )


def wrong_numbers(reader: PdfReader, book: list[pages.Page]) -> list[str]:
    """Pages of the book whose heading is not on the page that the table of contents names."""
    labels = reader.page_labels
    first = labels.index("1")
    listed = words("".join(page.extract_text() for page in reader.pages[:first]))
    wrong = []
    for page in book:
        numbers = re.findall(re.escape(words(page.title)) + r"(\d+)", listed)
        on_page = [
            number
            for number in numbers
            if words(page.title) in words(reader.pages[labels.index(number)].extract_text())
        ]
        if not on_page:
            wrong.append(page.title)
    return wrong


def epub_faults(path: Path) -> str | None:
    """What epubcheck says of a file, one fault a line; None where it or its Java is missing."""
    found = shutil.which("epubcheck")
    if found is None or shutil.which("java") is None:
        return None
    # Debian's is a Java archive, which not every machine starts by itself.
    start = ["java", "-jar", found] if zipfile.is_zipfile(found) else [found]
    done = subprocess.run([*start, str(path)], capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    faults = [line for line in said if re.match(r"(ERROR|FATAL|WARNING)", line)]
    if done.returncode and not faults:
        faults = said
    return "\n".join(faults)
