"""The pages of the built site in reading order, made fit for paper."""

from __future__ import annotations

import html
import io
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

from bs4 import BeautifulSoup, Tag
from PIL import Image

from tools import chapters

HTML = chapters.ROOT / "_build" / "html"
OUT = chapters.ROOT / "_build" / "paper"

#: The names of the files in OUT begin so.
STEM = "trained-to-predict"

#: What only a screen can use: elements, and classes.
SCREEN_TAGS = {"button", "noscript", "script", "style", "link", "template", "dialog"}
SCREEN_CLASSES = {
    "headerlink", "toggle-button", "copybtn", "explore-status", "guess-table", "guess",
}  # fmt: skip

#: Attributes that name places of the same page.
REFERENCES = ("for", "aria-labelledby", "aria-describedby", "aria-controls", "aria-details")


@dataclass(frozen=True)
class Page:
    """One document of the book."""

    name: str
    """Its path below the site's root, without ending."""
    part: str
    """The caption of its part; empty for the first page."""
    title: str
    """Its heading."""
    article: Tag
    """Its contents, fit for paper."""

    @property
    def slug(self) -> str:
        """A name for the page that is an identifier, and a file's name, too."""
        return slug(self.name)


def slug(name: str) -> str:
    """`book/training/lstm` as `training-lstm`."""
    return name.removeprefix("book/").replace("/", "-")


def about_book() -> str:
    """What stands below the book's name on a title page."""
    project = chapters.project()["project"]
    site = project["urls"]["Documentation"]
    return (
        "<p>Objective mismatch and generalization in language models</p>"
        f"<p>{html.escape(project['authors'][0]['name'])}</p><p>Version {chapters.version()}</p>"
        f'<p><a href="{site}">{site}</a></p>'
        "<p>Text and figures: CC BY 4.0. Code: BSD-3-Clause.</p>"
    )


def read(order: list[tuple[str, str]] | None = None, site: Path = HTML) -> list[Page]:
    """The pages of the site at `site`, all of them or those named, each fit for paper."""
    pages = []
    for name, part in order or chapters.toc():
        path = site / f"{name}.html"
        if not path.exists():
            raise SystemExit(f"{path} is missing: run `make book` first")
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        article = soup.select_one("article.bd-article")
        if article is None:
            raise SystemExit(f"{path} has no <article>: is it a page of the book?")
        fit_for_paper(article, name)
        heading = article.find("h1")
        title = plain(heading) if isinstance(heading, Tag) else name
        pages.append(Page(name, part, title, article))
    return pages


def plain(heading: Tag) -> str:
    """The words of a heading; formulas as their TeX."""
    copy = BeautifulSoup(str(heading), "html.parser")
    for formula in copy.select(".katex"):
        annotation = formula.find("annotation")
        formula.replace_with(annotation.get_text() if isinstance(annotation, Tag) else "")
    return " ".join(copy.get_text().split())


# --- what paper cannot do ------------------------------------------------------------------------


def fit_for_paper(article: Tag, name: str) -> None:
    """Open what is closed, show the first frame of what responds, drop what only a screen uses.

    name: the page's, for what is only there.
    """
    for model in having(article, "play"):
        model.replace_with(model_on_paper(model, name))
    for picture in having(article, "explore"):
        hold_still(picture)
    for one in article.find_all(only_for_screens):
        if not one.decomposed:
            one.decompose()
    for details in article.find_all("details"):
        open_details(details)
    for box in having(article, "dropdown", "toggle"):
        kept = [name for name in classes(box) if name not in ("dropdown", "toggle")]
        box["class"] = " ".join(kept)
    for link in having(article, "image-reference"):
        link.unwrap()
    for image in article.find_all("img"):
        for attribute in ("loading", "decoding"):
            image.attrs.pop(attribute, None)
    for one in article.find_all(tabindex=True):
        del one["tabindex"]
    drop_empty_cells(article)
    seen: set[str] = set()
    for one in article.find_all(id=True):  # each exercise's box has the same
        if one["id"] in seen:
            del one["id"]
        else:
            seen.add(str(one["id"]))


def only_for_screens(tag: Tag) -> bool:
    """Whether paper has no use for an element."""
    return (
        tag.name in SCREEN_TAGS
        or "hidden" in tag.attrs
        or not SCREEN_CLASSES.isdisjoint(classes(tag))
    )


def classes(tag: Tag) -> list[str]:
    """The classes of an element."""
    found: Any = tag.get("class") or []
    return found.split() if isinstance(found, str) else list(found)


def having(article: Tag, *names: str) -> list[Tag]:
    """The elements that have one of these classes; a selector takes ten times as long."""
    return [tag for tag in article.find_all(True) if not set(names).isdisjoint(classes(tag))]


def new(tag: str, text: str, kind: str) -> Tag:
    """An element with a text and a class."""
    made = BeautifulSoup("", "html.parser").new_tag(tag, attrs={"class": kind})
    made.string = text
    return made


def chosen(picture: Tag) -> list[str]:
    """What a picture's controls stand at: "Order: 2"."""
    found = []
    for control in picture.select(".explore-control"):
        slider = control.select_one("input[type=range]")
        if slider is not None:
            found.append(f"{slider['aria-label']}: {slider['aria-valuetext']}")
            continue
        name = control.find("legend")
        label = control.select_one("label:has(input[checked])")
        if name is not None and label is not None:
            found.append(f"{name.get_text()}: {label.get_text().strip()}")
    return found


def hold_still(picture: Tag) -> None:
    """Put the values that its controls stand at in place of the controls."""
    values = chosen(picture)
    for controls in picture.select(".explore-controls"):
        controls.replace_with(new("p", "; ".join(values), "explore-chosen"))
    for form in picture.select("form"):
        form.name = "div"
        form.attrs = {}


def model_on_paper(model: Tag, name: str) -> Tag:
    """In place of a model that runs in the page: what it is, its first text, and where it runs."""
    address = f"{chapters.project()['project']['urls']['Documentation']}{name}.html"
    box = new("div", "", "model")
    title = model.select_one(".play-title")
    box.append(new("p", title.get_text() if title else "", "play-title"))
    text = model.select_one("textarea")
    if text is not None:
        box.append(new("pre", text.get_text(), "play-text"))
    does = "goes on with this text" if text is not None else "answers your questions"
    line = new("p", f"The model runs in this page of the site, and {does} there: ", "play-place")
    link = new("a", address, "")
    link["href"] = address
    line.append(link)
    box.append(line)
    return box


def open_details(details: Tag) -> None:
    """A box in place of what a click opens; folded code loses its title, others keep theirs."""
    summary = details.find("summary", recursive=False)
    if isinstance(summary, Tag):
        if "hide" in classes(details):
            summary.decompose()
        elif "outcome" in classes(details):
            summary.replace_with(new("p", "The result", "opened-title"))
        else:
            summary.name = "div"
            summary.attrs = {"class": "opened-title"}
    kept = [name for name in classes(details) if name not in ("admonition", "hide", "above-input")]
    folded = "hide" in classes(details)
    details.name = "div"
    details.attrs = {key: details[key] for key in ("id",) if key in details.attrs}
    details["class"] = " ".join([*kept, "opened-code" if folded else "opened"])


def drop_empty_cells(article: Tag) -> None:
    """No box where a cell has nothing to show."""
    for kind in ("cell_input", "cell_output", "opened-code", "cell"):
        for box in having(article, kind):
            if not box.get_text().strip() and not box.find(["img", "svg", "table", "hr", "math"]):
                box.decompose()


# --- pictures ------------------------------------------------------------------------------------


def fewer_colours(png: bytes) -> bytes:
    """A PNG of 256 colours, which a plot hardly exceeds; as it was where it is not opaque."""
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    if drawn.getchannel("A").getextrema() != (255, 255):
        return png
    made = io.BytesIO()
    few = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(made, "PNG", optimize=True)
    return min(png, made.getvalue(), key=len)


# --- addresses -----------------------------------------------------------------------------------


def resolve(page: str, link: str) -> tuple[str, str]:
    """What a link of the page named `page` leads to: a path in the site, and a place in it."""
    path, place = urldefrag(link)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(path)))
    return (path if urldefrag(link)[0] else f"{page}.html"), unquote(place)


def rewrite(
    page: Page, to_page: Callable[[str, str], str], to_file: Callable[[str], str], known: set[str]
) -> None:
    """Change the addresses in a page.

    to_page: the address of a page of the book and a place in it ("" for its beginning).
    to_file: the address of a picture.
    known: the names of the pages there are; a link to another one leads to the published site.
    """
    site = chapters.project()["project"]["urls"]["Documentation"]
    for tag in page.article.find_all("a", href=True):
        link = str(tag["href"])
        if urlparse(link).scheme or link.startswith("//"):
            continue
        path, place = resolve(page.name, link)
        name = path.removesuffix(".html")
        if name in known:
            tag["href"] = to_page(name, place)
        else:
            tag["href"] = site + path + (f"#{place}" if place else "")
    for tag in page.article.find_all("img", src=True):
        if not urlparse(str(tag["src"])).scheme:
            tag["src"] = to_file(resolve(page.name, str(tag["src"]))[0])


def prefix_places(page: Page, prefix: str) -> None:
    """Let the names of places in a page begin with `prefix`, so that pages can share a file."""
    for tag in page.article.find_all(True):
        if "id" in tag.attrs:
            tag["id"] = prefix + str(tag["id"])
        for key in REFERENCES:
            if key in tag.attrs:
                value = tag[key]
                words = value.split() if isinstance(value, str) else value
                tag[key] = " ".join(prefix + word for word in words)
        for key, value in tag.attrs.items():
            if isinstance(value, str) and "url(#" in value:
                tag[key] = re.sub(r"url\(#", f"url(#{prefix}", value)
        for key in ("href", "xlink:href"):
            if tag.name == "use" and str(tag.attrs.get(key, "")).startswith("#"):
                tag[key] = f"#{prefix}{str(tag[key])[1:]}"
