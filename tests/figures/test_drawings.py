"""Schematic drawings: one for each chapter, well formed, legible, and true to what they draw."""

from __future__ import annotations

import functools
import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

from companion import figures
from companion.figures.drawings import CATALOGUE
from companion.figures.drawings.canvas import INK, MAIN, OTHER, SIZE, Canvas
from tools import chapters, drawings

SVG = "{http://www.w3.org/2000/svg}"
NAMES = list(CATALOGUE)


def parsed(name: str) -> ElementTree.Element:
    return ElementTree.fromstring(figures.drawing(name).svg)


# --- What a drawing is ----------------------------------------------------------------------------


def test_each_chapter_opens_with_its_drawing_and_no_other() -> None:
    shown = [
        (path.stem, name)
        for path in chapters.toc_notebooks()
        for cell in chapters.code_cells(chapters.read_notebook(path))
        for name in re.findall(r'figures\.drawing\("(.*?)"\)', cell["source"])
    ]
    assert [chapter for chapter, _ in shown] == [path.stem for path in chapters.toc_notebooks()]
    assert sorted(shown) == sorted(
        (drawing.chapter, name) for name, drawing in CATALOGUE.items() if drawing.opens
    )


def test_drawings_within_a_text_are_files_as_they_are_drawn_with_their_alternative_text() -> None:
    shown = [
        (path.stem, name, alt)
        for path in chapters.toc_notebooks()
        for cell in chapters.read_notebook(path)["cells"]
        for alt, name in re.findall(
            r"!\[([^]]*)\]\(\.\./assets/drawings/(.*?)\.svg\)", "".join(cell["source"])
        )
    ]
    within = [drawing for drawing in CATALOGUE.values() if not drawing.opens]
    assert sorted(shown) == sorted((each.chapter, each.name, each.alt) for each in within)
    files = {path: path.read_text(encoding="utf-8") for path in drawings.FOLDER.iterdir()}
    assert files == drawings.files(), "run `python -m tools.drawings`"
    for text in files.values():
        assert "var(" not in text
        assert "currentColor" not in text
        root = ElementTree.fromstring(text)
        width, height = float(root.get("width", "0")), float(root.get("height", "0"))
        left, top, units, tall = map(float, root.get("viewBox", "").split())
        assert (left, top) == (0, 0)
        assert abs(width / height - units / tall) < 0.01


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"'three stages'; there are: .*three-stages"):
        figures.drawing("three stages")


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_shows_as_html_and_reads_as_its_alternative_text(name: str) -> None:
    drawing = figures.drawing(name)
    shown = {"text/plain": drawing.alt, "text/html": drawing.svg}
    assert DisplayFormatter().format(drawing) == (shown, {})
    root = parsed(name)
    assert root.get("role") == "img"
    assert root.get("aria-label") == drawing.alt
    assert 80 <= len(drawing.alt) <= 520
    assert drawing.alt.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_brings_no_script_font_file_or_id(name: str) -> None:
    """Without ids, two drawings on a page cannot disturb each other."""
    allowed = {"svg", "text", "rect", "circle", "polyline", "polygon"}
    for element in parsed(name).iter():
        assert element.tag.removeprefix(SVG) in allowed
        names = set(element.attrib)
        assert not [key for key in names if key in ("id", "href") or key.startswith("on")]
        assert "url(" not in " ".join(element.attrib.values())
    assert len(figures.drawing(name).svg) < 12_000


@pytest.mark.parametrize("name", NAMES)
def test_text_has_the_colour_of_the_page_and_shapes_one_of_three(name: str) -> None:
    """The page's own colour is legible on it whatever its theme; accents need only be seen."""
    root = parsed(name)
    assert root.get("fill") == INK
    for element in root.iter():
        if element.tag == f"{SVG}text":
            assert {"fill", "stroke", "opacity", "fill-opacity"}.isdisjoint(element.attrib)
        elif element is not root:
            assert element.get("fill", INK) in (INK, MAIN, OTHER, "none")
            assert element.get("stroke", "none") in (INK, MAIN, OTHER, "none")


def luminance(color: str) -> float:
    def linear(part: int) -> float:
        c = part / 255
        return float(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(int(color[i : i + 2], 16)) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("color", [MAIN, OTHER])
@pytest.mark.parametrize("page", ["#ffffff", "#383838", "#1e1e1e", "#111111"])
def test_where_the_page_has_no_colours_of_ours_accents_are_seen_light_and_dark(
    color: str, page: str
) -> None:
    """3 to 1 is WCAG's ratio for graphics; the pages are those of Colab, VS Code, JupyterLab."""
    fallback = re.search(r"#[0-9a-f]{6}", color)
    assert fallback
    levels = sorted((luminance(fallback[0]), luminance(page)))
    assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 3


# --- Where things are -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """A rectangle in a drawing's units."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other: Area, slack: float = 0.0) -> bool:
        return (
            self.left <= other.left + slack
            and self.top <= other.top + slack
            and self.right >= other.right - slack
            and self.bottom >= other.bottom - slack
        )

    def meets(self, other: Area) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def cut_by(self, a: tuple[float, float], b: tuple[float, float]) -> bool:
        """Whether the segment from a to b has a point in the area (Liang and Barsky)."""
        start, end = 0.0, 1.0
        for at, step, low, high in (
            (a[0], b[0] - a[0], self.left, self.right),
            (a[1], b[1] - a[1], self.top, self.bottom),
        ):
            if step == 0:
                if not low < at < high:
                    return False
                continue
            first, second = sorted(((low - at) / step, (high - at) / step))
            start, end = max(start, first), min(end, second)
        return start < end


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.get(name, "0")) for name in names]


@functools.cache
def font(bold: bool) -> FT2Font:
    weight = "bold" if bold else "normal"
    return FT2Font(font_manager.findfont(FontProperties(family="DejaVu Sans", weight=weight)))


def words(root: ElementTree.Element) -> Iterator[tuple[str, Area]]:
    """Each text with its place in DejaVu Sans, as wide a font as a reader will have."""
    for element in root.iter(f"{SVG}text"):
        x, y = numbers(element, "x", "y")
        size = float(element.get("font-size", SIZE))
        face = font(element.get("font-weight") is not None)
        face.set_size(size, 72)
        face.set_text(element.text or "")
        width = face.get_width_height()[0] / 64
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[element.get("text-anchor", "start")]
        left = x - share * width
        yield element.text or "", Area(left, y - 0.74 * size, left + width, y + 0.2 * size)


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in element.get("points", "").split())
    return [(float(x), float(y)) for x, y in pairs]


def outlines(root: ElementTree.Element) -> Iterator[Area]:
    """Boxes and circles that have an outline."""
    for element in root.iter():
        if element.get("stroke", "none") == "none":
            continue
        if element.tag == f"{SVG}rect":
            x, y, width, height = numbers(element, "x", "y", "width", "height")
            yield Area(x, y, x + width, y + height)
        elif element.tag == f"{SVG}circle":
            x, y, r = numbers(element, "cx", "cy", "r")
            yield Area(x - r, y - r, x + r, y + r)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_lies_outside_and_no_text_is_small(name: str) -> None:
    """360 units are as many pixels as a phone's column has, so a size of 12 is seen as 12."""
    root = parsed(name)
    left, top, width, height = map(float, root.get("viewBox", "").split())
    assert (left, top, width) == (0, 0, 360)
    page = Area(0, 0, width, height)
    for text, area in words(root):
        assert page.holds(area), text
    for area in outlines(root):
        assert page.holds(area)
    for element in root.iter():
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points(element))
        assert float(element.get("font-size", SIZE)) >= SIZE


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_crossed_by_a_text_an_outline_or_a_line(name: str) -> None:
    root = parsed(name)
    placed = list(words(root))
    for i, (text, area) in enumerate(placed):
        assert [other for other, there in placed[i + 1 :] if area.meets(there)] == [], text
        for outline in outlines(root):
            assert outline.holds(area) or not area.meets(outline), text
        for element in root.iter(f"{SVG}polyline"):
            corners = points(element)
            crossed = any(area.cut_by(a, b) for a, b in itertools.pairwise(corners))
            assert not crossed, text


def test_the_tests_of_places_notice_what_is_wrong() -> None:
    canvas = Canvas(60)
    canvas.text(350, 30, "cut off")
    canvas.line((300, 30), (359, 30))
    root = ElementTree.fromstring(canvas.svg("wrong"))
    ((_, area),) = words(root)
    assert not Area(0, 0, 360, 60).holds(area)
    (line,) = root.iter(f"{SVG}polyline")
    assert area.cut_by(*points(line))
    assert not area.cut_by((300, 2), (359, 2))


# --- What it says ---------------------------------------------------------------------------------


def test_the_automaton_has_the_probabilities_of_the_grammar() -> None:
    from companion.sources import GrammarSource

    source = GrammarSource()
    shown = [text for text, _ in words(parsed("automaton"))]

    def probability(prefix: str, word: str) -> str:
        state = source.state_after(source.encode(prefix))
        share = float(source.transition_probs[state, source.encode(word)[0]])
        return f"{share:.2f}".removeprefix("0")

    walk = [
        ("", "it"),
        ("it", "is"),
        ("it is", "great"),
        ("it is great", "."),
        ("it is great .", "<end>"),
    ]
    factors = [probability(prefix, word) for prefix, word in walk]
    assert f"p(it is great . <end>) = {' × '.join(factors)}" in shown
    assert shown[shown.index("dull") + 1] == probability("it is", "dull")
    assert f"another sentence, {source.config.another_sentence:.2f},".replace("0.", ".") in shown
    assert probability("it is great . it is", "dull") == ".00"


def test_the_next_words_are_those_that_the_chapter_counts() -> None:
    (path,) = (path for path in chapters.toc_notebooks() if path.stem == "language_models")
    counted = re.findall(r"of +\d+ +(0\.\d+) +(\w+)", path.read_text(encoding="utf-8"))[:4]
    shown = [text for text, _ in words(parsed("next-word"))]
    for share, word in counted:
        assert shown[shown.index(word) + 1] == f"{100 * float(share):.0f} %"
    assert len(counted) == 4


TOY = ["the", "cat", "saw", "the", "dog", ".", "the", "dog", "ran", "."]


def test_the_smoothed_probabilities_are_those_of_the_text_of_ten_words() -> None:
    import numpy as np

    from companion.models import NGramModel

    ids = {word: i for i, word in enumerate(sorted(set(TOY)))}
    counted = np.array([ids[word] for word in TOY])
    model = NGramModel.fit(counted, order=2, vocabulary_size=7)
    shown = " ".join(text for text, _ in words(parsed("witten-bell")))
    for context in ([], [ids["the"]]):
        share = float(model.probs(context)[ids["dog"]])
        assert f"= {share:.3f}".replace("0.", ".") in shown

    texts = [(text, area) for text, area in words(parsed("kneser-ney"))]
    rows: dict[float, list[str]] = {}
    for text, area in texts:
        rows.setdefault(round(area.top), []).append(text)
    for word in ids:
        before = {a for a, b in zip(["(start)", *TOY], TOY, strict=False) if b == word}
        (row,) = (row for row in rows.values() if row[0] == word and set(row[1:]) == before)
        assert len(row) == 1 + len(before)
    squares = [e for e in parsed("kneser-ney").iter(f"{SVG}rect") if e.get("width") == "15"]
    assert len(squares) == len(TOY)
    assert {"kept for dog: 11/9", "given away: 2 × 7/9"} <= {text for text, _ in texts}


def test_the_two_states_have_the_visits_and_the_rate_of_the_chapter_s_automaton() -> None:
    import torch

    from companion.sources import AutomatonSource

    source = AutomatonSource(
        ["<end>", "very", "good"],
        torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]),
        torch.tensor([[-1, 0, 1], [0, -1, -1]]),
    )
    shown = [text for text, _ in words(parsed("two-states"))]
    visits = [f"{visit:g}" for visit in source.visits.tolist()]
    rows = [shown[i : i + 6] for i, text in enumerate(shown) if text.startswith("p(in state")]
    assert [row[-1] for row in rows] == visits
    assert f"{source.entropy_rate():.3f}".removeprefix("0") in shown[-1]


def test_the_cross_entropies_are_those_of_the_chapter_s_source() -> None:
    from companion.core import information

    p = [1 / 2, 1 / 4, 1 / 8, 1 / 8]
    shown = [text for text, _ in words(parsed("cross-entropy-parts"))]
    for model, total in ((p, "1.75"), ([1 / 4] * 4, "2"), (p[::-1], "2.625")):
        bits = information.nats_to_bits(information.cross_entropy(p, model))
        assert f"{bits:.6g}" == total
        assert total in shown


def test_the_ids_are_those_that_byte_pair_encoding_gives() -> None:
    from companion.text.tokenizers import BPETokenizer

    text = " ".join(5 * ["low"] + 2 * ["lower"] + 6 * ["newest"] + 3 * ["widest"])
    tokenizer = BPETokenizer.fit([text], vocabulary_size=267)
    ids = tokenizer.encode("lowest")
    shown = {text for text, _ in words(parsed("text-to-tokens"))}
    assert {tokenizer.tokens[i] for i in ids} | {str(i) for i in ids} <= shown


def test_the_windows_are_those_of_the_batches() -> None:
    import torch

    from companion.text import batching

    shown = [text for text, _ in words(parsed("streams-and-windows"))]
    for batch in batching.windows(batching.streams(torch.arange(26), 2), 4):
        for row in batch.inputs.tolist():
            letters = [chr(ord("a") + i) for i in row]
            assert any(shown[i : i + 4] == letters for i in range(len(shown)))


def test_the_second_language_is_rot13() -> None:
    import codecs

    shown = [text for text, _ in words(parsed("two-paths"))]
    question = ["what does a", "florb need ?"]
    assert set(question) <= set(shown)
    assert {codecs.encode(part, "rot13") for part in question} <= set(shown)
