"""The models that the book's pages run: what the notebooks hold, what the site makes of it, and
whether a browser answers as Python does.

The last part needs the built site and Chromium (`make site-test`), as tests/project/test_site.py.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browsed_site
import pytest
import torch
from browsed_site import HTML
from packed_page import file_in, settings_in
from safetensors.torch import load

from companion.compression.packed import fill
from companion.evaluation import scoring
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.studies.mismatched_generalization import Config as TwoLanguages
from companion.teaching import play
from companion.text.corpora import load_corpus
from companion.text.tokenizers import CharacterTokenizer, encode_documents
from companion.world.language import QUESTIONS
from companion.world.replies import ask, asking_form, refuses, reply_to
from companion.world.stages import StagesConfig, new_model
from companion.world.world import World
from tools import chapters, page_models

ROOT = chapters.ROOT

WRITES = ROOT / "book" / "training" / "generating_text.ipynb"
ANSWERS = ROOT / "book" / "objective_mismatch" / "competing_objectives.ipynb"
TWO_LANGUAGES = ROOT / "book" / "mismatched_generalization" / "safety_generalization.ipynb"

#: Ways of asking in each form, in its order, and what it calls them.
WAYS = {
    ANSWERS: {
        "plain": "asked plainly",
        "start_with": "told how to begin",
        "do_not_say": 'told not to say "sorry"',
        "prefill": "reply already begun",
        "encoded": "in the cipher (rot13)",
    },
    TWO_LANGUAGES: {"plain": "plain", "encoded": "encoded", "encoded_name": "name encoded"},
}
CONFIGS: dict[Path, StagesConfig] = {ANSWERS: StagesConfig(), TWO_LANGUAGES: TwoLanguages()}
each_world = pytest.mark.parametrize("path", WAYS, ids=lambda path: path.stem)

STORED = [
    (path, cell, page)
    for path in chapters.toc_notebooks()
    for cell, page in page_models.stored(path).items()
]
each_model = pytest.mark.parametrize(
    ("path", "cell", "page"), STORED, ids=[f"{path.stem}-{cell}" for path, cell, _ in STORED]
)


def the_model(path: Path) -> tuple[str, str]:
    """Cell and HTML of the one model of a chapter."""
    ((cell, page),) = page_models.stored(path).items()
    return cell, page


@functools.cache
def world(path: Path = ANSWERS) -> World:
    return World(CONFIGS[path], seed=0)


@functools.cache
def talker(path: Path = ANSWERS) -> Any:
    """The model of a chapter's world with the weights that the page has."""
    model = new_model(CONFIGS[path], world(path)).eval()
    fill(model, load(file_in(the_model(path)[1])))
    return model


def in_the_form(path: Path) -> list[Any]:
    """The restricted things in the order of a chapter's form, which may begin with another one."""
    things = settings_in(file_in(the_model(path)[1]))["asking"]["things"]
    place = {thing["name"]: at for at, thing in enumerate(things)}
    return sorted(world(path).restricted, key=lambda thing: place[thing.name])


# --- what the notebooks hold ----------------------------------------------------------------------


def test_the_book_has_a_model_that_writes_and_two_that_answer() -> None:
    assert [(path, cell) for path, cell, _ in STORED] == [
        (WRITES, "gen-play"),
        (ANSWERS, "co-play"),
        (TWO_LANGUAGES, "sg-play"),
    ]


@each_model
def test_the_file_is_that_whose_checksum_the_cell_printed(path: Path, cell: str, page: str) -> None:
    checksum = hashlib.sha256(file_in(page)).hexdigest()
    assert f'data-sha256="{checksum}"' in page
    assert f"SHA-256 {checksum[:16]}\n" in page_models.printed(path, cell)


@each_model
def test_script_and_style_sheet_are_those_of_the_package(path: Path, cell: str, page: str) -> None:
    """nbval does not compare them; after a change of either, `make notebooks` stores them again."""
    for tag, own in (("script", play.SCRIPT), ("style", play.STYLE)):
        found = re.findall(rf"(?s)<{tag}>(.*?)</{tag}>", page)
        assert found == [own.read_text(encoding="utf-8")]


@each_world
def test_the_table_of_the_world_is_that_of_the_weights_in_the_page(path: Path) -> None:
    """The printed shares, counted again; a tie may fall otherwise on another processor."""
    cell, _ = the_model(path)
    printed = page_models.printed(path, cell)
    restricted = world(path).restricted
    rows = re.findall(r"(?m)^(\S.*?) +refuses +(\d+)%, right +(\d+)%$", printed)
    assert [row[0] for row in rows] == list(WAYS[path].values())[:-1]
    for way, (_, *row) in zip(WAYS[path], rows, strict=False):
        found = ask(talker(path), world(path), restricted, way)
        for share, percent in zip((found.refusal, found.leak), row, strict=True):
            questions = len(restricted) * len(QUESTIONS)
            assert abs(share - int(percent) / 100) <= 0.005 + 2 / questions


def test_the_form_s_first_florb_is_refused_when_asked_plainly_and_leaks_to_every_attack() -> None:
    """What a reader tries first shows what the chapter says, on any processor."""
    first = in_the_form(ANSWERS)[0]
    assert ask(talker(), world(), [first], "plain").leak == 0
    for way in ("start_with", "do_not_say", "prefill"):
        request = world().request(first, way, question=0)
        assert reply_to(talker(), world(), [request]).leak == 1, way


@each_world
def test_the_world_s_form_is_that_of_the_world(path: Path) -> None:
    settings = settings_in(file_in(the_model(path)[1]))
    of = world(path)
    groups = {
        "florbs in the examples": in_the_form(path)[: len(of.seen)],
        "florbs held out": of.held_out,
        "other things": of.benign + of.benign_held_out,
    }
    assert settings == {
        "kind": "word",
        "tokens": of.tokenizer.tokens,
        "end": of.tokenizer.end_id,
        "unknown": of.tokenizer.unknown_id,
        "asking": asking_form(of, groups, WAYS[path]),
    }


def test_the_writer_has_the_loss_that_its_cell_printed(companion_data: Path) -> None:
    cell, page = the_model(WRITES)
    corpus = load_corpus("tiny-shakespeare")
    signs = CharacterTokenizer.fit(document.text for document in corpus.train)
    settings = settings_in(file_in(page))
    assert settings["tokens"] == signs.tokens
    assert (settings["kind"], settings["end"], settings["unknown"]) == ("character", 1, 0)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=signs.vocabulary_size)).eval()
    fill(model, load(file_in(page)))
    ids = encode_documents(signs, corpus.documents("valid")).ids
    nats = scoring.evaluate(model, ids).nats_per_token
    row = re.search(r"in the page: (\d\.\d{4}) nats", page_models.printed(WRITES, cell))
    assert row is not None
    # Four digits are printed; sums of another order differ by less than as much again.
    assert abs(nats - float(row[1])) <= 1e-4


# --- in the site ----------------------------------------------------------------------------------

browser, site = browsed_site.browser, browsed_site.site  # fixtures

#: Nats by which a log-probability may differ; tests/teaching/test_play.py says why.
TOLERANCE = 1e-4


def page_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix(".html").as_posix()


@pytest.fixture
def visit(browser: Any, site: str) -> Iterator[Callable[..., Any]]:
    """Opens a page; in the end, nothing went wrong in it."""
    contexts: list[Any] = []
    faults: list[list[str]] = []

    def open_page(address: str, *, start: bool = True, **options: Any) -> Any:
        contexts.append(browser.new_context(reduced_motion="reduce", **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        faults.append(browsed_site.faults_of(page))
        page.goto(address, wait_until="load")
        if start:
            page.evaluate(
                """() => {
                    for (let e = document.querySelector('.play'); e; e = e.parentElement)
                        if (e.tagName === 'DETAILS') e.open = true;
                    document.querySelector('.play').scrollIntoView();
                }"""
            )
            page.wait_for_selector('.play[data-ready="yes"]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [each for each in faults if each] == []


MODEL = "document.querySelector('.play').model"


@pytest.mark.browser
@each_model
def test_a_page_holds_no_weights_and_loads_them_when_the_reader_comes_near(
    path: Path, cell: str, page: str, visit: Callable[..., Any], site: str
) -> None:
    text = (HTML / page_of(path)).read_text(encoding="utf-8")
    checksum = hashlib.sha256(file_in(page)).hexdigest()
    assert text.count('<div class="play"') == 1
    assert "data-weights" not in text
    assert play.SCRIPT.read_text(encoding="utf-8")[:60] not in text
    seen = visit(site + page_of(path), start=False)
    loaded = "() => [...document.scripts].map(s => s.src).filter(s => s.includes('/models/'))"
    assert not [source for source in seen.evaluate(loaded) if checksum in source]
    near = visit(site + page_of(path))
    assert [source for source in near.evaluate(loaded) if source.endswith(f"/{checksum}.js")]


@pytest.mark.browser
@each_model
def test_it_runs_from_a_disk(path: Path, cell: str, page: str, visit: Callable[..., Any]) -> None:
    opened = visit((HTML / page_of(path)).as_uri())
    opened.locator(".play .play-go").click()
    status = opened.locator(".play .play-status")
    assert status.inner_text().startswith("The model ")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", [WRITES, ANSWERS, TWO_LANGUAGES], ids=lambda path: path.stem)
def test_a_form_is_as_high_before_its_model_is_there_as_after(
    path: Path, width: int, visit: Callable[..., Any], site: str
) -> None:
    height = "document.querySelector('.play form').getBoundingClientRect().height"
    opened = "document.querySelectorAll('details').forEach(e => { e.open = true; })"
    size = {"width": width, "height": 900}
    before = visit(site + page_of(path), start=False, viewport=size)
    before.evaluate(opened)
    after = visit(site + page_of(path), viewport=size)
    assert after.evaluate(height) == before.evaluate(height)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index.html", "book/background/language_models.html"])
def test_a_borrowed_model_runs_in_a_site_below_a_folder_and_from_a_disk(
    name: str, visit: Callable[..., Any]
) -> None:
    """The landing page is written twice, and one of the two stands at the root address."""
    with browsed_site.served(HTML.parent) as address:
        for where in (f"{address}{HTML.name}/{name}", (HTML / name).as_uri()):
            visit(where).locator(".play .play-go").click()


@pytest.mark.browser
@each_model
def test_200_log_probabilities_are_those_of_pytorch(
    path: Path, cell: str, page: str, visit: Callable[..., Any], site: str
) -> None:
    settings = settings_in(file_in(page))
    size = len(settings["tokens"])
    tied = "output.weight.int8" not in load(file_in(page))
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=size, tie_weights=tied)).eval()
    fill(model, load(file_in(page)))
    ids = torch.randint(size, (200,), generator=torch.Generator().manual_seed(0))
    opened = visit(site + page_of(path))
    found = torch.tensor(opened.evaluate(f"ids => {MODEL}.logProbs(ids)", ids.tolist()))
    with torch.no_grad():
        logits, _ = model(torch.cat([torch.tensor([settings["end"]]), ids[:-1]])[None])
    wanted = torch.log_softmax(logits[0], dim=-1).gather(1, ids[:, None])[:, 0]
    print(f"largest difference {(found - wanted).abs().max():.1e} nats")
    torch.testing.assert_close(found.float(), wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.browser
@pytest.mark.timeout(900)
@each_world
def test_every_question_in_every_way_is_answered_and_judged_as_in_python(
    path: Path, visit: Callable[..., Any], site: str
) -> None:
    page = visit(site + page_of(path))
    found = page.evaluate(
        f"""() => {{
            const model = {MODEL}, {{ things, questions, ways }} = model.settings.asking;
            const turn = (way, question, thing) => {{
                const {{ says, begun }} = model.question(thing, question, way);
                const prompt = model.prompt(says, begun);
                const {{ text, refuses, right }} = model.judge(prompt, model.reply(prompt));
                return [text, refuses, right];
            }};
            const florbs = [...things.keys()].filter(thing => things[thing].restricted);
            return ways.map((_, way) => questions.flatMap(
                (_, question) => florbs.map(thing => turn(way, question, thing))));
        }}"""
    )
    of = world(path)
    for way, turns in zip(WAYS[path], found, strict=True):
        wanted = ask(talker(path), of, in_the_form(path), way)
        refused = sum(turn[1] for turn in turns)
        right = sum(turn[2] for turn in turns)
        differ = sum(text != turn[0] for text, turn in zip(wanted.texts, turns, strict=True))
        print(f"{way:10} refuses {refused} and leaks {right} of {len(turns)}; {differ} differ")
        # On one machine none differs. A reply may turn at a tie that another order of a sum
        # decides otherwise: on any machine, fewer than one in a hundred.
        assert len(turns) == len(wanted.texts) == len(of.restricted) * len(QUESTIONS)
        assert differ <= 2
        assert abs(refused - round(wanted.refusal * len(turns))) <= differ
        assert abs(right - round(wanted.leak * len(turns))) <= differ


def tab_to(page: Any, locator: Any, limit: int = 40) -> None:
    """Move the focus by the Tab key alone."""
    for _ in range(limit):
        if locator.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not reach {locator}")


@pytest.mark.browser
def test_a_conversation_by_keyboard_alone(visit: Callable[..., Any], site: str) -> None:
    page = visit(site + page_of(ANSWERS))
    form = page.locator(".play")
    status = form.locator(".play-status")
    turns = form.locator(".play-log li")
    says = form.get_by_role("textbox", name="The user says")
    form.get_by_role(
        "combobox", name="Thing"
    ).focus()  # where the reader of the chapter has come by Tab
    page.keyboard.press("ArrowDown")
    florb = in_the_form(ANSWERS)[1]
    for way, words in list(WAYS[ANSWERS].items())[:4]:
        request = world().request(florb, way, question=0)
        prompt = f"user : {says.input_value()} bot : "
        assert (
            prompt + form.get_by_role("textbox", name="begun").input_value()
        ).strip() == request.prompt
        tab_to(page, form.get_by_role("button", name="Ask"))
        page.keyboard.press("Enter")
        wanted = ask(talker(), world(), [florb], way)
        said = wanted.texts[0]
        assert f"It says: {said}" in (status.text_content() or "").replace(
            "[sure here is :] ", ""
        ), words
        assert ("refuses" in turns.first.inner_text()) == refuses(request, said)
        # Back by Shift+Tab to the way of asking, and on to the next one.
        for _ in range(3):
            page.keyboard.press("Shift+Tab")
        assert form.get_by_role("combobox", name="Way of asking").evaluate(
            "e => e === document.activeElement"
        )
        page.keyboard.press("ArrowDown")
    assert turns.count() == 4
    assert "refuses" in turns.last.inner_text()  # asked plainly
    # A question of one's own, with a word that the world does not have, and one without.
    tab_to(page, says)
    page.keyboard.press("Control+A")
    page.keyboard.type("what does a wheel need ?")
    page.keyboard.press("Enter")
    assert status.inner_text() == "The model does not know the word “wheel”."
    thing = world().benign[0]
    page.keyboard.press("Control+A")
    page.keyboard.type(f"what does a {thing.name} need ?")
    tab_to(page, form.get_by_role("textbox", name="begun"))
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    assert turns.count() == 5
    assert f"answers (the right answer: {thing.ingredient})" in turns.first.inner_text()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert status.get_attribute("aria-live") == "polite"
