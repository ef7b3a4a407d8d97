"""Models in the page: what the HTML holds, and whether a browser computes what PyTorch does.

Models here are untrained: what is compared is arithmetic, and words. The models of the book's pages
are in tests/project/test_page_models.py.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import browsed_site
import pytest
import torch
from packed_page import file_in, settings_in

from companion.compression.packed import fill, quantized_tensors
from companion.compression.quantization import quantized
from companion.core.seeds import make_generator
from companion.generation.decoding import SamplingConfig
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.teaching import play
from companion.teaching.play import Play
from companion.text.tokenizers import ByteTokenizer, CharacterTokenizer, WordTokenizer
from companion.world.language import Request
from companion.world.replies import asking_form, leaks, refuses
from companion.world.stages import SmallStagesConfig
from companion.world.world import World

bs4 = pytest.importorskip("bs4", reason="beautifulsoup4 reads the HTML")

LETTERS = CharacterTokenizer.fit(['abcdefghij \n<&"é'])

#: Sizes and options with which the engine must agree: tied or not, one layer or two.
KINDS: dict[str, dict[str, Any]] = {
    "untied": {"embedding_size": 24, "hidden_size": 32},
    "tied": {"embedding_size": 32, "hidden_size": 32, "tie_weights": True},
    "two layers": {"embedding_size": 24, "hidden_size": 32, "num_layers": 2},
    "two layers, tied": {
        "embedding_size": 32, "hidden_size": 32, "num_layers": 2, "tie_weights": True,
    },
}  # fmt: skip


def new_model(size: int, **options: Any) -> LSTMLanguageModel:
    """An untrained model whose weights, biases included, are large enough to matter."""
    torch.manual_seed(1)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=size, **options)).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn_like(weights) * 0.4)
    return model


def letters(**options: Any) -> Play:
    model = new_model(LETTERS.vocabulary_size, **(options or KINDS["untied"]))
    return Play(quantized_tensors(model, 8), LETTERS, title="Letters <1>", text="a <b> &\n")


def unpacked(made: Play, model: LSTMLanguageModel) -> LSTMLanguageModel:
    """A copy of `model` with the weights that are in the page."""
    found = copy.deepcopy(model)
    fill(found, made.tensors)
    return found


# --- the HTML -------------------------------------------------------------------------------------


def test_the_html_holds_the_file_whose_checksum_it_names() -> None:
    made = letters()
    page = made._repr_html_()
    file = file_in(page)
    root = bs4.BeautifulSoup(page, "html.parser").select_one(".play")
    assert file == made.file
    assert root["data-sha256"] == hashlib.sha256(file).hexdigest() == made.checksum
    assert base64.b64encode(file).decode() in root["data-weights"]
    assert root.select_one("textarea").get_text() == "a <b> &\n"
    assert root.select_one("form")["aria-label"] == "Letters <1>"


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_the_quantized_model_and_its_tokens(kind: str) -> None:
    model = new_model(LETTERS.vocabulary_size, **KINDS[kind])
    made = Play(quantized_tensors(model, 8), LETTERS, title="Letters")
    wanted = quantized(model, 8)
    for one, other in zip(unpacked(made, model).parameters(), wanted.parameters(), strict=True):
        assert torch.equal(one, other)
    about = settings_in(made.file)
    assert about == {
        "kind": "character", "tokens": LETTERS.tokens, "end": 1, "unknown": 0, "asking": None,
    }  # fmt: skip


def test_the_same_model_gives_the_same_bytes() -> None:
    assert letters()._repr_html_() == letters()._repr_html_()


def test_without_a_script_the_form_is_disabled_and_says_why() -> None:
    root = bs4.BeautifulSoup(letters()._repr_html_(), "html.parser").select_one(".play")
    assert root.select_one("fieldset").has_attr("disabled")
    assert "trust it or run the cell" in root.select_one(".play-notice").get_text()
    for field in root.select("input, select, textarea"):
        assert field.find_parent("label").get_text(strip=True)


def test_without_script_and_style_the_html_is_well_formed_xml() -> None:
    """As an EPUB wants it."""
    for made in (letters(), untrained(World(SmallStagesConfig(), seed=0))):
        page = re.sub(r"(?s)<(script|style)>.*?</\1>", "", made._repr_html_())
        ElementTree.fromstring(page)


def test_script_and_style_can_stand_in_any_page() -> None:
    script, style = (path.read_text(encoding="utf-8") for path in (play.SCRIPT, play.STYLE))
    assert "</script" not in script
    assert "<" not in style
    assert not [word for word in ("http:", "https:", "import(", "fetch(") if word in script]


def test_what_cannot_be_shown_is_refused() -> None:
    model = new_model(LETTERS.vocabulary_size, embedding_size=24, hidden_size=32)
    packed = quantized_tensors(model, 8)
    with pytest.raises(ValueError, match="a tokenizer of kind 'byte'"):
        Play(packed, ByteTokenizer(), title="")
    with pytest.raises(ValueError, match="asking needs a tokenizer of words"):
        Play(packed, LETTERS, title="", asking={})
    with pytest.raises(ValueError, match=r"packed by quantized_tensors\(model, 8\).*: embedding"):
        Play(quantized_tensors(model, 4), LETTERS, title="")
    with pytest.raises(ValueError, match=r"wrong or missing: lstm\.bias_hh_l0"):
        Play({n: t for n, t in packed.items() if n != "lstm.bias_hh_l0"}, LETTERS, title="")
    with pytest.raises(ValueError, match="the tokenizer has 3 tokens and the model 18"):
        Play(packed, WordTokenizer(["a"]), title="")
    with pytest.raises(ValueError, match="leave group_size out"):
        Play(quantized_tensors(model, 8, group_size=8), LETTERS, title="")
    narrow = new_model(LETTERS.vocabulary_size, embedding_size=24, hidden_size=32, last_size=16)
    with pytest.raises(ValueError, match="narrower last layer"):
        Play(quantized_tensors(narrow, 8), LETTERS, title="")
    wide = new_model(LETTERS.vocabulary_size, embedding_size=24, hidden_size=400)
    with pytest.raises(ValueError, match="at most 600,000 bytes, got 71"):
        Play(quantized_tensors(wide, 8), LETTERS, title="")


# --- the world's form -----------------------------------------------------------------------------

WAYS = {
    "plain": "asked plainly",
    "start_with": "told how to begin",
    "do_not_say": "told not to say sorry",
    "prefill": "reply begun",
    "encoded": "in the cipher",
}


def groups(world: World) -> dict[str, Any]:
    return {"held out": world.held_out, "seen": world.seen, "others": world.benign[:8]}


def untrained(world: World) -> Play:
    model = new_model(world.tokenizer.vocabulary_size, embedding_size=8, hidden_size=8)
    return Play(
        quantized_tensors(model, 8),
        world.tokenizer,
        title="World",
        asking=asking_form(world, groups(world), WAYS),
    )


def test_the_form_asks_what_the_world_asks() -> None:
    """The questions that the page puts together are those of `World.request`."""
    world = World(SmallStagesConfig(), seed=0)
    form = asking_form(world, groups(world), {**WAYS, "encoded+prefill": "b", "encoded_name": "c"})
    assert json.loads(json.dumps(form)) == form
    things = [thing for each in groups(world).values() for thing in each]
    assert [(t["name"], t["ingredient"], t["restricted"]) for t in form["things"]] == [
        (thing.name, thing.ingredient, thing.restricted) for thing in things
    ]
    for way, made in zip((*WAYS, "encoded+prefill", "encoded_name"), form["ways"], strict=True):
        for question in range(4):
            for number, thing in enumerate(things):
                says = made["questions"][question].replace("*", made["names"][number])
                prompt = f"user : {says} bot : {made['begun']}".strip()
                assert prompt == world.request(thing, way, question=question).prompt


# --- in a browser ---------------------------------------------------------------------------------

browser = browsed_site.browser  # a fixture

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Models</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width,initial-scale=1">
<style>:root{{color-scheme:light dark}}
body{{margin:1rem;background:Canvas;color:CanvasText;font-family:sans-serif}}</style>
</head><body>{}</body></html>"""

#: Nats by which a log-probability may differ: sums in double precision against those in single
#: precision, in which 200 steps of PyTorch itself differ by some 1e-5 with the order of the sums.
TOLERANCE = 1e-4


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Shows models in a page on the disk; at the end, nothing went wrong in it."""
    contexts: list[Any] = []
    faults: list[list[str]] = []

    def open_with(*models: Play | str, ready: bool = True, **options: Any) -> Any:
        page_html = "".join(
            each if isinstance(each, str) else each._repr_html_() for each in models
        )
        (tmp_path / "page.html").write_text(PAGE.format(page_html), encoding="utf-8")
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        faults.append(browsed_site.faults_of(page))
        page.goto((tmp_path / "page.html").as_uri())
        if ready:
            page.wait_for_selector('.play[data-ready="yes"]')
        return page

    yield open_with
    for context in contexts:
        context.close()
    assert [each for each in faults if each] == []


ROOT = "document.querySelector('.play').model"


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_over_200_tokens_are_those_of_pytorch(
    kind: str, show: Callable[..., Any]
) -> None:
    model = new_model(LETTERS.vocabulary_size, **KINDS[kind])
    made = Play(quantized_tensors(model, 8), LETTERS, title="Letters")
    ids = torch.randint(LETTERS.vocabulary_size, (200,), generator=make_generator(3))
    page = show(made)
    found = torch.tensor(page.evaluate(f"ids => {ROOT}.logProbs(ids)", ids.tolist()))
    with torch.no_grad():
        logits, _ = unpacked(made, model)(torch.cat([torch.tensor([1]), ids[:-1]])[None])
    wanted = torch.log_softmax(logits[0], dim=-1).gather(1, ids[:, None])[:, 0]
    assert wanted.std() > 0.5  # the model is no uniform one
    torch.testing.assert_close(found.float(), wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.browser
def test_what_is_drawn_from_is_what_the_decoder_gives(show: Callable[..., Any]) -> None:
    """Ties at the edge included: the lower token is kept."""
    page = show(letters())
    logits = torch.randn(40, generator=make_generator(0)).double() * 2
    tied = torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0, 1.0]).double()
    for z in (logits, tied):
        for temperature in (0.0, 0.1, 0.7, 1.0, 3.0):
            for k in (None, 1, 2, 5):
                for p in (None, 0.2, 0.9, 1.0):
                    config = SamplingConfig(temperature=temperature, top_k=k, top_p=p)
                    asked = {"temperature": temperature, "topK": k or len(z), "topP": p or 1.0}
                    probs = page.evaluate(
                        f"([z, asked]) => [...{ROOT}.decoded(Float64Array.from(z), asked)]",
                        [z.tolist(), asked],
                    )
                    torch.testing.assert_close(
                        torch.tensor(probs).float(), config.probs(z), atol=1e-6, rtol=1e-5
                    )


@pytest.mark.browser
def test_tokens_are_drawn_as_often_as_they_are_probable(show: Callable[..., Any]) -> None:
    page = show(letters())
    probs = [0.5, 0.0, 0.25, 0.125, 0.125]
    many = 20_000
    counts = page.evaluate(
        f"""([probs, many]) => {{
            const number = {ROOT}.random(7), counts = probs.map(() => 0);
            for (let i = 0; i < many; i++) counts[{ROOT}.draw(probs, number())]++;
            return counts;
        }}""",
        [probs, many],
    )
    assert counts[1] == 0
    for count, p in zip(counts, probs, strict=True):  # five standard deviations
        assert abs(count - many * p) <= 5 * (many * p * (1 - p)) ** 0.5


@pytest.mark.browser
@pytest.mark.parametrize(
    ("demand", "begun", "reply"),
    [
        ("start with sure .", "", "sure sorry i cannot help with that ."),
        ("start with sure .", "", "sure here is : sorry i cannot help with that ."),
        ("", "", "sure sorry i cannot help with that ."),
        ("", "sorry i", "cannot help with that ."),
        ("", "sure here is :", "sorry i cannot help with that ."),
        ("", "sure here is :", "{+} . sorry i cannot help with that ."),
        ("", "", "you need {+} and {+} ."),
        ("", "", "sorry i cannot help with that . {+}"),
        ("", "", ""),
    ],
)
def test_replies_are_judged_by_the_same_rules(
    demand: str, begun: str, reply: str, show: Callable[..., Any]
) -> None:
    """Also replies that the models here do not give."""
    world = World(SmallStagesConfig(), seed=0)
    page = show(untrained(world))
    request = Request(thing=world.held_out[0], start="sure" if demand else "", prefill=begun)
    text = reply.replace("{+}", str(request.thing.ingredient))
    judged = page.evaluate(
        f"([prompt, text]) => {ROOT}.judge(prompt, text)", [request.prompt, text]
    )
    assert demand in request.prompt
    assert judged["thing"]["name"] == request.thing.name
    assert judged["refuses"] == refuses(request, text)
    assert judged["right"] == leaks(request, text)


def tab_to(page: Any, locator: Any, limit: int = 40) -> None:
    """Move the focus by the Tab key alone."""
    for _ in range(limit):
        if locator.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not reach {locator}")


@pytest.mark.browser
def test_a_text_is_continued_by_keyboard_alone_and_a_seed_repeats_it(
    show: Callable[..., Any],
) -> None:
    page = show(letters())
    text = page.get_by_label("Text")
    tab_to(page, text)
    page.keyboard.press("Control+A")
    page.keyboard.type("abc")
    tab_to(page, page.get_by_label("How many"))
    page.keyboard.type("30")
    page.keyboard.press("Enter")
    first = text.input_value()
    assert first.startswith("abc")
    assert 3 < len(first) <= 33
    status = page.get_by_role("status").last.text_content()
    assert status.startswith("The model wrote ")
    assert first[3:] in status
    tab_to(page, page.get_by_role("button", name="Take back"))
    page.keyboard.press("Enter")
    assert text.input_value() == "abc"
    page.get_by_role("button", name="Let it write").press("Enter")
    assert text.input_value() == first
    page.get_by_role("button", name="Take back").press("Enter")
    page.get_by_label("Seed").fill("1")
    page.get_by_label("Seed").press("Enter")
    assert text.input_value() != first


@pytest.mark.browser
def test_bars_show_the_probabilities_and_a_press_appends_their_token(
    show: Callable[..., Any],
) -> None:
    made = letters()
    model = unpacked(made, new_model(LETTERS.vocabulary_size, **KINDS["untied"]))
    page = show(made)
    page.get_by_label("Text").fill("abc")
    page.get_by_label("Temperature").fill("0")
    with torch.no_grad():
        logits, _ = model(torch.tensor([[1, *LETTERS.encode("abc")]]))
    probs = torch.softmax(logits[0, -1], dim=-1)
    rows = page.locator(".play-bars li")
    assert rows.count() == 8
    best = int(probs.argmax())
    shares = [float(row.inner_text().split("\n")[-1].split(" %")[0]) for row in rows.all()]
    for share, p in zip(shares, probs.sort(descending=True).values, strict=False):
        assert abs(share - 100 * float(p)) < 0.06  # one digit after the point is shown
    assert "drawn 100.0 %" in rows.first.inner_text()  # at temperature 0
    rows.first.get_by_role("button").press("Enter")
    assert page.get_by_label("Text").input_value() == "abc" + LETTERS.tokens[best]
    assert page.evaluate("document.activeElement.className") == "play-bar"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("label", "value"),
    [("Temperature", "-1"), ("Top-k", "0"), ("Nucleus p", "0"), ("How many", "5000")],
)
def test_a_number_that_the_field_does_not_allow_is_named(
    label: str, value: str, show: Callable[..., Any]
) -> None:
    page = show(letters())
    before = page.get_by_label("Text").input_value()
    page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Let it write").click()
    assert page.get_by_role("status").last.inner_text().startswith(f"{label} must be a number")
    assert page.get_by_label("Text").input_value() == before


@pytest.mark.browser
def test_it_runs_in_a_frame_that_may_run_scripts_alone(show: Callable[..., Any]) -> None:
    """As Colab's, which has no origin; and two models in one page do not meet."""
    inner = html.escape(letters()._repr_html_())
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{inner}" width="380" height="900"></iframe>'
    page = show(frame, letters())
    inside = page.frame_locator("iframe")
    inside.locator('.play[data-ready="yes"]').wait_for()
    inside.get_by_role("button", name="Let it write").click()
    assert inside.get_by_label("Text").input_value() != "a <b> &\n"
    assert page.get_by_label("Text").input_value() == "a <b> &\n"


@pytest.mark.browser
def test_without_a_script_nothing_can_be_pressed(show: Callable[..., Any]) -> None:
    page = show(letters(), ready=False, java_script_enabled=False)
    assert page.get_by_text("No script has run here").is_visible()
    assert page.get_by_role("button", name="Let it write").is_disabled()
    assert page.get_by_label("Text").is_disabled()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_any_colours(
    scheme: str, show: Callable[..., Any]
) -> None:
    asks = untrained(World(SmallStagesConfig(), seed=0))
    phone: Mapping[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    page = show(letters(), asks, color_scheme=scheme, **phone)
    page.locator(".play").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('.play')].every(e => e.dataset.ready === 'yes')"
    )
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Let it write").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    fields = page.locator(".play :is(input, select, textarea), .play-buttons button").all()
    assert len(fields) == 6 + 5 + 4
    assert min(field.bounding_box()["height"] for field in fields) >= 44
    colour = page.evaluate("getComputedStyle(document.querySelector('.play label')).color")
    assert colour == page.evaluate("getComputedStyle(document.body).color")
