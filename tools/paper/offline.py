"""The site as one zip file that opens from disk."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from tools import chapters
from tools.paper import pages

#: What only Sphinx reads.
INTERNAL = {".doctrees", ".buildinfo", "objects.inv"}

#: Copies of the notebooks, twice as large as all else: their links lead to the repository.
SOURCES = "_sources"

#: The time of every file within: the same site makes the same zip.
WHEN = (2020, 1, 1, 0, 0, 0)


def without_sources(text: str) -> str:
    """A page whose links to copies of the notebooks lead to the repository."""
    target = f"{chapters.repository_url()}/blob/{chapters.BRANCH}/"
    return re.sub(rf'(?<=href=")(?:\.\./)*{SOURCES}/', target, text)


def write(path: Path, site: Path = pages.HTML) -> None:
    """Pack the site at `site` into `path`, in a folder that bears our name and version."""
    if not (site / "index.html").exists():
        raise SystemExit(f"{site / 'index.html'} is missing: run `make book` first")
    folder = f"{pages.STEM}-{chapters.version()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(site.rglob("*")):
            name = file.relative_to(site)
            if file.is_dir() or name.parts[0] in {SOURCES, *INTERNAL}:
                continue
            content = file.read_bytes()
            if file.suffix == ".html":
                content = without_sources(content.decode("utf-8")).encode("utf-8")
            elif file.suffix == ".png":
                content = pages.fewer_colours(content)
            entry = zipfile.ZipInfo(f"{folder}/{name.as_posix()}", WHEN)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
