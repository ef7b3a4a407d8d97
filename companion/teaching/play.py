"""A small trained LSTM that runs in the page: in the reader's browser, without a kernel or server.

`Play(quantized_tensors(model, 8), tokenizer, title=..., text=...)` shows a form: the reader types a
beginning, sees the probabilities of the next token, and the model goes on, by a chosen temperature,
top-k, nucleus and seed. With `asking=`, the reader asks questions, and each reply is judged.

What is shown is HTML that holds the weights, a script of our own (`play.js`) that computes the LSTM
and draws tokens, and a style sheet. It needs no library and asks no other host for anything. It
works in the built book, over http and from a disk, in JupyterLab and in Colab; where no script may
run, as in a notebook that is not trusted, the form is disabled and says so.

The weights are one safetensors file, with the tokens and all that the form needs in its metadata.
`Play.tensors` are the weights that the page computes with, so a chapter measures the very model
that it shows, and prints `Play.checksum`, the SHA-256 of that file. On the site
`book/_ext/page_models.py` moves the file out of the page, to be loaded when the reader comes near.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import load, save
from torch import Tensor

#: The script and the style sheet, which belong to the package.
SCRIPT, STYLE = (Path(__file__).with_name(f"play.{kind}") for kind in ("js", "css"))

#: How the weights stand in the HTML; group 1 is base64.
WEIGHTS = re.compile(r'data-weights="data:application/octet-stream;base64,([A-Za-z0-9+/=]*)"')

#: The name in the file's metadata. One only: several are written in an order that changes.
METADATA = "play"

#: Largest file of weights: what a reader on a phone waits for.
MAX_BYTES = 600_000

_SHELL = """
<div class="play" data-kind="{kind}" data-sha256="{checksum}" data-lm-suppress-shortcuts="true" \
data-weights="data:application/octet-stream;base64,{weights}">
<style>{style}</style>
<form aria-label="{title}" autocomplete="off">
<p class="play-title">{title}</p>
<p class="play-notice" role="status">This model runs in the page, by a script of the page. \
No script has run here: in a notebook, trust it or run the cell.</p>
<fieldset disabled="disabled">
{fields}
</fieldset>
</form>
<script>{script}</script>
</div>
"""

_WRITES = """\
<label class="play-wide">Text
<textarea class="play-text" rows="6" spellcheck="false">{text}</textarea></label>
<div class="play-row">
<label>Temperature <input class="play-temperature" type="number" min="0" max="5" step="0.1" \
value="1" /></label>
<label>Top-k <input class="play-top-k" type="number" min="1" step="1" placeholder="all" /></label>
<label>Nucleus p <input class="play-top-p" type="number" min="0.01" max="1" step="0.01" \
placeholder="1" /></label>
<label>Seed <input class="play-seed" type="number" min="0" step="1" value="0" /></label>
<label>How many <input class="play-count" type="number" min="1" max="1000" step="1" \
value="200" /></label>
</div>
<div class="play-buttons">
<button type="button" class="play-go">Let it write</button>
<button type="button" class="play-undo">Take back</button>
</div>
<p class="play-status" role="status" aria-live="polite"></p>
<div class="play-next" role="group" aria-label="What comes next, with its probability">
<p class="play-caption">What comes next after the text. Pale bars: the model; full bars: after \
temperature, top-k and nucleus. Press a row to append it.</p>
<ol class="play-bars"></ol>
</div>"""

_ANSWERS = """\
<div class="play-row">
<label>Thing <select class="play-thing"><option>the model is loading</option></select></label>
<label>Question <select class="play-question"><option>the model is loading</option></select></label>
<label>Way of asking <select class="play-way"><option>the model is loading</option></select></label>
</div>
<label class="play-wide">The user says
<input class="play-says" type="text" spellcheck="false" /></label>
<label class="play-wide">The reply is begun with
<input class="play-begun" type="text" spellcheck="false" placeholder="nothing" /></label>
<div class="play-buttons">
<button type="button" class="play-go">Ask</button>
<button type="button" class="play-clear">Clear</button>
</div>
<p class="play-status" role="status" aria-live="polite"></p>
<ul class="play-log" aria-label="Questions and replies, the last one first"></ul>
<div class="play-next" role="group" aria-label="First word of the reply, with its probability">
<p class="play-caption">The first word of the model’s reply to what stands above.</p>
<ol class="play-bars"></ol>
</div>"""


@runtime_checkable
class Vocabulary(Protocol):
    """What a form needs of a tokenizer of characters or of words."""

    tokens: list[str]
    unknown_id: int | None
    end_id: int

    @property
    def kind(self) -> str:
        """The kind: "character" or "word"."""


class Play:
    """A form with a model inside; display it as the last expression of a cell.

    packed: the weights of an LSTM language model as 8-bit codes by row, as `quantized_tensors`
        gives them.
    tokenizer: one of characters or of words.
    title: what the model is, in plain text; it names the form.
    text: the beginning that the form shows at first.
    asking: things, questions and ways of asking, as `companion.world.asking_form` gives them; the
        form then asks questions. None makes a form that goes on with a text.

    Raises ValueError for other weights or tokenizers, or more than `MAX_BYTES` of weights.
    """

    def __init__(
        self,
        packed: Mapping[str, Tensor],
        tokenizer: Vocabulary,
        *,
        title: str,
        text: str = "",
        asking: Mapping[str, Any] | None = None,
    ) -> None:
        if tokenizer.kind not in ("character", "word"):
            raise ValueError(
                "a model in the page reads characters or words, got a tokenizer of kind "
                f"{tokenizer.kind!r}"
            )
        if asking is not None and tokenizer.kind != "word":
            raise ValueError("asking needs a tokenizer of words, got one of characters")
        _check(packed, len(tokenizer.tokens))
        self.title = title
        self.text = text
        self.settings = {
            "kind": tokenizer.kind,
            "tokens": tokenizer.tokens,
            "end": tokenizer.end_id,
            "unknown": tokenizer.unknown_id,
            "asking": asking,
        }
        about = json.dumps(self.settings, ensure_ascii=False, separators=(",", ":"))
        plain = {name: each.detach().cpu().contiguous() for name, each in packed.items()}
        #: The safetensors file that is in the page.
        self.file: bytes = save(plain, metadata={METADATA: about})
        if len(self.file) > MAX_BYTES:
            raise ValueError(
                f"a model in the page has at most {MAX_BYTES:,} bytes, got {len(self.file):,}; "
                "take a smaller one"
            )

    @property
    def checksum(self) -> str:
        """SHA-256 of the file in the page."""
        return hashlib.sha256(self.file).hexdigest()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The packed weights as they are in the page, for `companion.compression.fill`."""
        return load(self.file)

    def _repr_html_(self) -> str:
        fields = _WRITES if self.settings["asking"] is None else _ANSWERS
        # The HTML begins with a line feed: older JupyterLabs drop an output's first node.
        return _SHELL.format(
            kind="writes" if self.settings["asking"] is None else "answers",
            checksum=self.checksum,
            weights=base64.b64encode(self.file).decode("ascii"),
            style=STYLE.read_text(encoding="utf-8"),
            script=SCRIPT.read_text(encoding="utf-8"),
            title=html.escape(self.title),
            fields=fields.replace("{text}", html.escape(self.text)),
        )

    def __repr__(self) -> str:
        return f"<model that runs in the page: {self.title}>"


def _check(packed: Mapping[str, Tensor], vocabulary_size: int) -> None:
    """Raise ValueError unless these are the weights of an LSTM of this vocabulary."""
    layers = sum(name.startswith("lstm.weight_ih_l") for name in packed if name.endswith(".int8"))
    matrices = ["embedding.weight"]
    vectors = ["output.bias"]
    for layer in range(layers):
        matrices += [f"lstm.weight_{part}_l{layer}" for part in ("ih", "hh")]
        vectors += [f"lstm.bias_{part}_l{layer}" for part in ("ih", "hh")]
    if any(name.startswith("output.weight") for name in packed):  # otherwise tied
        matrices.append("output.weight")
    wanted = {*vectors, *(f"{name}.{end}" for name in matrices for end in ("int8", "scales"))}
    if not layers or set(packed) != wanted:
        odd = sorted(set(packed) ^ wanted) or ["its LSTM"]
        raise ValueError(
            "a model in the page is an LSTMLanguageModel packed by quantized_tensors(model, 8), "
            f"without weight drop or a narrower last layer; wrong or missing: {odd[0]}"
        )
    rows = len(packed["embedding.weight.scales"])
    if rows != vocabulary_size or len(packed["output.bias"]) != rows:
        raise ValueError(
            f"the tokenizer has {vocabulary_size} tokens and the model {rows}; take the tokenizer "
            "that the model was trained with"
        )
    if any(packed[f"{name}.scales"].shape[1:] != (1,) for name in matrices):
        raise ValueError("the weights must have one scale a row: leave group_size out")
