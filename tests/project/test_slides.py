"""Slides show what chapters say, need nothing from outside, and fit the screen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import browsed_site
import pytest
import yaml
from bs4 import BeautifulSoup

from tools import slides

browser = browsed_site.browser  # a fixture

LECTURES = slides.lectures()
CHAPTER = slides.ROOT / "book" / "background" / "two_problems.ipynb"

TEXT = """\
## A heading

One sentence, e.g. this by Doe et al. of 2020, with .5 in it. **Bold begins the second.** (In
brackets.) A fourth: it
goes on.

- an entry that
  has two lines;
- *the* last.

$$
a = b
$$ (eq-label)
"""


@pytest.fixture(scope="module")
def pages() -> dict[str, BeautifulSoup]:
    """Each lecture's page, without the fonts of formulas."""
    return {path.stem: BeautifulSoup(slides.lecture(path, ""), "html.parser") for path in LECTURES}


def test_there_are_two_lectures_of_about_twenty_slides(pages: dict[str, BeautifulSoup]) -> None:
    assert len(pages) == 2
    for page in pages.values():
        shown = page.find_all("section")
        assert 18 <= len(shown) <= 25
        assert all(section.find("footer").text for section in shown)
        assert len(page.select(".guess")) >= 4
        assert len(page.select("figure")) >= 5


def test_nothing_on_a_slide_is_left_as_source(pages: dict[str, BeautifulSoup]) -> None:
    for page in pages.values():
        for found in page.select("annotation, script, style, pre"):
            found.extract()
        assert re.findall(r"\{[a-z:]+\}`|<!--|\$|\*\*|\x02|\]\(", page.get_text()) == []
        assert page.select(".katex-error") == []


def test_a_page_asks_for_nothing_from_outside(pages: dict[str, BeautifulSoup]) -> None:
    for page in pages.values():
        asked = [each.get(key) for key in ("src", "href") for each in page.select(f"[{key}]")]
        assert [address for address in asked if not address.startswith("data:")] == []
        assert all(image.get("alt") for image in page.select("img"))
        assert all(svg.get("aria-label") for svg in page.select("svg.drawing"))


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_what_a_lecture_says_itself_has_no_number_that_could_become_wrong(path: Path) -> None:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = [found["title"], found["about"], *(each["title"] for each in found["slides"])]
    assert [text for text in own if re.search(r"\d", text)] == []


def test_a_sentence_is_found_by_its_first_words() -> None:
    one = "One sentence, e.g. this by Doe et al. of 2020, with .5 in it."
    assert slides.sentences(TEXT, "One") == one
    assert slides.sentences(TEXT, "One", 2) == f"{one} **Bold begins the second.**"
    assert slides.sentences(TEXT, "Bold begins", 2).endswith("(In brackets.)")
    assert slides.sentences(TEXT, "A fourth") == "A fourth: it goes on."
    assert slides.sentences(TEXT, "the* last") == "*the* last."
    with pytest.raises(ValueError, match="no sentence begins with 'sentence'"):
        slides.sentences(TEXT, "sentence")
    with pytest.raises(ValueError, match="fewer than 3 sentences from 'Bold'"):
        slides.sentences("**Bold.** Two.", "Bold", 3)


def test_formulas_and_lists_are_found() -> None:
    assert slides.formulas(TEXT) == ["a = b"]
    assert [" ".join(each.split()) for each in slides.entries(TEXT)] == [
        "an entry that has two lines;", "*the* last.",
    ]  # fmt: skip


def test_what_is_printed_is_shown_without_guess_and_claims() -> None:
    text = "a 1\nYou guessed 2; it is 1.\nIn 6 of 6 stored runs: yes.\n\nb 2\n"
    cell = {"outputs": [{"name": "stdout", "text": text}, {"data": {"image/png": ""}}]}
    assert slides.printed(cell) == ["a 1", "", "b 2"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("{doc}`/book/training/lstm` has it", "*The LSTM* has it"),
        ("{doc}`this <../training/lstm>`", "this"),
        ("a {term}`source`", "a source"),
        ("{cite:t}`holtzman2020curious` say", "Holtzman et al. (2020) say"),
        ("{cite:p}`shah2022goal,bradley1952rank`", "(Shah et al., 2022; Bradley and Terry, 1952)"),
        ("[a text](there.ipynb)", "a text"),
    ],
)  # fmt: skip
def test_roles_become_words(written: str, shown: str) -> None:
    assert slides.plain_roles(written, CHAPTER) == shown


def test_a_reference_that_a_slide_cannot_show_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot show \{eq\}`eq-x`: choose another sentence"):
        slides.plain_roles("by {eq}`eq-x`", CHAPTER)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"say": ["9e10602c", "No such words"]}, "say of 9e10602c: no sentence begins with 'No"),
        ({"say": ["nowhere", "The"]}, "say of nowhere: two_problems has no cell 'nowhere'"),
        ({"formula": ["9e10602c", 3]}, "it has 0 displayed formulas"),
        ({"picture": "9e10602c"}, "picture of 9e10602c"),
        ({"printed": "efe1c6fa"}, "it printed nothing"),
        ({"guess": "50999950"}, "it is no guess with a question"),
        ({"table": "9e10602c"}, "it has no table"),
        ({"list": "efe1c6fa"}, "it has no list"),
    ],
)
def test_a_slide_without_its_cell_is_an_error_that_names_it(
    item: dict[str, Any], message: str
) -> None:
    content = {"title": "T", "from": "book/background/two_problems", "show": [item]}
    with pytest.raises(ValueError, match="slide 'T', ") as caught:
        slides.slide(content, slides.Typesetter())
    assert message in str(caught.value)


def test_a_number_on_a_slide_is_the_one_that_the_chapter_has_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = {
        "title": "T", "from": "book/background/two_problems",
        "show": [{"say": ["fe0a8d1b", "The model grants the wish"]}],
    }  # fmt: skip
    cell = {
        "id": "fe0a8d1b",
        "source": "The model grants the wish in 99 %<!--=mean a: b--> of all.",
    }
    monkeypatch.setattr(slides, "_cells", lambda path: {"fe0a8d1b": cell})
    assert "<p>The model grants the wish in 99 % of all.</p>" in slides.slide(
        content, slides.Typesetter()
    )


@pytest.mark.browser
def test_slides_fit_the_screen_and_turn_by_keys(browser: Any, tmp_path: Path) -> None:
    for path in slides.write(tmp_path):
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        faults = browsed_site.faults_of(page)
        page.goto(path.as_uri())
        number = page.locator("section").count()
        for place in range(1, number + 1):
            shown = page.locator("section:visible")
            assert [shown.count(), shown.get_attribute("id")] == [1, str(place)]
            sizes = shown.evaluate(
                "s => [s.scrollHeight - s.clientHeight, s.scrollWidth - s.clientWidth]"
            )
            assert sizes == [0, 0], f"slide {place} of {path.stem} does not fit"
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Home")
        page.get_by_role("button", name="Next").click()
        assert page.locator("section:visible").get_attribute("id") == "2"
        assert faults == []
        page.close()
