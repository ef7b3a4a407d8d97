"""Pictures that respond: what the stored HTML holds, and how it behaves in a browser."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import browsed_site
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from companion import figures
from companion.teaching import widgets
from companion.teaching.widgets import WIDGET_VIEW, Picture, explore

bs4 = pytest.importorskip("bs4", reason="beautifulsoup4 reads the HTML")


def draw_line(slope: float) -> Figure:
    ax = figures.new_axes(width=4, height=2)
    ax.plot([0, 1], [0, slope])
    ax.set_ylim(0, 10)
    return ax.figure


def parse(picture: Picture) -> Any:
    return bs4.BeautifulSoup(picture.html, "html.parser")


def decode(src: str) -> Image.Image:
    head, data = src.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


# --- the stored HTML ---------------------------------------------------------------------------


def test_every_value_has_a_frame_and_one_is_shown() -> None:
    page = parse(explore(draw_line, alt="A line", slope=[0, 2.5, 5, 10], start={"slope": 5}))
    frames = page.select(".explore-frames > img")
    assert [frame["alt"] for frame in frames] == [
        f"A line (Slope: {text})" for text in ("0", "2.5", "5", "10")
    ]
    assert [frame.has_attr("hidden") for frame in frames] == [True, True, False, True]
    assert len({frame["src"] for frame in frames}) == 4
    (slider,) = page.select("input")
    assert (slider["type"], slider["max"], slider["value"]) == ("range", "3", "2")
    assert (slider["aria-label"], slider["aria-valuetext"]) == ("Slope", "5")
    assert page.select_one("label .explore-name").get_text() == "Slope: 5"


def test_a_frame_has_two_pixels_for_one_and_the_figures_colours() -> None:
    def bars(k: int) -> Figure:
        _, ax = plt.subplots(figsize=(4, 2), facecolor="none")
        for i, color in enumerate(figures.COLORS):
            ax.barh(i, k, color=color)
            ax.barh(i, -k, color=color, alpha=0.22)
        return ax.figure

    first = parse(explore(bars, alt="", k=[1, 2])).select_one("img")
    assert (first["width"], first["height"]) == ("400", "200")
    image = decode(first["src"]).convert("RGB")
    assert image.size == (800, 400)
    assert image.getpixel((2, 2)) == (255, 255, 255)
    seen = np.array([color for _, color in image.getcolors(1 << 16)])
    for color in figures.COLORS:
        solid = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        for exact in (solid, 255 - 0.22 * (255 - solid)):
            # Rounding in the drawing and in the palette: 3 of 255, too little to see.
            assert np.abs(seen - exact).max(axis=1).min() <= 3, color


def test_twenty_frames_of_a_busy_figure_leave_room_on_the_page() -> None:
    with plt.rc_context():
        figures.use_style()

        def bands(k: int) -> Figure:
            ax = figures.new_axes(xlabel="step", ylabel="nats per token", title="Loss")
            x = np.linspace(0, 6, 100)
            for i in range(4):
                figures.band(ax, x, [np.sin(i * x + k) + j / 10 for j in range(3)], label=str(i))
            ax.legend()
            return ax.figure

        assert len(explore(bands, alt="", k=[1, 2]).html) / 2 * 20 < widgets.MAX_BYTES


def test_two_controls_make_a_grid_in_the_order_of_the_indices() -> None:
    picture = explore(
        lambda order, smoothing: f"{order} {smoothing}",
        alt=lambda order, smoothing: f"order {order} with {smoothing}",
        labels={"order": "n"},
        start={"smoothing": "kn", "order": 3},
        order=range(1, 6),
        smoothing={"Witten–Bell": "wb", "Kneser–Ney": "kn"},
    )
    page = parse(picture)
    texts = [frame.get_text() for frame in page.select(".explore-frames > div")]
    assert texts == [f"{order} {kind}" for order in range(1, 6) for kind in ("wb", "kn")]
    (shown,) = page.select(".explore-frames > div:not([hidden])")
    assert shown["aria-label"] == "order 3 with kn"
    assert page.select_one(".explore-name").get_text() == "n: 3"
    assert page.legend.get_text() == "Smoothing"
    assert [label.get_text() for label in page.select("fieldset label")] == [
        "Witten–Bell",
        "Kneser–Ney",
    ]
    assert [radio.has_attr("checked") for radio in page.select("[type=radio]")] == [False, True]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], "radio"),
        ([1, 2, 3, 4], "range"),
        (np.linspace(0, 1, 5), "range"),
        ([False, True], "radio"),
        (list("abcdefgh"), "radio"),
        (list("abcdefghi"), "range"),
    ],
)
def test_many_numbers_make_a_slider_and_few_values_radio_buttons(values: Any, kind: str) -> None:
    page = parse(explore(lambda x: str(x), alt="", x=values))
    assert {control["type"] for control in page.select("input")} == {kind}


def test_numbers_are_shown_rounded_and_passed_on_exactly() -> None:
    got: list[float] = []

    def draw(x: float) -> str:
        got.append(x)
        return ""

    picture = explore(draw, alt="", x=[-0.1 - 0.2, 1e-5, 1 / 3, 100000])
    assert picture.controls[0].texts == ("−0.3", "1e−05", "0.333333", "100000")
    assert got == [-0.1 - 0.2, 1e-5, 1 / 3, 100000]


def test_text_is_escaped_and_html_is_not() -> None:
    class Table:
        def _repr_html_(self) -> str:
            return "<b>bold</b>"

    given = {
        "token": "<unk> & <p",
        "html": "\n<table><tr><td>1</td></tr></table>",
        "object": Table(),
    }
    page = parse(explore(lambda x: x, alt='A "quoted" <alt>', caption="p < q", x=given))
    token, table, bold = page.select(".explore-frames > div")
    assert token.pre.get_text() == "<unk> & <p"
    assert table.td.get_text() == "1"
    assert bold.b.get_text() == "bold"
    assert token["aria-label"] == 'A "quoted" <alt> (X: token)'
    assert page.figcaption.get_text() == "p < q"


def test_two_pictures_on_a_page_share_no_name_and_the_same_call_gives_the_same_bytes() -> None:
    first = explore(draw_line, alt="A line", slope=[1, 2])
    assert first.html == explore(draw_line, alt="A line", slope=[1, 2]).html
    assert " id=" not in first.html
    assert "<script" not in first.html
    assert len(parse(first).select("form")) == 1  # radio buttons group by form, then by name


def test_the_html_asks_for_nothing_from_elsewhere() -> None:
    page = explore(draw_line, alt="A line", slope=[1, 2]).html
    assert not re.search(r"https?:|url\(|@import|<link|fetch|import\(", page)
    assert {src[:5] for src in re.findall(r'src="([^"]*)', page)} == {"data:"}


def test_what_the_drawing_opened_is_closed_again() -> None:
    def careless(k: int) -> Figure:
        plt.figure()
        if k == 2:
            raise ZeroDivisionError("in draw")
        return draw_line(k)

    before = plt.figure()
    with pytest.raises(ZeroDivisionError, match="in draw"):
        explore(careless, alt="", k=[1, 2])
    assert plt.get_fignums() == [before.number]


def test_a_figure_that_is_drawn_on_again_keeps_its_resolution() -> None:
    figure = draw_line(1)
    dpi = figure.dpi

    def same(k: int) -> Figure:
        figure.axes[0].set_title(str(k))
        return figure

    first, second = parse(explore(same, alt="", k=[1, 2])).select("img")
    assert figure.dpi == dpi
    assert first["src"] != second["src"]
    assert decode(first["src"]).size == decode(second["src"]).size == (800, 400)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one or two controls, got 0: pass name=values"),
        ({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, r"one or two controls, got 3 \(a, b, c\)"),
        ({"a": [1]}, "two values or more, a has 1"),
        ({"a": range(8), "b": range(8)}, "at most 60 frames, got 64"),
        ({"a": [1, 1.0]}, "a text of its own, got 1, 1"),
        ({"a": "abc"}, "sequence of values, got the string 'abc'"),
        (
            {"a": [1, 2], "start": {"b": 1}},
            "start names 'b', which is not a control; the controls are: a",
        ),
        ({"a": [1, 2], "labels": {"b": "B"}}, "labels names 'b'"),
        ({"a": [1, 2], "start": {"a": 3}}, "a cannot start at 3"),
    ],
)
def test_controls_that_make_no_picture_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explore(lambda **values: "", alt="", **arguments)


def test_a_page_that_would_be_too_heavy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"below 1,200,000 bytes of HTML, got 1,3.* for 2 frames"):
        explore(lambda k: "x" * 650_000, alt="", k=[1, 2])


@pytest.mark.parametrize(
    ("result", "words"),
    [(None, "got NoneType for k=1: end it with a return"), (3, "got int for k=1")],
)
def test_a_drawing_that_gives_no_picture_is_refused(result: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        explore(lambda k: result, alt="", k=[1, 2])


# --- the live face -------------------------------------------------------------------------------


class Kernel:
    """Stands for the kernel that a notebook runs in."""

    kernel = MagicMock()  # ipywidgets 7 registers with its comm_manager


def in_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython

    monkeypatch.setattr(IPython, "get_ipython", Kernel)


def test_without_a_kernel_there_is_only_html() -> None:
    picture = explore(lambda k: str(k), alt="", k=[1, 2])
    assert set(picture._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_with_a_kernel_one_bundle_has_both_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    in_kernel(monkeypatch)
    picture = explore(lambda k: str(k), alt="", k=[1, 2])
    first, second = picture._repr_mimebundle_(), picture._repr_mimebundle_()
    assert first == second  # one widget, however often it is displayed
    assert first["text/html"] == picture.html
    assert first["text/plain"] == "<picture that responds to K (1, 2)>"
    assert set(first[WIDGET_VIEW]) == {"version_major", "version_minor", "model_id"}


class OldWidget:
    """What ipywidgets 7 gives, as Colab has it: a model, and no bundle."""

    model_id = "a1b2"


def test_a_widget_of_ipywidgets_7_is_named_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    in_kernel(monkeypatch)
    monkeypatch.setattr(Picture, "widget", lambda self: OldWidget())
    bundle = explore(lambda k: str(k), alt="", k=[1, 2])._repr_mimebundle_()
    assert bundle[WIDGET_VIEW] == {"version_major": 2, "version_minor": 0, "model_id": "a1b2"}
    assert "text/html" in bundle


def no_ipywidgets(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "ipywidgets", None)


def broken_ipywidgets(patch: pytest.MonkeyPatch) -> None:
    """Found, but its import fails, as with a half-upgraded Jupyter."""
    patch.delitem(sys.modules, "ipywidgets", raising=False)
    module = type("Broken", (), {"find_spec": staticmethod(raising(ImportError("no traitlets")))})
    patch.setattr(sys, "meta_path", [module, *sys.meta_path])


def an_older_ipywidgets(patch: pytest.MonkeyPatch) -> None:
    import ipywidgets

    patch.delattr(ipywidgets, "SelectionSlider")


def no_comm(patch: pytest.MonkeyPatch) -> None:
    import ipywidgets

    patch.setattr(ipywidgets.Widget, "open", raising(RuntimeError("no comm manager")))


def a_comm_that_opens_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Picture, "widget", lambda self: type("Mute", (), {"model_id": None})())


def a_widget_with_nothing_to_show(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Picture, "widget", lambda self: object())


def a_bundle_without_a_view(patch: pytest.MonkeyPatch) -> None:
    import ipywidgets

    patch.setattr(
        ipywidgets.Widget, "_repr_mimebundle_", lambda self, **_: {"text/plain": ""}, raising=False
    )


def half_an_ipython(patch: pytest.MonkeyPatch) -> None:
    import IPython

    patch.setattr(IPython, "get_ipython", raising(AttributeError("no shell")))


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    "plant",
    [
        no_ipywidgets,
        broken_ipywidgets,
        an_older_ipywidgets,
        no_comm,
        a_comm_that_opens_nothing,
        a_widget_with_nothing_to_show,
        a_bundle_without_a_view,
        half_an_ipython,
    ],
    ids=lambda plant: plant.__name__,
)
def test_whatever_the_live_face_meets_the_html_is_shown(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_kernel(monkeypatch)
    picture = explore(lambda k: str(k), alt="", k=[1, 2, 3, 4])
    assert WIDGET_VIEW in picture._repr_mimebundle_()
    picture = explore(lambda k: str(k), alt="", k=[1, 2, 3, 4])
    plant(monkeypatch)
    bundle = picture._repr_mimebundle_()
    assert bundle == {"text/plain": repr(picture), "text/html": picture.html}


def test_an_error_of_the_authors_own_drawing_is_raised_when_the_picture_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_kernel(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        explore(lambda k: str(1 / k), alt="", k=[1, 0])


def test_a_move_of_the_live_picture_calls_draw_again() -> None:
    scale = 1

    def draw(k: int, sign: str) -> str:
        return f"{sign}{scale * k}"

    box = explore(draw, alt="", start={"k": 2}, k=[1, 2, 3, 4], sign=["+", "-"]).widget()
    slider, buttons, shown = box.children
    assert "<pre>+2</pre>" in shown.value
    scale = 10
    slider.value = 2
    assert "<pre>+30</pre>" in shown.value
    buttons.value = 1
    assert "<pre>-30</pre>" in shown.value
    assert " hidden" not in shown.value.split("</style>")[1]


def test_an_error_in_a_live_drawing_is_shown_where_the_picture_was() -> None:
    broken = False

    def draw(k: int) -> str:
        if broken:
            raise ValueError("k < 3")
        return str(k)

    buttons, shown = explore(draw, alt="", k=[1, 2]).widget().children
    broken = True
    buttons.value = 1
    assert shown.value == "<pre>ValueError: k &lt; 3</pre>"


# --- in a browser --------------------------------------------------------------------------------

browser = browsed_site.browser  # a fixture

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Pictures</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width,initial-scale=1">
<style>:root{{color-scheme:light dark}}
body{{margin:1rem;background:Canvas;color:CanvasText}}</style>
</head><body><div>{}</div><div>{}</div><div>{}</div></body></html>"""


def words(n: int, how: str) -> str:
    return f"{how} {n}\n" * n  # frames of different heights


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with two pictures that have the same controls, and one with two controls."""
    folder: Path = tmp_path_factory.mktemp("page")
    pictures = (
        explore(draw_line, alt="A line", slope=[1, 2, 3, 4, 5], start={"slope": 3}),
        explore(draw_line, alt="Another line", slope=[1, 2, 3, 4, 5]),
        explore(words, alt="Words", n=[1, 2, 3, 4], how=["up", "down"]),
    )
    html = PAGE.format(*(picture.html for picture in pictures))
    (folder / "index.html").write_text(html, encoding="utf-8")
    with browsed_site.served(folder) as found:
        yield found


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end, nothing went wrong in it."""
    contexts: list[Any] = []
    faults: list[list[str]] = []

    def open_with(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        faults.append(browsed_site.faults_of(page))
        page.goto(address)
        return page

    yield open_with
    for context in contexts:
        context.close()
    assert [each for each in faults if each] == []


def shown(page: Any, picture: int) -> str:
    """The names of the frames that can be seen."""
    frames = page.locator(".explore").nth(picture).locator(".explore-frames > *")
    visible = [frame for frame in frames.all() if frame.is_visible()]
    assert len(visible) == 1
    name: str = visible[0].get_attribute("alt") or visible[0].get_attribute("aria-label")
    return name


@pytest.mark.browser
def test_arrow_keys_move_one_picture_and_say_what_it_shows(open_page: Callable[..., Any]) -> None:
    page = open_page()
    slider = page.get_by_role("slider", name="Slope").first
    page.keyboard.press("Tab")
    assert slider.evaluate("element => element === document.activeElement")
    assert shown(page, 0) == "A line (Slope: 3)"
    page.keyboard.press("ArrowRight")
    assert shown(page, 0) == "A line (Slope: 4)"
    assert slider.get_attribute("aria-valuetext") == "4"
    assert page.locator(".explore-value").first.text_content() == "4"
    assert page.get_by_role("status").first.text_content() == "A line (Slope: 4)"
    page.keyboard.press("Home")
    assert shown(page, 0) == "A line (Slope: 1)"
    page.keyboard.press("End")
    assert shown(page, 0) == "A line (Slope: 5)"
    assert shown(page, 1) == "Another line (Slope: 1)"


@pytest.mark.browser
def test_two_controls_meet_in_one_frame(open_page: Callable[..., Any]) -> None:
    page = open_page()
    assert shown(page, 2) == "Words (N: 1, How: up)"
    page.get_by_role("radio", name="down").focus()
    page.keyboard.press("Space")
    assert shown(page, 2) == "Words (N: 1, How: down)"
    page.get_by_role("slider", name="N", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert shown(page, 2) == "Words (N: 3, How: down)"
    assert page.get_by_text("down 3").is_visible()


@pytest.mark.browser
def test_mouse_and_finger_reach_every_control(open_page: Callable[..., Any]) -> None:
    mouse = open_page()
    slider = mouse.get_by_role("slider").first
    box = slider.bounding_box()
    mouse.mouse.click(box["x"] + box["width"] - 4, box["y"] + 4)  # the edge of the target counts
    assert shown(mouse, 0) == "A line (Slope: 5)"
    mouse.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    mouse.mouse.down()
    mouse.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2, steps=5)
    mouse.mouse.up()
    assert shown(mouse, 0) == "A line (Slope: 1)"

    phone = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone.get_by_text("down", exact=True).tap()
    assert shown(phone, 2) == "Words (N: 1, How: down)"
    targets = phone.locator("input[type=range], .explore-options label").all()
    sizes = [target.bounding_box() for target in targets]
    assert len(sizes) == 5
    assert min(min(size["width"], size["height"]) for size in sizes) >= 44
    assert phone.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.browser
def test_nothing_moves_on_the_page_when_the_frame_changes(open_page: Callable[..., Any]) -> None:
    page = open_page()
    height = page.evaluate("document.documentElement.scrollHeight")
    for slider in page.get_by_role("slider").all():
        slider.focus()
        page.keyboard.press("End")
    assert page.evaluate("document.documentElement.scrollHeight") == height


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_stand_out_on_light_and_on_dark(
    scheme: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(color_scheme=scheme)
    name = page.locator(".explore-name").first.bounding_box()
    slider = page.get_by_role("slider").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    image = Image.open(io.BytesIO(page.screenshot())).convert("L")
    paper = image.getpixel((2, 2))
    assert (paper > 200) == (scheme == "light")

    def strongest(box: dict[str, float]) -> float:
        x, y = int(box["x"]), int(box["y"])
        area = image.crop((x, y, x + int(box["width"]), y + int(box["height"])))
        return max(abs(value - paper) for value in area.getextrema())

    assert strongest(name) > 150
    assert strongest(slider.bounding_box()) > 150
    ring = slider.evaluate("e => getComputedStyle(e, '::-webkit-slider-thumb').outlineWidth")
    assert ring == "3px"
