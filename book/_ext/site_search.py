"""A Sphinx extension: the index behind the search page. Plain Sphinx, no Jupyter Book.

Sphinx's own search knows pages, not sections, and fetches whole chapters for its excerpts; other
static searches fetch their index in ways that a browser forbids to pages opened from disk. This one
is a folder of small scripts, which work from disk as well: `sections.js` names the sections,
`terms-xy.js` holds the words that begin with xy and where they stand, `text-n.js` the prose of some
sections for excerpts, and `words.js` all words, against which a mistyped one is compared.
`book/assets/search.js` loads what a query needs. `book/search_words.yml` says what readers call
things that the book calls otherwise.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lxml import html
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish, english_stopwords

FOLDER = "search"
WORDS = Path(__file__).resolve().parents[1] / "search_words.yml"

#: A file of excerpts holds about this many characters.
TEXT_SIZE = 3_000
#: A word of a title counts as often as this.
TITLE_WEIGHT = 4

HEADINGS = {"h1", "h2", "h3"}
BLOCKS = {"p", "li", "dd", "dt", "td", "th", "figcaption", "caption"}
#: What is no prose: code, what it printed, buttons, the parts of formulas. And what would tell the
#: answer: solutions, and the table of guesses.
SKIPPED = (
    "//*[contains(@class, 'cell_input') or contains(@class, 'cell_output') or "
    "contains(@class, 'headerlink') or contains(@class, 'chapter-cost') or "
    "contains(@class, 'chapter-list') or contains(@class, 'guess-table') or "
    "contains(concat(' ', @class, ' '), ' solution ') or "
    "contains(@class, 'katex-html') or self::summary or self::script or self::style or "
    "self::svg or self::pre or self::form or self::button or self::noscript]"
)

TOKEN = re.compile(r"[a-z0-9]+(?:[_'’][a-z0-9]+)*")

BRITISH = re.compile(r"is(ations?|e[drs]?|es|ing)$")

_english = SearchEnglish({})


def stem(word: str) -> str:
    """The word without its ending, as the script in the page finds it; -ise is -ize."""
    return str(_english.stem(BRITISH.sub(r"iz\1", word))) or word


def tokens(text: str) -> list[str]:
    """The words of a text in lower case; `token_nats` is three: itself and its parts."""
    found = []
    for word in TOKEN.findall(text.lower().replace("’", "'")):
        word = word.removesuffix("'s").replace("'", "")
        found.append(word)
        if "_" in word:
            found += word.split("_")
    return [word for word in found if word and word not in english_stopwords]


@dataclass
class Section:
    """A heading, or a name of the package, and the prose below it."""

    page: str
    anchor: str
    title: str
    text: list[str] = field(default_factory=list)

    @property
    def prose(self) -> str:
        """All in one string."""
        return " ".join(self.text)


def _plain(element: html.HtmlElement) -> str:
    return re.sub(r"\s+", " ", element.text_content()).strip()


def _shorten_formulas(article: html.HtmlElement) -> None:
    """Put a formula's source in its place where that can be read, and else an ellipsis."""
    for formula in article.xpath(".//*[contains(@class, 'katex-mathml')]"):
        (source,) = formula.xpath(".//*[local-name() = 'annotation']")[:1] or [formula]
        text = _plain(source)
        short = text if len(text) < 16 and not re.search(r"[\\{}^]", text) else "…"
        for child in list(formula):
            formula.remove(child)
        formula.text = short


def sections(page: str, text: str) -> Iterator[Section]:
    """The sections of a page with its HTML, in their order."""
    document = html.fromstring(text)
    articles = document.xpath("//article")
    if not articles:
        return
    article = articles[0]
    _shorten_formulas(article)
    for element in article.xpath(SKIPPED):
        element.drop_tree()
    current: Section | None = None
    for element in article.iter():
        if element.tag in HEADINGS:
            if current is not None:
                yield current
            owner = element.getparent()
            anchor = owner.get("id", "") if owner is not None and owner.tag == "section" else ""
            current = Section(page, "" if element.tag == "h1" else anchor, _plain(element))
        elif element.tag == "dt" and element.get("id"):  # a name of the package, or a term
            if current is not None:
                yield current
            anchor = element.get("id")
            name = anchor if "py" in element.get("class", "").split() else _plain(element)
            current = Section(page, anchor, name)
        elif (
            current is not None
            and element.tag in BLOCKS
            and not any(child.tag in BLOCKS for child in element.iterdescendants())
        ):
            current.text.append(_plain(element))
    if current is not None:
        yield current


def readers_words() -> dict[str, dict[str, str]]:
    """What readers call things: phrase -> the book's words for it, and the page about it."""
    loaded: dict[str, dict[str, str]] = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    return loaded


def counted(section: Section) -> Counter[str]:
    """How often each stem stands in a section; those of its title count more."""
    found = Counter(map(stem, tokens(section.prose)))
    for word in map(stem, tokens(section.title)):
        found[word] += TITLE_WEIGHT
    return found


def index(found: list[Section], synonyms: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The files of the index by name, each as the data that its script hands over."""
    pages = list(dict.fromkeys(section.page for section in found))
    titles = {section.page: section.title for section in reversed(found)}
    terms: dict[str, dict[str, list[int]]] = defaultdict(dict)
    vocabulary: set[str] = set()
    texts: list[list[str]] = [[]]
    rows = []
    for number, section in enumerate(found):
        if sum(map(len, texts[-1])) > TEXT_SIZE:
            texts.append([])
        texts[-1].append(section.prose)
        counts = counted(section)
        vocabulary.update(tokens(f"{section.title} {section.prose}"))
        where = [len(texts) - 1, len(texts[-1]) - 1]
        title = "" if section.title == section.anchor else section.title
        rows.append([pages.index(section.page), section.anchor, title, counts.total(), *where])
        for term, count in counts.items():
            terms[term[:2]].setdefault(term, []).extend((number, count))
    also = {}
    for phrase, entry in synonyms.items():
        page = entry.get("page", "")
        key = " ".join(map(stem, tokens(phrase)))
        also[key] = [entry.get("also", ""), pages.index(page) if page in pages else -1]
    files: dict[str, Any] = {
        "sections": {
            "pages": [[page, titles[page]] for page in pages],
            "sections": rows,
            "also": also,
            "stop": sorted(english_stopwords),
            "starts": sorted(terms),
        },
        "words": " ".join(sorted(word for word in vocabulary if len(word) > 3)),
    }
    files |= {f"terms-{start}": of for start, of in sorted(terms.items())}
    files |= {f"text-{number}": of for number, of in enumerate(texts)}
    return files


def write(folder: Path, files: dict[str, Any]) -> None:
    """Write the index as scripts, with the stemmer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        (folder / f"{name}.js").write_text(f'siteSearch("{name}",{text})', encoding="utf-8")
    (folder / "stemmer.js").write_text(SearchEnglish.js_stemmer_code, encoding="utf-8")


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write the index of all pages of the table of contents."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    found: list[Section] = []
    for name in sorted(app.env.found_docs, key=_reading_order(app)):
        path = site / f"{name}.html"
        if path.exists():
            found += sections(f"{name}.html", path.read_text(encoding="utf-8"))
    write(site / FOLDER, index(found, readers_words()))


def _reading_order(app: Sphinx) -> Any:
    order = {name: place for place, name in enumerate(app.env.collect_relations())}
    return lambda name: order.get(name, len(order))


def no_other_index(app: Sphinx) -> None:
    """Sphinx shall make neither its index nor its page."""
    if app.builder.format == "html":
        app.builder.search = False  # type: ignore[attr-defined]


def page(app: Sphinx) -> Iterable[tuple[str, dict[str, Any], str]]:
    """The search page; its template is in book/_templates."""
    return [("search", {}, "search.html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", no_other_index)
    app.connect("html-collect-pages", page)
    app.connect("build-finished", finish, priority=450)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
