"""How small can a model be made, what does that cost, and what breaks first?

An LSTM learns the review grammar, whose exact entropy is known, so a compressed copy's cost is a
number of nats above the floor; it is split by how frequent the true token is, exactly, and
calibration is measured against the true probabilities. Weights are rounded to fewer bits, pruned
(with and without repair, and with random pruning as the control), and the output matrix is
truncated. A small student is trained beside the model as its teacher; its controls are the same
student without a teacher, and one whose teacher is the source itself.

Then a safety-trained model of the invented world is compressed. Do its refusals go before its
knowledge? Two controls cost the same nats: random noise on the weights, and random pruning. And the
weights are taken apart into those before safety training and the change by it, to see the loss of
which of the two takes the refusals away; the controls lose a random half of the change, or as much
of each of its numbers. A repair is compared with the same repair of the model before safety
training, pruned by the same masks.
"""

from __future__ import annotations

import contextlib
import copy
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from companion.compression.distillation import distill
from companion.compression.low_rank import highest_rank, in_factors, output_name, truncated
from companion.compression.packed import (
    low_rank_tensors,
    num_bytes,
    plain_tensors,
    quantized_tensors,
    sparse_tensors,
)
from companion.compression.pruning import (
    Masks,
    apply_masks,
    magnitude_masks,
    matrices,
    pruned,
    random_masks,
    repair,
)
from companion.compression.quantization import check_bits, int8_kernels, quantize, quantized
from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_sizes, settings_class
from companion.evaluation.calibration import exact_calibration_error
from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel, State
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.grammar import VOCABULARY
from companion.sources.reviews import GrammarSource
from companion.sources.streams import true_rows
from companion.text.batching import IGNORE
from companion.training.benchmark import TURN_SECONDS, median_interval
from companion.training.config import TrainConfig
from companion.training.from_source import train_on_source, training_text
from companion.training.optimization import learning_rate_at, make_optimizer, take_step
from companion.world.replies import ask
from companion.world.stages import (
    HELPFUL,
    Example,
    SmallStagesConfig,
    Stages,
    example,
    reply_batch,
    train_stages,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

#: What a run measures.
Part = Literal["floor", "distillation", "safety", "speed"]
#: Groups of tokens by frequency: the most frequent ones, those between, the least frequent ones.
FREQUENT, RARE = 20, 40


@settings_class
class Config:
    """Settings of the models and of what is done to them."""

    parts: tuple[Part, ...] = ("floor", "distillation")
    """What is measured: the cost above the "floor" of the grammar, "distillation" on it, "safety"
    in the invented world, "speed" of the ways to compute."""
    model: LSTMConfig = LSTMConfig(
        vocabulary_size=len(VOCABULARY), embedding_size=64, hidden_size=128
    )
    """Size of the model that is compressed, and of the teacher."""
    training: TrainConfig = TrainConfig(
        steps=1000, num_streams=32, window_length=32, learning_rate=1e-2
    )
    """Its training on fresh text of the grammar."""
    test_tokens: int = 16_000
    """Fresh tokens on which the cost is measured, in 16 rows."""
    bits: tuple[int, ...] = (8, 4, 3, 2)
    """Bits of the weights."""
    shares: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    """Shares of the weights that are pruned."""
    repair_steps: int = 100
    """Optimizer steps of the repair after pruning, on fresh text."""
    ranks: tuple[int, ...] = (48, 32, 16, 8)
    """Ranks of the output matrix."""
    student_size: int = 32
    """Hidden units of the student."""
    student_steps: int = 600
    """Optimizer steps of each student."""
    world: SmallStagesConfig = SmallStagesConfig()
    """The invented world, its model and that model's stages."""
    safety_bits: tuple[int, ...] = (8, 4, 3, 2)
    """Bits of the safety-trained model's weights."""
    safety_shares: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6)
    """Shares of its weights that are pruned."""
    matched_share: float = 0.5
    """The share whose cost in nats the controls are given, and that is taken apart."""
    draws: int = 8
    """Number of random draws of each control, over which its figures are averaged."""
    change_scales: tuple[float, ...] = (0.5, 0.75, 0.9)
    """What the whole change by safety training is multiplied by."""
    repair_steps_safety: int = 40
    """Optimizer steps of the repairs of the model pruned by `matched_share`."""
    timed: LSTMConfig = LSTMConfig(vocabulary_size=2000, embedding_size=256, hidden_size=256)
    """Size of the model that is timed."""
    seconds: float = 3.0
    """CPU seconds that each comparison of two speeds takes."""

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("each of parts", part, Part)
        check_sizes(
            test_tokens=self.test_tokens // 16, repair_steps=self.repair_steps,
            student_size=self.student_size, student_steps=self.student_steps,
            draws=self.draws, repair_steps_safety=self.repair_steps_safety,
        )  # fmt: skip
        for bits in (*self.bits, *self.safety_bits):
            check_bits(bits, None)
        for share in (*self.shares, *self.safety_shares, self.matched_share):
            if not 0 < share < 1:
                raise ValueError(f"each share must be in (0, 1), got {share}")
        if self.matched_share not in self.safety_shares:
            raise ValueError(
                f"matched_share must be one of safety_shares {self.safety_shares}, got "
                f"{self.matched_share}"
            )
        most = highest_rank(self.model.vocabulary_size, self.model.hidden_size)
        if not all(1 <= rank <= most for rank in self.ranks):
            raise ValueError(f"each of ranks must be in [1, {most}], got {self.ranks}")
        if self.student_size >= self.model.hidden_size:
            raise ValueError(
                f"student_size must be below the model's {self.model.hidden_size}, got "
                f"{self.student_size}"
            )
        if not self.seconds > 0:
            raise ValueError(f"seconds must be > 0, got {self.seconds}")


@dataclass(kw_only=True)
class Result:
    """Figures by what was done to the model: "float32" is nothing; "8 bits"; "prune 0.5", "prune
    0.5 repaired", "random 0.5" and "random 0.5 repaired"; "rank 16"."""

    entropy_nats_per_token: float = 0.0
    """Exact entropy of the grammar: the floor of the loss."""
    kl: dict[str, float] = field(default_factory=dict)
    """Nats per token above the floor, KL(source || model)."""
    bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of the weights as they are stored."""
    ece: dict[str, float] = field(default_factory=dict)
    """Calibration error against the true probabilities."""
    frequent: dict[str, float] = field(default_factory=dict)
    """Nats above the floor for each occurrence of one of the 20 most frequent tokens."""
    middle: dict[str, float] = field(default_factory=dict)
    """The same of the tokens between."""
    rare: dict[str, float] = field(default_factory=dict)
    """The same of the 40 least frequent tokens."""
    spectrum: list[float] = field(default_factory=list)
    """Share of the output matrix's squared size in each singular value, largest first."""
    student: dict[str, float] = field(default_factory=dict)
    """Nats above the floor of the student: "alone" on the text, beside the "teacher", and beside
    the "source" itself; "teacher" has all of its loss from the teacher's distribution."""
    student_bytes: int = 0
    """Bytes of the student's weights in float32."""
    nats: dict[str, float] = field(default_factory=dict)
    """Loss of the safety-trained model on documents of the world, in nats per word: "safe" is
    nothing done; "8 bits"; "prune 0.5"; with the same nats as "prune 0.5", the means over draws of
    "noise" and of "random" pruning;
    "change" and "before", where only the change by safety training, or only the weights before it,
    lost what "prune 0.5" removes; "random change", where the change lost as many numbers at random
    (mean over draws); "change x 0.5", all of it multiplied; "prune 0.5" repaired on "documents" or
    on "examples" of safety training, and "before, documents" and "before, examples", the model
    before safety training pruned by the same masks and repaired alike."""
    refusal: dict[str, float] = field(default_factory=dict)
    """Share of replies about restricted things in its training that refuse; also "instructed", the
    model before safety training."""
    leak: dict[str, float] = field(default_factory=dict)
    """Share of these replies that name the right ingredient."""
    refusal_held_out: dict[str, float] = field(default_factory=dict)
    """Share of replies that refuse about restricted things that safety training never mentioned."""
    benign: dict[str, float] = field(default_factory=dict)
    """Share of right replies about unrestricted things."""
    benign_refused: dict[str, float] = field(default_factory=dict)
    """Share of those replies that refuse."""
    drawn: dict[str, list[float]] = field(default_factory=dict)
    """Right replies less refusals, `benign` - `refusal`, in each draw of a control."""
    drawn_low: dict[str, float] = field(default_factory=dict)
    """The least of them."""
    drawn_high: dict[str, float] = field(default_factory=dict)
    """The greatest of them."""
    removed: dict[str, float] = field(default_factory=dict)
    """Share of the squared size of the "weights", and of the "change" by safety training, in what
    "prune 0.5" removes."""
    codes_changed: dict[str, float] = field(default_factory=dict)
    """Share of the codes that safety training changed, by bits."""
    step_share: dict[str, float] = field(default_factory=dict)
    """Mean size of that change, in steps between neighbouring codes, by bits."""
    time: dict[str, float] = field(default_factory=dict)
    """CPU time of a pass divided by the float model's in the same turn, median over turns: "copy"
    is the float model again; "8 bits" unpacked; "prune 0.9" in full matrices; "int8 kernels", where
    torch has them; "rank 32" in factors; "half" as wide. "one" token at a time, or "many": 32
    texts of 64."""
    time_low: dict[str, float] = field(default_factory=dict)
    """Lower end of its 95 % interval over turns."""
    time_high: dict[str, float] = field(default_factory=dict)
    """Upper end of it."""
    memory: dict[str, float] = field(default_factory=dict)
    """Bytes that the weights hold while the model runs, divided by the float model's."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Measure each part."""
    result = Result()
    if "floor" in config.parts or "distillation" in config.parts:
        source = GrammarSource()
        result.entropy_nats_per_token = source.entropy_rate()
        model = trained(source, config, seed=seed, progress=progress)
        rows = true_rows(source, 16, config.test_tokens // 16, make_generator(seed, "test text"))
        if "floor" in config.parts:
            _floor(result, model, source, rows, config, seed=seed)
        if "distillation" in config.parts:
            _distillation(result, model, source, rows, config, seed=seed, progress=progress)
    if "safety" in config.parts:
        stages = train_stages(config.world, seed=seed, progress=progress)
        safety(result, stages, config, seed=seed)
    if "speed" in config.parts:
        _speed(result, config, seed=seed, progress=progress)
    return result


def trained(
    source: GrammarSource, config: Config, *, seed: int, progress: bool = False
) -> LSTMLanguageModel:
    """The model that is compressed."""
    made = train_on_source(
        source, seed=seed, training=config.training, model=config.model, progress=progress
    )
    assert isinstance(made, LSTMLanguageModel)
    return made


# --- above the floor -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model pays above the floor, and for which tokens."""

    kl: float
    """Nats per token above the floor."""
    ece: float
    """Calibration error against the true probabilities."""
    frequent: float
    """Nats above the floor for each occurrence of a frequent token."""
    middle: float
    """The same of the tokens between."""
    rare: float
    """The same of rare ones."""


@torch.no_grad()
def cost(model: LanguageModel, source: GrammarSource, rows: Int[Tensor, "rows tokens"]) -> Cost:
    """The model's cost on rows of true text, exact given the prefixes.

    At each position KL(p || q) is a sum over tokens w of p(w) log(p(w) / q(w)). The terms of a
    group of tokens, added over the positions and divided by the group's p, are its nats for each
    occurrence; weighted by its share of the text, the three groups make the KL again.
    """
    states = source.walk(rows[:, 1:])
    logits, _ = model(rows[:, :-1])
    log_q = torch.log_softmax(logits.double(), dim=-1).flatten(0, 1)
    p = source.transition_probs[states].flatten(0, 1)
    terms = torch.where(p > 0, torch.xlogy(p, p) - p * log_q, torch.zeros_like(p))
    by_token, mass = terms.sum(dim=0), p.sum(dim=0)
    order = frequencies(source).argsort(descending=True)
    groups = order[:FREQUENT], order[FREQUENT:-RARE], order[-RARE:]
    frequent, middle, rare = (float(by_token[g].sum() / mass[g].sum()) for g in groups)
    return Cost(
        kl=float(by_token.sum() / len(p)),
        ece=exact_calibration_error(log_q.exp(), p),
        frequent=frequent, middle=middle, rare=rare,
    )  # fmt: skip


def frequencies(source: GrammarSource) -> Float64[Tensor, " vocab"]:
    """The exact share of each token in the source's text."""
    return (source.visits @ source.transition_probs) / source.visits.sum()


def _floor(
    result: Result,
    model: LSTMLanguageModel,
    source: GrammarSource,
    rows: Int[Tensor, "rows tokens"],
    config: Config,
    *,
    seed: int,
) -> None:
    def note(name: str, smaller: LanguageModel, tensors: dict[str, Tensor]) -> None:
        found = cost(smaller, source, rows)
        for key in ("kl", "ece", "frequent", "middle", "rare"):
            getattr(result, key)[name] = getattr(found, key)
        result.bytes[name] = num_bytes(tensors)

    note("float32", model, plain_tensors(model))
    for bits in config.bits:
        note(f"{bits} bits", quantized(model, bits), quantized_tensors(model, bits))
    training = replace(config.training, steps=config.repair_steps, learning_rate=3e-3)
    ids = training_text(source, training, seed=seed + 1000)  # not the text of the training
    for share in config.shares:
        for kind, masks in (
            ("prune", magnitude_masks(model, share)),
            ("random", random_masks(model, share, generator=make_generator(seed, "masks"))),
        ):
            smaller = pruned(model, masks)
            note(f"{kind} {share:g}", smaller, sparse_tensors(smaller))
            seed_everything(seed)
            repair(smaller, masks, ids, training)
            note(f"{kind} {share:g} repaired", smaller, sparse_tensors(smaller))
    for rank in config.ranks:
        note(f"rank {rank}", truncated(model, rank), low_rank_tensors(model, rank))
    output = model.get_parameter(output_name(model)).detach().double()
    values = torch.linalg.svdvals(output).square()
    result.spectrum = (values / values.sum()).tolist()


# --- distillation --------------------------------------------------------------------------------


class SourceTeacher(LanguageModel):
    """The source as a model: the best teacher there can be."""

    #: Logit of a token that the source forbids; minus infinity would make the KL not a number.
    FORBIDDEN = -30.0

    def __init__(self, source: GrammarSource) -> None:
        super().__init__(source.vocabulary_size)
        self.source = source
        self.logs = source.transition_probs.log().clamp(min=self.FORBIDDEN).float()

    def features(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Int[Tensor, "batch time 1"], State]:
        """The automaton's state after each input."""
        now = self.initial_state(len(inputs)) if state is None else state
        places = []
        for token in inputs.unbind(dim=1):
            now = self.source.transition_states[now, token].clamp(min=0)
            places.append(now)
        return torch.stack(places, dim=1).unsqueeze(-1), now

    def logits(self, features: Int[Tensor, "*batch 1"]) -> Float[Tensor, "*batch vocab"]:
        """Log-probabilities of the next token."""
        return self.logs[features.squeeze(-1)]

    def initial_state(self, batch_size: int) -> Int[Tensor, " batch"]:
        """The start of a text."""
        return torch.zeros(batch_size, dtype=torch.long)


def _distillation(
    result: Result,
    teacher: LSTMLanguageModel,
    source: GrammarSource,
    rows: Int[Tensor, "rows tokens"],
    config: Config,
    *,
    seed: int,
    progress: bool,
) -> None:
    training = replace(config.training, steps=config.student_steps)
    ids = training_text(source, training, seed=seed + 2000)
    share = config.student_size / config.model.hidden_size
    size = replace(
        config.model, hidden_size=config.student_size,
        embedding_size=max(1, round(share * config.model.embedding_size)),
    )  # fmt: skip
    # The student without a teacher is the one whose teacher's part has weight 0.
    teachers: dict[str, tuple[LanguageModel, float]] = {
        "alone": (teacher, 0.0), "teacher": (teacher, 1.0), "source": (SourceTeacher(source), 1.0)
    }  # fmt: skip
    for name, (guide, weight) in tqdm(teachers.items(), disable=not progress, unit="student"):
        seed_everything(seed)
        student = LSTMLanguageModel(size)
        distill(student, guide, ids, training, weight=weight)
        result.student[name] = cost(student, source, rows).kl
        result.student_bytes = num_bytes(plain_tensors(student))


# --- refusals ------------------------------------------------------------------------------------


def safety(result: Result, stages: Stages, config: Config, *, seed: int) -> None:
    """The figures of the safety-trained model, compressed in each way, and of the controls."""
    world, safe, before = stages.world, stages.safe, stages.instructed
    texts = world.documents(400, generator=make_generator(seed, "test documents"))
    test = reply_batch([Example(ids=world.ids(text)) for text in texts], world)

    @torch.no_grad()
    def nats(model: LanguageModel) -> float:
        losses = token_nats(model(test.inputs)[0], test.targets)
        return float(losses.sum() / (test.targets != IGNORE).sum())

    def note(name: str, *models: LanguageModel) -> None:
        for model in models:
            seen, held_out = (ask(model, world, g, "plain") for g in (world.seen, world.held_out))
            others = ask(model, world, world.benign + world.benign_held_out, "plain")
            for figures, value in (
                (result.nats, nats(model)), (result.refusal, seen.refusal),
                (result.leak, seen.leak), (result.refusal_held_out, held_out.refusal),
                (result.benign, others.leak), (result.benign_refused, others.refusal),
            ):  # fmt: skip
                figures[name] = figures.get(name, 0.0) + value / len(models)
            if len(models) > 1:
                result.drawn.setdefault(name, []).append(others.leak - seen.refusal)
        if len(models) > 1:
            drawn = result.drawn[name]
            result.drawn_low[name], result.drawn_high[name] = min(drawn), max(drawn)

    note("instructed", before)
    note("safe", safe)
    for bits in config.safety_bits:
        note(f"{bits} bits", quantized(safe, bits))
        changed, steps = codes_changed(before, safe, bits)
        result.codes_changed[str(bits)], result.step_share[str(bits)] = changed, steps
    for share in config.safety_shares:
        note(f"prune {share:g}", pruned(safe, magnitude_masks(safe, share)))
    goal = result.nats[f"prune {config.matched_share:g}"]
    generator = make_generator(seed, "damage")
    noisy, thinned = [], []
    for _ in range(config.draws):
        noise = {
            name: torch.randn(w.shape, generator=generator) * w.detach().std()
            for name, w in matrices(safe).items()
        }
        ranks = {n: torch.rand(w.shape, generator=generator) for n, w in matrices(safe).items()}
        noisy.append(matched(partial(moved, safe, noise), nats, goal, most=2.0))
        thinned.append(matched(partial(without, safe, ranks), nats, goal, most=1.0))
    note("noise", *noisy)
    note("random", *thinned)
    masks = magnitude_masks(safe, config.matched_share)
    for name, of_change, of_before in (("change", True, False), ("before", False, True)):
        note(name, partly_pruned(before, safe, masks, of_change=of_change, of_before=of_before))
    halves = [random_subset(masks, generator) for _ in range(config.draws)]
    note("random change", *(
        partly_pruned(before, safe, half, of_change=True, of_before=False) for half in halves
    ))  # fmt: skip
    change = {name: old - matrices(safe)[name] for name, old in matrices(before).items()}
    for scale in config.change_scales:
        note(f"change x {scale:g}", moved(safe, change, 1 - scale))
    kept, whole = _squares(safe, before, masks)
    result.removed = {name: 1 - kept[name] / whole[name] for name in whole}
    for start, model in (("", safe), ("before, ", before)):
        for name in ("documents", "examples"):
            repaired = pruned(model, masks)
            repair_of_world(repaired, masks, stages, config, name, seed=seed)
            note(start + name, repaired)


def random_subset(masks: Masks, generator: torch.Generator) -> Masks:
    """Masks that keep as many weights of each matrix as `masks` do, chosen at random."""
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
        for name, mask in masks.items()
    }


def codes_changed(before: LanguageModel, after: LanguageModel, bits: int) -> tuple[float, float]:
    """Share of the matrices' codes that differ between two models; and the mean size of the change
    of a weight, in steps between codes."""
    differ = steps = total = 0.0
    old = matrices(before)
    for name, weights in matrices(after).items():
        one, other = quantize(old[name], bits), quantize(weights, bits)
        differ += float((one.codes != other.codes).sum())
        steps += float(((weights - old[name]).detach().abs() / other.scales).sum())
        total += weights.numel()
    return differ / total, steps / total


@torch.no_grad()
def moved(model: LanguageModel, noise: Masks, scale: float) -> LanguageModel:
    """A copy with `scale` times the noise added to the matrices."""
    made = copy.deepcopy(model)
    for name, weights in matrices(made).items():
        weights.add_(scale * noise[name])
    return made


def without(model: LanguageModel, ranks: Masks, share: float) -> LanguageModel:
    """A copy without the `share` of weights whose ranks in [0, 1) are lowest."""
    return pruned(model, {name: each >= share for name, each in ranks.items()})


def matched(
    damaged: Callable[[float], LanguageModel],
    nats: Callable[[LanguageModel], float],
    goal: float,
    *,
    most: float,
) -> LanguageModel:
    """The model `damaged(scale)` whose loss is `goal`, by bisection between 0 and `most`.

    Where the loss passes the goal more than once, one of these places is found.
    """
    low, high = 0.0, most
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if nats(damaged(middle)) < goal else (low, middle)
    return damaged((low + high) / 2)


@torch.no_grad()
def partly_pruned(
    before: LanguageModel,
    after: LanguageModel,
    masks: Masks,
    *,
    of_change: bool,
    of_before: bool,
) -> LanguageModel:
    """`before` plus the change to `after`, and what `masks` removes taken from one or both."""
    made, old = copy.deepcopy(after), matrices(before)
    for name, weights in matrices(made).items():
        base, change = old[name], weights - old[name]
        kept = masks[name]
        weights.copy_(
            (base * kept if of_before else base) + (change * kept if of_change else change)
        )
    return made


@torch.no_grad()
def _squares(
    after: LanguageModel, before: LanguageModel, masks: Masks
) -> tuple[dict[str, float], dict[str, float]]:
    """Summed squares of the weights and of the change to them, of what masks keep, and of all."""
    kept, whole = {"weights": 0.0, "change": 0.0}, {"weights": 0.0, "change": 0.0}
    old = matrices(before)
    for name, weights in matrices(after).items():
        for kind, values in (("weights", weights), ("change", weights - old[name])):
            kept[kind] += float((values * masks[name]).square().sum())
            whole[kind] += float(values.square().sum())
    return kept, whole


def repair_of_world(
    model: LanguageModel, masks: Masks, stages: Stages, config: Config, texts: str, *, seed: int
) -> None:
    """Repair a pruned model of the world, in place, on "documents" or on "examples" of the safety
    training; what was removed stays at zero."""
    world, size = stages.world, config.world.batch_size
    generator = make_generator(seed, f"repair on {texts}")
    count = config.repair_steps_safety * size
    if texts == "documents":
        found = [
            Example(ids=world.ids(text)) for text in world.documents(count, generator=generator)
        ]
    else:
        pairs = world.safety_examples(count, answered=HELPFUL, generator=generator)
        found = [example(world, prompt, reply) for prompt, reply, _ in pairs]
    training = TrainConfig(steps=config.repair_steps_safety, learning_rate=1e-3, num_streams=size)
    optimizer = make_optimizer(model, training)
    model.train()
    for step in range(config.repair_steps_safety):
        batch = reply_batch(found[step * size : (step + 1) * size], world)
        losses = token_nats(model(batch.inputs)[0], batch.targets)
        rate = learning_rate_at(step, config.repair_steps_safety, training)
        take_step(
            model, optimizer, losses.sum() / (batch.targets != IGNORE).sum(),
            clip_norm=training.clip_norm, learning_rate=rate,
        )  # fmt: skip
        apply_masks(model, masks)
    model.eval()


# --- speed ---------------------------------------------------------------------------------------


def _speed(result: Result, config: Config, *, seed: int, progress: bool) -> None:
    seed_everything(seed)
    model = LSTMLanguageModel(config.timed).eval()
    half = replace(
        config.timed, hidden_size=config.timed.hidden_size // 2,
        embedding_size=config.timed.embedding_size // 2,
    )  # fmt: skip
    variants: dict[str, LSTMLanguageModel] = {
        "copy": copy.deepcopy(model),
        "8 bits": quantized(model, 8),
        "prune 0.9": pruned(model, magnitude_masks(model, 0.9)),
        "rank 32": in_factors(model, 32),
        "half": LSTMLanguageModel(half).eval(),
    }
    with contextlib.suppress(ValueError):  # torch has no int8 kernels on every processor
        variants["int8 kernels"] = int8_kernels(model)
    shapes = {"one": (1, 1), "many": (32, 64)}
    bar = tqdm(total=len(variants) * len(shapes), disable=not progress, unit="comparison")
    for name, variant in variants.items():
        result.memory[name] = held_bytes(variant) / held_bytes(model)
        for shape, (batch, length) in shapes.items():
            inputs = torch.randint(config.timed.vocabulary_size, (batch, length))
            key = f"{name} {shape}"
            result.time[key], result.time_low[key], result.time_high[key] = time_ratio(
                variant, model, inputs, seconds=config.seconds
            )
            bar.update()
    bar.close()


def time_ratio(
    one: LanguageModel, other: LanguageModel, inputs: Int[Tensor, "batch time"], *, seconds: float
) -> tuple[float, float, float]:
    """Time of a pass of `one` divided by that of `other`, median over turns, with its interval.

    In each turn both read the inputs some times, and they take turns in going first. CPU time is
    compared, on one thread, so that what else wants the core counts little.
    """
    pair = one, other
    for model in pair:  # warm-up: the libraries choose kernels and allocate memory
        _seconds(model, inputs, 3)
    slower = max(_seconds(model, inputs, 3) for model in pair)
    passes = max(1, round(TURN_SECONDS / 2 / max(slower, 1e-6)))
    ratios: list[float] = []
    end = time.process_time() + seconds
    while not ratios or time.process_time() < end:
        first = len(ratios) % 2
        spent = {i: _seconds(pair[i], inputs, passes) for i in (first, 1 - first)}
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios), *median_interval(ratios)


@torch.no_grad()
def _seconds(model: LanguageModel, inputs: Int[Tensor, "batch time"], passes: int) -> float:
    """CPU seconds of one pass, over `passes` of them."""
    before = time.process_time()
    for _ in range(passes):
        model(inputs)
    return max(time.process_time() - before, 1e-9) / passes


def held_bytes(model: torch.nn.Module) -> int:
    """Bytes of the model's weights in the form in which it computes."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()
