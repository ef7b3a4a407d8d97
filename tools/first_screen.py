"""What a visitor of the site meets first: buttons, a live picture, the parts as cards, how to cite.

All of it is HTML that `book/_ext/chapter_map.py` puts into the landing page, and above each chapter
the line that says what reading and running it takes.
"""

from __future__ import annotations

import html
import math
import re
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from companion.teaching.widgets import explore
from tools import chapters, costs, landing
from tools.chapters import ROOT
from tools.landing import Link

#: What each part is about, in one sentence.
ABOUT = {
    "Background": (
        "What a language model is, and two ways in which one with a low loss can be wrong."
    ),
    "Cross-entropy": (
        "How to measure a prediction in bits and nats, and how to compute the lowest possible loss "
        "of a source exactly."
    ),
    "Training": (
        "From text to tokens, the LSTM gate by gate, the training loop line by line, and how to "
        "tell a better model from a luckier one."
    ),
    "Objective mismatch": (
        "What the loss asks for and what people want: likelihood against quality, rewards that are "
        "gamed, refusals that an instruction undoes, and what narrows the gap."
    ),
    "Mismatched generalization": (
        "Good on the training distribution, wrong elsewhere: memorized codes, shifted sources, new "
        "combinations, and safety training that does not reach what capability reaches."
    ),
    "Practice": (
        "Translation, sentiment, dialogue, the cost of training, smaller copies, a planted bias, "
        "and a real chat model, with data of your own."
    ),
}

#: Words of prose that a reader is taken to read in a minute. Code and pictures are not counted.
WORDS_PER_MINUTE = 200

_MARKUP = re.compile(r"(?m)^(?::::?|```|:\w+:)[^\n]*$|(?s:<!--.*?-->|\$\$.*?\$\$)")


def reading_minutes(path: Path) -> int:
    """Minutes for a chapter's prose, solutions included, to the nearest five, at least five."""
    cells = chapters.read_notebook(path)["cells"]
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    words = len(re.findall(r"[^\W\d_]+", _MARKUP.sub(" ", prose)))
    return max(5, 5 * round(words / WORDS_PER_MINUTE / 5))


def running(cost: costs.Cost) -> str:
    """What running a chapter takes, in words."""
    return f"about {costs.in_words(cost.minutes)} and {cost.gigabytes:g} GB of memory to run"


def chapter_line(path: Path) -> str:
    """The line below a chapter's title: part, reading time, and what running it takes.

    The last is what the opening says a few lines below: what was measured, rounded.
    """
    (part,) = (name for name, own in landing.parts().items() if path in own)
    pieces = [part, f"about {reading_minutes(path)} minutes to read"]
    if (cost := costs.said(landing.opening(path))) is not None:
        pieces.append(running(cost))
    return f'<p class="chapter-cost">{html.escape(" · ".join(pieces))}</p>'


def colab(path: Path) -> str:
    """The address at which Colab opens a chapter."""
    name = path.relative_to(ROOT).as_posix()
    place = chapters.repository_url().removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{place}/blob/{chapters.BRANCH}/{name}"


def buttons(link: Link) -> str:
    """The two ways to begin."""
    first = chapters.toc_notebooks()[0]
    return (
        '<p class="first-steps">'
        f'<a class="first-step main-step" href="{html.escape(link(first))}">Start reading</a>'
        f'<a class="first-step" href="{html.escape(colab(first))}">Open in Colab</a></p>'
    )


def part_id(name: str) -> str:
    """The place of a part's card on the landing page."""
    return "part-" + re.sub(r"\W+", "-", name.lower())


def cards(link: Link) -> str:
    """A card for each part: what it is about, and its chapters with what they take."""
    measured = costs.stored()
    out = []
    for name, own in landing.parts().items():
        total = sum(map(reading_minutes, own))
        rows = "".join(
            f'<li><a href="{html.escape(link(path))}">{html.escape(landing.title(path))}</a> '
            f'<span class="card-minutes">{reading_minutes(path)} min</span></li>'
            for path in own
        )
        costly = sum(measured[path.stem].minutes for path in own if path.stem in measured)
        out.append(
            f'<section class="part-card" aria-labelledby="{part_id(name)}">'
            f'<h3 id="{part_id(name)}"><a href="{html.escape(link(own[0]))}">'
            f"{html.escape(name)}</a></h3>"
            f"<p>{html.escape(ABOUT[name])}</p><ol>{rows}</ol>"
            f'<p class="card-total">{total} minutes to read, {costly:.0f} to run</p></section>'
        )
    return f'<div class="part-cards">{"".join(out)}</div>'


# --- the live picture ----------------------------------------------------------------------------

#: A source of four words, what the model believes before training, and its rate of learning.
SOURCE = {"the": 0.5, "a": 0.25, "this": 0.125, "no": 0.125}
BEFORE = (-1.5, 0.0, 1.5, 1.0)
RATE = 0.5
STEPS = (0, 1, 2, 4, 8, 16, 32, 64)


def softmax(logits: list[float]) -> list[float]:
    """The probabilities of these logits."""
    weights = [math.exp(value) for value in logits]
    return [weight / sum(weights) for weight in weights]


def trained(steps: int) -> list[float]:
    """The model after so many steps of gradient descent on its exact cross-entropy."""
    logits = list(BEFORE)
    for _ in range(steps):
        model = softmax(logits)
        logits = [
            value + RATE * (p - q)
            for value, p, q in zip(logits, SOURCE.values(), model, strict=True)
        ]
    return softmax(logits)


def floor_and_rest(model: list[float]) -> tuple[float, float]:
    """The entropy of the source, and the KL divergence of the model from it, in nats."""
    p = list(SOURCE.values())
    entropy = -sum(value * math.log(value) for value in p)
    return entropy, sum(a * math.log(a / b) for a, b in zip(p, model, strict=True))


def _bars(steps: int) -> str:
    model = trained(steps)
    floor, rest = floor_and_rest(model)
    out = ['<text x="80" y="14">how often the source writes a word (outline)</text>']
    out.append('<text x="80" y="32">what the model expects (filled)</text>')
    for i, (word, p, q) in enumerate(zip(SOURCE, SOURCE.values(), model, strict=True)):
        y = 48 + 30 * i
        out.append(f'<text x="70" y="{y + 16}" text-anchor="end">{word}</text>')
        out.append(f'<rect class="model" x="80" y="{y + 3}" width="{360 * q:.1f}" height="16"/>')
        out.append(f'<rect class="source" x="80" y="{y}" width="{360 * p:.1f}" height="22"/>')
    scale = 108
    out.append('<text x="70" y="196" text-anchor="end">loss</text>')
    out.append(f'<rect class="floor" x="80" y="180" width="{scale * floor:.1f}" height="24"/>')
    end = 80 + scale * floor
    out.append(f'<rect class="rest" x="{end:.1f}" y="180" width="{scale * rest:.1f}" height="24"/>')
    out.append(f'<text x="80" y="222">floor {floor:.2f}</text>')
    out.append(f'<text x="{end:.1f}" y="222">still to be learnt {rest:.2f} nats</text>')
    return (
        '<svg class="drawing live-picture" xmlns="http://www.w3.org/2000/svg" '
        'viewBox="0 0 360 230" font-size="13" fill="currentColor" aria-hidden="true">'
        + "".join(out)
        + "</svg>"
    )


def _in_words(steps: int) -> str:
    floor, rest = floor_and_rest(trained(steps))
    shares = ", ".join(
        f"{word} {q:.0%} (source {p:.1%})"
        for word, p, q in zip(SOURCE, SOURCE.values(), trained(steps), strict=True)
    )
    return (
        f"After {steps} steps the loss is {floor + rest:.2f} nats per word: the floor, {floor:.2f},"
        f" and {rest:.2f} still to be learnt. The model expects {shares}."
    )


def live_picture() -> str:
    """A model that learns a source of four words, with a slider for the steps of training."""
    picture = explore(
        lambda steps: _bars(steps),
        alt=lambda steps: _in_words(steps),
        steps=STEPS,
        labels={"steps": "Steps of training"},
        caption=(
            "A source writes four words with known probabilities, and a model is trained on it. "
            "Move the slider: the loss falls to the entropy of the source, the floor, and no "
            "further. Every step is computed exactly."
        ),
    )
    return picture.html


# --- citation ------------------------------------------------------------------------------------


def built_from() -> str:
    """The date of the commit that the site is built from; empty outside a clone."""
    run = subprocess.run(
        ["git", "log", "-1", "--format=%cs"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else ""


def citation() -> str:
    """The entry for BibTeX, from CITATION.cff."""
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    fields: Mapping[str, str] = {
        "title": f"{{{said['title']}}}",
        "author": " and ".join(f"{{{author['name']}}}" for author in said["authors"]),
        "year": built_from()[:4],
        "version": str(said["version"]),
        "url": said["url"],
    }
    lines = [
        textwrap.fill(
            f"  {key} = {{{value}}},",
            width=46,
            subsequent_indent=" " * 4,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for key, value in fields.items()
        if value
    ]
    return "\n".join(["@book{trained_to_predict,", *lines, "}"])


def version_and_date() -> str:
    """Version and date of what the site shows."""
    date = built_from()
    return f"Version {chapters.version()}" + (f", {date}" if date else "")
