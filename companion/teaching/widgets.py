"""Pictures that respond to a slider or to radio buttons, with a kernel and without one.

`explore(draw, alt=..., temperature=[0.5, 1, 2])` calls `draw` once for each value (or pair of
values) and returns one object with two faces. In a running notebook it is made of ipywidgets and
calls `draw` again at every move. In the stored notebook, in the built book, and wherever ipywidgets
fail, it is HTML that holds every frame, with no library, no request to anywhere and no identifier
that two pictures on a page could share.

One rule for chapters: nbval compares that HTML strictly, less the pixels. Labels, values,
alternative texts, captions and text frames hold nothing random or timed and are the same on every
machine; `tests/nbval_sanitize.cfg` blanks `data:image/webp;base64,...`, since another FreeType or
libwebp may draw the same figure with other bytes. A cell whose texts hold numbers that training
made carries the tag `nbval-ignore-output`, and asserts those numbers.

Size: a frame of bars or a few lines is 4 to 15 kB, one with crossing bands up to 40 kB. So 20
frames add 100 to 800 kB to the notebook; a page stays under 1.5 MB. Drawing a frame takes about
0.3 s of one core.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

#: More frames than this make the page heavy and the cell slow.
MAX_FRAMES = 60

#: Largest HTML of one picture: a page of the book stays under 1.5 MB.
MAX_BYTES = 1_200_000

#: CSS pixels per inch of figure; frames are drawn at twice that, for screens of high density.
PIXELS_PER_INCH = 100

#: Colours of a frame; the anti-aliased edges of lines and letters need most of them.
COLORS = 64

#: A control with at most this many values is radio buttons when not all are numbers ...
RADIO_TEXTS = 8

#: ... and with at most this many when all are numbers; with more, it is a slider.
RADIO_NUMBERS = 3

#: How a string starts that is HTML; any other string is plain text.
HTML_STARTS = tuple(
    f"<{tag}{end}"
    for tag in ("div", "dl", "figure", "ol", "p", "pre", "svg", "table", "ul")
    for end in (" ", ">", "\n")
)

# Colours come from the page: the book's theme, JupyterLab's, or else the text's own.
STYLE = """\
.explore{--explore-accent:var(--pst-color-secondary,var(--jp-brand-color1,#2a86c0));\
max-width:40rem;margin:.75rem auto;color:inherit;font-family:inherit}
.explore form{margin:0}
.explore fieldset{border:0;margin:0;padding:0;min-width:0}
.explore-controls{display:flex;flex-wrap:wrap;gap:.25rem 2rem;margin:0 0 .5rem}
.explore-control{flex:1 1 16rem;min-width:0}
.explore legend,.explore-name{float:none;width:auto;margin:0;padding:0;font-size:1rem;\
font-weight:600;line-height:1.5}
.explore-value{font-variant-numeric:tabular-nums;font-weight:400}
.explore label{display:block;margin:0;font-size:1rem}
.explore input[type=range]{-webkit-appearance:none;appearance:none;box-sizing:border-box;\
display:block;width:100%;height:44px;margin:0;padding:0;background:none;color:inherit;\
cursor:pointer;touch-action:pan-y;outline:none}
.explore input::-webkit-slider-runnable-track{height:8px;border:1px solid currentColor;\
border-radius:4px;background:color-mix(in srgb,currentColor 15%,transparent)}
.explore input::-moz-range-track{height:6px;border:1px solid currentColor;border-radius:4px;\
background:color-mix(in srgb,currentColor 15%,transparent)}
.explore input::-webkit-slider-thumb{-webkit-appearance:none;box-sizing:border-box;width:26px;\
height:26px;margin-top:-10px;border:2px solid currentColor;border-radius:50%;\
background:var(--explore-accent)}
.explore input::-moz-range-thumb{box-sizing:border-box;width:26px;height:26px;\
border:2px solid currentColor;border-radius:50%;background:var(--explore-accent)}
.explore input:focus-visible::-webkit-slider-thumb{outline:3px solid var(--explore-accent);\
outline-offset:2px}
.explore input:focus-visible::-moz-range-thumb{outline:3px solid var(--explore-accent);\
outline-offset:2px}
.explore-options{display:flex;flex-wrap:wrap;gap:.4rem;padding:.1rem 0}
.explore-options label{display:inline-flex;align-items:center;gap:.5rem;min-height:44px;\
box-sizing:border-box;padding:0 .9rem 0 .75rem;border:1px solid currentColor;\
border-radius:22px;cursor:pointer}
.explore-options label:has(:checked){border-color:var(--explore-accent);\
box-shadow:inset 0 0 0 1px var(--explore-accent)}
.explore-options label:has(:focus-visible){outline:3px solid var(--explore-accent);\
outline-offset:2px}
.explore input[type=radio]{-webkit-appearance:none;appearance:none;box-sizing:border-box;\
width:18px;height:18px;flex:none;margin:0;border:2px solid currentColor;border-radius:50%;\
background:none;color:inherit;cursor:pointer;outline:none}
.explore input[type=radio]:checked{border:6px solid var(--explore-accent)}
.explore-frames{display:grid}
.explore-frames>*{grid-area:1/1;min-width:0}
.explore-frames>[hidden]{display:block;visibility:hidden}
.explore-frames>img{justify-self:center;align-self:start;max-width:100%;height:auto;margin:0;\
background:#fff;border-radius:.5rem}
.explore-text{overflow-x:auto}
.explore-plain{padding:.6rem .9rem;border-radius:.5rem;\
border:1px solid color-mix(in srgb,currentColor 30%,transparent)}
.explore .explore-plain>pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;\
padding:0!important;border:0;background:none;font-size:.9rem;line-height:1.6;color:inherit}
.explore-status{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);\
white-space:nowrap}
.explore figcaption{max-width:none;margin:.5rem 0 0;font-size:.93rem;line-height:1.5;\
text-align:left}"""

# An attribute and not a <script>: it works wherever the HTML lands, in as many copies as there are.
ON_INPUT = """\
let index=0;
for(const input of this.querySelectorAll('.explore-controls input')){
if(input.type==='radio'&&!input.checked)continue;
index=index*input.dataset.count+Number(input.value);
if(input.type==='range'){
const text=JSON.parse(input.dataset.texts)[input.value];
input.setAttribute('aria-valuetext',text);
input.parentElement.querySelector('.explore-value').textContent=text}}
const frames=[...this.querySelector('.explore-frames').children];
frames.forEach((frame,i)=>{frame.hidden=i!==index});
this.querySelector('.explore-status').textContent=\
frames[index].alt||frames[index].getAttribute('aria-label')"""


def explore(
    draw: Callable[..., Any],
    *,
    alt: str | Callable[..., str],
    caption: str | None = None,
    start: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    **controls: Iterable[Any],
) -> Picture:
    """A picture that responds: `draw(**values)` for each value of one control, or pair of two.

    draw: returns a matplotlib Figure, plain text, HTML as a string that starts with a block tag
        (`<div>`, `<p>`, `<pre>`, `<table>`, `<ul>`, `<ol>`, `<dl>`, `<svg>`, `<figure>`), or any
        object with `_repr_html_`. Figures of one size keep the page still. They are closed here.
    alt: alternative text: a string, to which the values are added, or a function `alt(**values)`.
    caption: plain text below the picture.
    start: control name -> value shown first; by default each control's first.
    labels: control name -> what the reader sees; by default the name, without underscores.
    controls: one or two, each `name=values`, a sequence of values or a dictionary from the text
        the reader sees to the value. More than three numbers make a slider; few values, or
        words, make radio buttons.

    Raises ValueError for no control or more than two, fewer than two values, values that look
    alike, more than `MAX_FRAMES` frames or `MAX_BYTES` of HTML; TypeError for another result of
    `draw`. An error inside `draw` is raised as it is.
    """
    if not 1 <= len(controls) <= 2:
        raise ValueError(
            f"a picture has one or two controls, got {len(controls)}"
            + (f" ({', '.join(controls)})" if controls else ": pass name=values")
        )
    for argument, mapping in (("start", start), ("labels", labels)):
        for name in mapping or {}:
            if name not in controls:
                raise ValueError(
                    f"{argument} names {name!r}, which is not a control; the controls are: "
                    + ", ".join(controls)
                )
    made = [
        _control(name, values, start=start or {}, labels=labels or {})
        for name, values in controls.items()
    ]
    count = 1
    for control in made:
        count *= len(control.values)
    if count > MAX_FRAMES:
        raise ValueError(
            f"a picture has at most {MAX_FRAMES} frames, got {count}: use fewer values"
        )
    return Picture(draw, made, alt, caption)


@dataclass(frozen=True, kw_only=True)
class Control:
    """A slider or a set of radio buttons."""

    name: str
    """The argument of `draw`."""
    label: str
    """What the reader sees it called."""
    values: tuple[Any, ...]
    """What `draw` may get, in order."""
    texts: tuple[str, ...]
    """What the reader sees for each value."""
    start: int
    """Position of the value shown first."""

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ValueError(
                f"a control needs two values or more, {self.name} has {len(self.values)}: "
                "what does not change belongs inside draw"
            )
        if len(set(self.texts)) < len(self.texts):
            raise ValueError(
                f"each value of {self.name} needs a text of its own, got {', '.join(self.texts)}; "
                "pass a dictionary from text to value"
            )

    @property
    def is_slider(self) -> bool:
        """Whether it is a slider; otherwise radio buttons."""
        numbers = all(isinstance(v, Real) and not isinstance(v, bool) for v in self.values)
        return len(self.values) > (RADIO_NUMBERS if numbers else RADIO_TEXTS)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What `draw` gave for one choice of values."""

    alt: str
    """Alternative text."""
    body: str
    """The frame's HTML, shown or hidden by the attribute that replaces `{hidden}`."""

    def html(self, *, hidden: bool) -> str:
        """The frame as one element."""
        return self.body.replace("{hidden}", " hidden" if hidden else "", 1)


class Picture:
    """A drawing with its controls; display it as the last expression of a cell."""

    def __init__(
        self,
        draw: Callable[..., Any],
        controls: Sequence[Control],
        alt: str | Callable[..., str],
        caption: str | None,
    ) -> None:
        self.draw = draw
        self.controls = tuple(controls)
        self.alt = alt
        self.caption = caption
        self._widget: Any = None
        choices = itertools.product(*(range(len(c.values)) for c in self.controls))
        self.frames = tuple(self.frame(choice) for choice in choices)
        self.html = self._page()
        if len(self.html) > MAX_BYTES:
            raise ValueError(
                f"a picture must stay below {MAX_BYTES:,} bytes of HTML, got {len(self.html):,} "
                f"for {len(self.frames)} frames: use fewer values or a smaller or simpler figure"
            )

    def frame(self, choice: Sequence[int]) -> Frame:
        """Call `draw` for the values at the positions `choice`, one for each control."""
        pairs = list(zip(self.controls, choice, strict=True))
        values = {control.name: control.values[i] for control, i in pairs}
        shown = ", ".join(f"{control.label}: {control.texts[i]}" for control, i in pairs)
        alt = self.alt(**values) if callable(self.alt) else f"{self.alt} ({shown})"
        with _no_figure_left_open():
            result = self.draw(**values)
            return Frame(alt=alt, body=_body(result, alt, values))

    @property
    def start(self) -> int:
        """Number of the frame shown first."""
        index = 0
        for control in self.controls:
            index = index * len(control.values) + control.start
        return index

    def widget(self) -> Any:
        """The live picture, of ipywidgets: every move calls `draw` again."""
        import ipywidgets

        inputs = []
        for control in self.controls:
            options = [(text, i) for i, text in enumerate(control.texts)]
            common: dict[str, Any] = {
                "options": options,
                "value": control.start,
                "description": control.label,
                "style": {"description_width": "initial"},
            }
            if control.is_slider:
                # One call a move: a drawing takes longer than a slider's step.
                layout = ipywidgets.Layout(width="min(100%, 32rem)")
                inputs.append(
                    ipywidgets.SelectionSlider(continuous_update=False, layout=layout, **common)
                )
            else:
                inputs.append(ipywidgets.ToggleButtons(**common))
        shown = ipywidgets.HTML(self._live(self.frames[self.start]))

        def move(_: Any) -> None:
            try:
                shown.value = self._live(self.frame([box.value for box in inputs]))
            except Exception as error:  # it would vanish in the server's log
                shown.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

        for box in inputs:
            box.observe(move, "value")
        return ipywidgets.VBox([*inputs, shown])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Both faces; the HTML alone without a kernel, or where the live face fails in any way.

        The HTML responds all the same, so a reader loses nothing that a traceback would give back.
        `draw` is not called here: its errors were raised when the picture was made.
        """
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self.html}
        with contextlib.suppress(Exception):
            if _in_kernel():
                if self._widget is None:
                    self._widget = self.widget()
                bundle[WIDGET_VIEW] = _view(self._widget)
        return bundle

    def __repr__(self) -> str:
        """A description that is the same in every run."""
        parts = (f"{c.label} ({', '.join(c.texts)})" for c in self.controls)
        return f"<picture that responds to {' and '.join(parts)}>"

    def _live(self, frame: Frame) -> str:
        return (
            f'<style>{STYLE}</style><div class="explore"><div class="explore-frames">'
            f"{frame.html(hidden=False)}</div></div>"
        )

    def _page(self) -> str:
        controls = "".join(map(_control_html, self.controls))
        frames = "\n".join(
            frame.html(hidden=i != self.start) for i, frame in enumerate(self.frames)
        )
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>\n" if self.caption else ""
        on_input = html.escape(ON_INPUT, quote=False)
        # autocomplete: a browser that goes back must not move the slider away from its frame.
        return (
            f'<figure class="explore">\n<style>{STYLE}</style>\n'
            f'<form autocomplete="off" onsubmit="return false" oninput="{on_input}">\n'
            f'<div class="explore-controls">\n{controls}</div>\n'
            f'<div class="explore-frames">\n{frames}\n</div>\n'
            '<span class="explore-status" role="status"></span>\n</form>\n'
            "<noscript>The controls need JavaScript; one frame is shown.</noscript>\n"
            f"{caption}</figure>"
        )


def _view(widget: Any) -> Mapping[str, Any]:
    """The MIME data of a widget; AttributeError or ValueError when it has none."""
    view: Mapping[str, Any]
    if hasattr(widget, "_repr_mimebundle_"):
        view = widget._repr_mimebundle_()[WIDGET_VIEW]
    else:  # ipywidgets 7, which Colab holds, displays by itself and has no bundle to ask for
        view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    if not view["model_id"]:
        raise ValueError("the widget has no model: its comm did not open")
    return view


def _control(
    name: str, values: Iterable[Any], *, start: Mapping[str, Any], labels: Mapping[str, str]
) -> Control:
    if isinstance(values, str):
        raise ValueError(f"{name} must be a sequence of values, got the string {values!r}")
    if isinstance(values, Mapping):
        texts, choices = tuple(map(str, values)), tuple(values.values())
    else:
        choices = tuple(values)
        texts = tuple(_text(value) for value in choices)
    first = 0
    if name in start:
        same = [i for i, value in enumerate(choices) if value == start[name]]
        if not same:
            raise ValueError(f"{name} cannot start at {start[name]!r}: it is not one of its values")
        first = same[0]
    label = labels.get(name, name.replace("_", " ").strip().capitalize())
    return Control(name=name, label=label, values=choices, texts=texts, start=first)


def _text(value: Any) -> str:
    if isinstance(value, Real) and not isinstance(value, (bool, int)):
        return f"{float(value):g}".replace("-", "\N{MINUS SIGN}")
    return str(value)


def _control_html(control: Control) -> str:
    label = html.escape(control.label)
    count = len(control.values)
    if control.is_slider:
        text = html.escape(control.texts[control.start])
        texts = html.escape(json.dumps(control.texts, ensure_ascii=False))
        return (
            f'<label class="explore-control"><span class="explore-name">{label}: '
            f'<span class="explore-value" aria-hidden="true">{text}</span></span>\n'
            f'<input type="range" min="0" max="{count - 1}" step="1" value="{control.start}" '
            f'aria-label="{label}" aria-valuetext="{text}" data-count="{count}" '
            f'data-texts="{texts}"></label>\n'
        )
    # A form of its own keeps apart the radio buttons of two pictures, whatever their name.
    name = html.escape(control.name)
    options = "".join(
        f'<label><input type="radio" name="{name}" value="{i}" data-count="{count}"'
        f"{' checked' if i == control.start else ''}>{html.escape(text)}</label>\n"
        for i, text in enumerate(control.texts)
    )
    return (
        f'<fieldset class="explore-control"><legend>{label}</legend>\n'
        f'<div class="explore-options">\n{options}</div></fieldset>\n'
    )


def _body(result: Any, alt: str, values: Mapping[str, Any]) -> str:
    from matplotlib.figure import Figure

    if isinstance(result, Figure):
        pixels, width, height = _webp(result)
        data = base64.b64encode(pixels).decode("ascii")
        return (
            f'<img{{hidden}} class="dark-light" alt="{html.escape(alt)}" width="{width}" '
            f'height="{height}" decoding="sync" src="data:image/webp;base64,{data}">'
        )
    if isinstance(result, str):
        plain = not result.lstrip().startswith(HTML_STARTS)
        inside = f"<pre>{html.escape(result)}</pre>" if plain else result
    elif hasattr(result, "_repr_html_"):
        plain, inside = False, result._repr_html_()
    else:
        given = ", ".join(f"{name}={value!r}" for name, value in values.items())
        hint = "end it with a return" if result is None else "return ax.figure for an Axes"
        raise TypeError(
            "draw must return a matplotlib Figure, a string or an object with _repr_html_, got "
            f"{type(result).__name__} for {given}: {hint}"
        )
    # A screen reader reads the text itself: the label only names it.
    classes = "explore-text explore-plain" if plain else "explore-text"
    return (
        f'<div{{hidden}} class="{classes}" role="group" aria-label="{html.escape(alt)}">'
        f"{inside}</div>"
    )


def _webp(figure: Any) -> tuple[bytes, int, int]:
    """A lossless WebP of `COLORS` colours, and its width and height in CSS pixels."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    plt.close(figure)
    before = figure.dpi
    figure.set_dpi(2 * PIXELS_PER_INCH)
    try:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        drawn = Image.fromarray(pixels)
    finally:
        figure.set_dpi(before)
    opaque = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    # Few colours and no dither: half the bytes. Median cut keeps pale fills and white as they are,
    # which Pillow's octree turns into one another.
    few = opaque.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    few.convert("RGB").save(file, "WEBP", lossless=True, method=2)
    width, height = figure.get_size_inches() * PIXELS_PER_INCH
    return file.getvalue(), round(width), round(height)


@contextlib.contextmanager
def _no_figure_left_open() -> Iterator[None]:
    """Close what was opened inside: the inline backend would show it below the cell."""
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    try:
        yield
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
