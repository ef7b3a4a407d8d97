"""In equal CPU time, how far do the usual word-level recipe and ours come on WikiText-2?

The usual recipe is that of PyTorch's word-level language-model example: two LSTM layers of 200,
full softmax, plain SGD at learning rate 20 with clipping, batch size 20, BPTT length 35. Ours is
the preset `wikitext-cpu`. Both train in turns in one process on one thread, and the CPU seconds of
each are counted. The whole validation text is scored with the full softmax, which is not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from companion.core.information import perplexity
from companion.core.runtime import cpu_seconds
from companion.core.seeds import seed_everything
from companion.core.settings import settings_class
from companion.evaluation.scoring import summed_nats_of_rows
from companion.models.base import LanguageModel, detach
from companion.models.lstm import LSTMConfig, LSTMLanguageModel, State
from companion.runs.presets import get_preset
from companion.text import batching
from companion.text.corpora import load_corpus
from companion.text.tokenizers import build_tokenizer, encode_documents
from companion.training.trainer import Trainer

if TYPE_CHECKING:
    from jaxtyping import Int


@settings_class
class Config:
    """Budgets of CPU time. The published figures come from (60, 120, 600) and (120, 600)."""

    budgets: tuple[float, ...] = (20.0,)
    """CPU seconds of our preset; each budget is a separate training, whose schedule ends there."""
    usual_budgets: tuple[float, ...] = (20.0,)
    """CPU seconds after which the usual recipe is measured, in one training without a schedule."""
    turn: float = 5.0
    """CPU seconds that one recipe trains before the other continues."""
    corpus: str = "wikitext-2"
    """Name of the corpus."""
    preset: str = "wikitext-cpu"
    """Name of the preset that is our recipe."""
    valid_tokens: int | None = None
    """Number of tokens of the validation text to score; None scores all."""

    def __post_init__(self) -> None:
        if not self.budgets or not self.usual_budgets:
            raise ValueError("budgets and usual_budgets must each hold one number or more")
        for name in ("budgets", "usual_budgets"):
            if sorted(set(getattr(self, name))) != list(getattr(self, name)):
                raise ValueError(f"{name} must rise, got {getattr(self, name)}")


@dataclass(kw_only=True)
class Result:
    """Validation perplexities per word, by CPU seconds of training, and the speeds behind them."""

    perplexity: dict[str, float] = field(default_factory=dict)
    """Validation perplexity per word of our preset, by budget in CPU seconds."""
    usual_perplexity: dict[str, float] = field(default_factory=dict)
    """Validation perplexity per word of the usual recipe, by CPU seconds of training."""
    cpu_seconds_used: dict[str, float] = field(default_factory=dict)
    """CPU seconds that our trainings actually took, by budget."""
    words_per_cpu_second: float = 0.0
    """Training speed of our preset, in words per CPU second."""
    usual_words_per_cpu_second: float = 0.0
    """Training speed of the usual recipe, in words per CPU second."""
    valid_tokens: int = 0
    """Number of validation words scored."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train both recipes in turns and score each at its budgets."""
    preset = get_preset(config.preset)
    corpus = load_corpus(config.corpus)
    tokenizer = build_tokenizer(
        preset.tokenizer, (d.text for d in corpus.train), **preset.tokenizer_options
    )
    train_ids = encode_documents(tokenizer, corpus.train).ids
    valid_ids = encode_documents(tokenizer, corpus.valid).ids
    if config.valid_tokens is not None:
        valid_ids = valid_ids[: config.valid_tokens + 1]
    rows = batching.scoring_streams(valid_ids, 32)
    result = Result(valid_tokens=valid_ids.numel() - 1)

    def score(model: LanguageModel) -> float:
        return perplexity(float(summed_nats_of_rows(model, rows)) / result.valid_tokens)

    def our_trainer(steps: int) -> Trainer:
        seed_everything(seed)
        model = LSTMLanguageModel(preset.model_config(tokenizer.vocabulary_size))
        settings = dataclasses.replace(preset.train, steps=steps, epochs=None)
        return Trainer(model, train_ids, settings, device="cpu")

    usual = UsualRecipe(train_ids, tokenizer.vocabulary_size, seed)
    usual_seconds, usual_due = 0.0, list(config.usual_budgets)
    steps_per_second = _steps_per_second(our_trainer(10**6))
    ours_seconds, ours_tokens = 0.0, 0
    bar = tqdm(
        total=sum(config.budgets) + config.usual_budgets[-1], disable=not progress, unit="CPU s"
    )
    for budget in config.budgets:
        trainer = our_trainer(max(1, round(steps_per_second * budget)))
        used, step = 0.0, partial(next, trainer.steps())
        while trainer.progress.step < trainer.total_steps:
            left = trainer.total_steps - trainer.progress.step
            spent = _train_for(config.turn, step, at_most=left)
            used += spent
            if usual_due:
                turn = min(config.turn, usual_due[0] - usual_seconds)
                usual_spent = _train_for(turn, usual.train_step)
                usual_seconds += usual_spent
                spent += usual_spent
                if usual_seconds >= usual_due[0]:
                    result.usual_perplexity[f"{usual_due.pop(0):g}"] = score(usual.model)
            bar.update(spent)
        result.perplexity[f"{budget:g}"] = score(trainer.model)
        result.cpu_seconds_used[f"{budget:g}"] = round(used, 1)
        ours_seconds += used
        ours_tokens += trainer.targets_done
        # Some seconds tell the speed roughly, the last training tells it better.
        steps_per_second = trainer.total_steps / used
    while usual_due:
        usual_seconds += _train_for(usual_due[0] - usual_seconds, usual.train_step)
        result.usual_perplexity[f"{usual_due.pop(0):g}"] = score(usual.model)
    bar.close()
    result.words_per_cpu_second = ours_tokens / ours_seconds
    result.usual_words_per_cpu_second = usual.words / usual_seconds
    return result


class UsualRecipe:
    """The word-level example's training: full softmax, SGD without momentum, no schedule.

    The example divides its learning rate by four after an epoch without improvement; the budgets
    here end before the first epoch does.
    """

    def __init__(self, ids: Int[Tensor, " total"], vocabulary_size: int, seed: int) -> None:
        seed_everything(seed)
        self.model = LSTMLanguageModel(
            LSTMConfig(
                vocabulary_size=vocabulary_size,
                embedding_size=200,
                hidden_size=200,
                num_layers=2,
                dropout=0.2,
            )
        )
        for weight in (self.model.embedding.weight, self.model.output.weight):
            assert isinstance(weight, Tensor)
            nn.init.uniform_(weight, -0.1, 0.1)
        self.data = batching.streams(ids, 20)
        self.windows = batching.num_windows(self.data, 35)
        self.state: State | None = None
        self.step = self.words = 0

    def train_step(self) -> None:
        """One optimizer step, on one window."""
        self.model.train()
        index = self.step % self.windows
        batch = batching.window(self.data, index, 35)
        self.model.zero_grad()
        state = None if index == 0 or self.state is None else detach(self.state)
        logits, self.state = self.model(batch.inputs, state)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.25)
        with torch.no_grad():
            for parameter in self.model.parameters():
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=-20)
        self.step += 1
        self.words += batch.num_targets


def _train_for(seconds: float, step: Callable[[], object], *, at_most: int | None = None) -> float:
    """Take steps for about `seconds` of CPU time, at least one; returns the CPU seconds taken."""
    started, steps = cpu_seconds(), 0
    while steps == 0 or (cpu_seconds() - started < seconds and steps != at_most):
        step()
        steps += 1
    return cpu_seconds() - started


def _steps_per_second(trainer: Trainer, seconds: float = 4.0) -> float:
    """Steps per CPU second of a trainer that is used only for this measurement."""
    step = partial(next, trainer.steps())
    step()
    before = trainer.progress.step
    spent = _train_for(seconds, step)
    return (trainer.progress.step - before) / spent
