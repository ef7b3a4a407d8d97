"""Out-of-distribution detection: scores of how unlike the training text a text is.

"Strange" is a text from another distribution, "familiar" one like the training text. A higher score
means a stranger text. A threshold on it would sort texts; AUROC judges a score without choosing
one: it is the probability that a strange text, drawn at random, has a higher score than a familiar
one, ties counting half. 1 is perfect, .5 is chance, and below .5 the score points the wrong way.

References: Hendrycks & Gimpel 2017, A baseline for detecting misclassified and out-of-distribution
examples (the highest probability). Serra et al. 2020, Input complexity and out-of-distribution
detection with likelihood-based generative models (a compressor's length taken off).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.information import nats_to_bits
from companion.generation.constraints import allow_only
from companion.generation.decoding import SamplingConfig, generate
from companion.models.base import LanguageModel, evaluation_mode

if TYPE_CHECKING:
    from jaxtyping import Float64

#: Names of the scores that `strangeness_scores` gives.
SCORES = ("surprisal", "surprisal - zlib", "entropy", "1 - top probability")

#: Texts read side by side.
_BATCH = 64


def zlib_bits_per_byte(text: bytes) -> float:
    """Length of `text` under zlib's best compression, its 8 bytes of overhead included."""
    if not text:
        raise ValueError("an empty text has no length per byte; give one byte or more")
    return 8 * len(zlib.compress(text, 9)) / len(text)


@torch.no_grad()
def strangeness_scores(
    model: LanguageModel, texts: Sequence[bytes], *, skip: int = 32
) -> dict[str, Float64[Tensor, " texts"]]:
    """Scores of texts by name; the higher, the stranger.

    - surprisal: cross-entropy of the text under the model, in bits per byte;
    - surprisal - zlib: the same minus the length of the text compressed by zlib;
    - entropy: mean entropy of the model's next-byte distribution, in bits;
    - 1 - top probability: one minus the mean probability of the model's best guess.

    model: its first 256 tokens are the bytes, as with `tokenizers.ByteTokenizer`.
    skip: bytes at the beginning that are read and not scored: a piece begins in the middle of
        something, and the model has no memory yet.

    All texts must be of one length, longer than `skip`: a compressor costs short texts more a byte.
    """
    lengths = {len(text) for text in texts}
    if len(lengths) != 1 or lengths.pop() <= max(1, skip) or skip < 1:
        raise ValueError(
            f"texts must be one or more of one length above skip = {skip} >= 1, got lengths "
            f"{sorted({len(text) for text in texts})}"
        )
    if model.vocabulary_size < 256:
        raise ValueError(f"the model must have a token for each byte, got {model.vocabulary_size}")
    parts = []
    ids = torch.tensor([list(text) for text in texts])
    for rows in torch.split(ids, _BATCH):
        with evaluation_mode(model):
            logits, _ = model(rows[:, :-1].to(model.device))
        log_q = torch.log_softmax(logits[:, skip - 1 :].float(), dim=-1).cpu()
        targets = rows[:, skip:]
        parts.append(
            torch.stack(
                [
                    -log_q.gather(-1, targets[..., None]).squeeze(-1).cpu().double().mean(1),
                    -(log_q.exp() * log_q).sum(-1).cpu().double().mean(1),
                    1 - log_q.amax(-1).exp().cpu().double().mean(1),
                ]
            )
        )
    nats, entropy, unsure = torch.cat(parts, dim=1)
    bits = nats * nats_to_bits(1.0)
    compressed = torch.tensor([zlib_bits_per_byte(text) for text in texts], dtype=torch.float64)
    values = (bits, bits - compressed, entropy * nats_to_bits(1.0), unsure)
    return dict(zip(SCORES, values, strict=True))


def auroc(familiar: Float64[Tensor, " _"], strange: Float64[Tensor, " __"]) -> float:
    """Probability that a strange text has the higher score, ties counting half."""
    from sklearn.metrics import roc_auc_score

    if not familiar.numel() or not strange.numel():
        raise ValueError(
            f"auroc needs scores of both kinds, got {familiar.numel()} familiar and "
            f"{strange.numel()} strange ones"
        )
    labels = [0] * familiar.numel() + [1] * strange.numel()
    return float(roc_auc_score(labels, torch.cat([familiar, strange]).cpu().numpy()))


def byte_pieces(text: str, length: int, most: int | None = None) -> list[bytes]:
    """The UTF-8 bytes of `text` cut into pieces of `length`, the rest left out.

    With `most`, that many of them, spread evenly over the text.
    """
    if length < 1 or (most is not None and most < 1):
        raise ValueError(f"length and most must be >= 1, got {length} and {most}")
    data = text.encode()
    count = len(data) // length
    if not count:
        raise ValueError(f"the text has {len(data)} bytes, too few for a piece of {length}")
    chosen = range(count)
    if most is not None and most < count:
        chosen = [i * count // most for i in range(most)]  # type: ignore[assignment]
    return [data[i * length : (i + 1) * length] for i in chosen]


def repetitive_texts(
    model: LanguageModel, familiar: Sequence[bytes], *, generator: torch.Generator
) -> dict[str, list[bytes]]:
    """Texts that say one thing over and over, as long as the familiar ones, by name:

    - spaces: nothing else (one text);
    - own greedy text: what the model finds most probable after the first 32 bytes of each;
    - familiar phrase repeated: 40 bytes out of each;
    - nonsense repeated: 12 random letters and a space.
    """
    if not familiar or len({len(text) for text in familiar}) != 1 or len(familiar[0]) < 80:
        raise ValueError("familiar must be one or more texts of one length, of 80 bytes or more")
    length = len(familiar[0])
    prompts = torch.tensor([list(text[:32]) for text in familiar])
    only_bytes = allow_only(range(256), model.vocabulary_size)
    greedy = generate(model, prompts, length, SamplingConfig(temperature=0), constraint=only_bytes)
    letters = torch.randint(97, 123, (len(familiar), 12), generator=generator)
    times = length // 13 + 1
    return {
        "spaces": [b" " * length],
        "own greedy text": [bytes(row) for row in greedy.tolist()],
        "familiar phrase repeated": [(text[40:80] * times)[:length] for text in familiar],
        "nonsense repeated": [((bytes(row) + b" ") * times)[:length] for row in letters.tolist()],
    }
