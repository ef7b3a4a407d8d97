"""In equal CPU time, how far do the usual word-level recipe and ours come on WikiText-2?

The usual recipe is that of PyTorch's word-level language-model example: two LSTM layers of 200,
full softmax, plain SGD at learning rate 20 with clipping, batch 20, windows of 35. Ours is the
preset `wikitext-cpu`. Both train in turns in one process on one thread; each pays its own CPU
seconds. The whole validation text is scored with the full softmax, outside the account.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from companion import batching
from companion.corpora import load_corpus
from companion.evaluation import summed_nats_of_rows
from companion.information import perplexity
from companion.lstm import LSTMConfig, LSTMLanguageModel, State, detach
from companion.presets import get_preset
from companion.runtime import cpu_seconds, seed_everything
from companion.tokenizers import build_tokenizer, encode_documents
from companion.training import Trainer

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Config:
    """Budgets of CPU time. The published figures come from (60, 120, 600) and (120, 600)."""

    budgets: tuple[float, ...] = (20.0,)
    """CPU seconds of our preset; each is a training of its own, whose schedule ends there."""
    usual_budgets: tuple[float, ...] = (20.0,)
    """CPU seconds at which the usual recipe is measured; it has no schedule, so one training."""
    turn: float = 5.0
    """CPU seconds that one recipe trains before the other goes on."""
    corpus: str = "wikitext-2"
    """What is read."""
    preset: str = "wikitext-cpu"
    """Our recipe."""
    valid_tokens: int | None = None
    """Score only so many tokens of the validation text; None scores all."""

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
    """Of our preset."""
    usual_perplexity: dict[str, float] = field(default_factory=dict)
    """Of the usual recipe."""
    cpu_seconds_used: dict[str, float] = field(default_factory=dict)
    """What our trainings took of their budgets."""
    words_per_cpu_second: float = 0.0
    """Training speed of our preset."""
    usual_words_per_cpu_second: float = 0.0
    """Training speed of the usual recipe."""
    valid_tokens: int = 0
    """Words scored."""


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

    def score(model: LSTMLanguageModel) -> float:
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
        used = 0.0
        while trainer.progress.step < trainer.total_steps:
            trainer.model.train()
            left = trainer.total_steps - trainer.progress.step
            spent = _train_for(config.turn, trainer.train_step, at_most=left)
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
        ours_tokens += trainer.total_steps * trainer.targets_per_step
    while usual_due:
        usual_seconds += _train_for(usual_due[0] - usual_seconds, usual.train_step)
        result.usual_perplexity[f"{usual_due.pop(0):g}"] = score(usual.model)
    bar.close()
    result.words_per_cpu_second = ours_tokens / ours_seconds
    result.usual_words_per_cpu_second = usual.words / usual_seconds
    return result


class UsualRecipe:
    """The word-level example's training: full softmax, SGD without momentum, no schedule yet.

    The example divides its learning rate by four after an epoch that did not help; the budgets here
    end before the first epoch does.
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
        """One window."""
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


def _train_for(seconds: float, step: Callable[[], None], *, at_most: int | None = None) -> float:
    """Take steps for about `seconds` of CPU time, at least one; the CPU seconds they took."""
    started, steps = cpu_seconds(), 0
    while steps == 0 or (cpu_seconds() - started < seconds and steps != at_most):
        step()
        steps += 1
    return cpu_seconds() - started


def _steps_per_second(trainer: Trainer, seconds: float = 4.0) -> float:
    """Speed of a trainer that is thrown away."""
    trainer.model.train()
    trainer.train_step()
    before = trainer.progress.step
    spent = _train_for(seconds, trainer.train_step)
    return (trainer.progress.step - before) / spent
