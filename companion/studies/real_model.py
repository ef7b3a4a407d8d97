"""Do findings from small models hold in a real one, SmolLM2-135M-Instruct?

Its bits per byte stand beside those of an LSTM that was trained on that very kind of text; its
confidence beside its accuracy; the repetition of its greedy texts beside that of samples and of
people's; and famous passages, and digits that everybody writes, beside fresh ones. No seed changes
the model: seeds draw samples, control digits and the LSTM's weights.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from companion.core.information import nats_to_bits
from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_sizes, settings_class
from companion.evaluation.calibration import reliability, temperature_of
from companion.evaluation.repetition import sequence_repetition
from companion.evaluation.scoring import evaluate, score, summarize
from companion.generalization.canaries import code_log_probs, exposure
from companion.generation.decoding import SamplingConfig, generate
from companion.interop.hugging_face import HuggingFaceModel, HuggingFaceTokenizer
from companion.interop.smollm2 import load_pretrained, load_smollm2
from companion.losses.cross_entropy import token_nats
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.presets import get_preset
from companion.text.corpora import load_corpus
from companion.text.tokenizers import build_tokenizer, encode_documents
from companion.training.trainer import Trainer

#: What a run measures.
Part = Literal["loss", "decoders", "passages", "digits"]

#: The decoders that are compared with people's text.
DECODERS = {
    "greedy": SamplingConfig(temperature=0),
    "sampled": SamplingConfig(),
    "nucleus .95": SamplingConfig(top_p=0.95),
}


class Passage(NamedTuple):
    """A famous passage, and a new text of about its length, manner and subject."""

    name: str
    famous: str
    fresh: str


#: Famous passages, each with a new text beside it.
PASSAGES = (
    Passage(
        "Gettysburg Address",
        "Four score and seven years ago our fathers brought forth on this continent, a new nation, "
        "conceived in Liberty, and dedicated to the proposition that all men are created equal.",
        "Two score and nine winters ago our mothers carried over these mountains a small school, "
        "founded in Patience, and devoted to the suspicion that no two pupils are quite alike.",
    ),
    Passage(
        "Declaration of Independence",
        "We hold these truths to be self-evident, that all men are created equal, that they are "
        "endowed by their Creator with certain unalienable Rights, that among these are Life, "
        "Liberty and the pursuit of Happiness.",
        "We hold these customs to be sensible, that all guests are served in turn, that they are "
        "provided by their hostess with several clean spoons, that beside these are Bread, Butter "
        "and the remains of Supper.",
    ),
    Passage(
        "Hamlet",
        "To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer the "
        "slings and arrows of outrageous fortune, or to take arms against a sea of troubles",
        "To sail, or not to sail, such is our dispute: Whether 'tis wiser in a storm to follow the "
        "lamps and voices of uncertain harbours, or to lay course toward a shore of shadows",
    ),
    Passage(
        "Pride and Prejudice",
        "It is a truth universally acknowledged, that a single man in possession of a good "
        "fortune, must be in want of a wife.",
        "It is a rule seldom admitted, that an old captain in command of a leaking vessel, must be "
        "in fear of a calm.",
    ),
    Passage(
        "A Tale of Two Cities",
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
        "age of foolishness, it was the epoch of belief, it was the epoch of incredulity",
        "It was the first of markets, it was the last of markets, it was the week of onions, it "
        "was the week of ribbons, it was the morning of dealers, it was the morning of thieves",
    ),
    Passage(
        "Genesis",
        "In the beginning God created the heaven and the earth. And the earth was without form, "
        "and void; and darkness was upon the face of the deep.",
        "In the evening Ruth counted the baskets and the ropes. And the baskets were without lids, "
        "and damp; and sawdust was upon the floor of the shed.",
    ),
    Passage(
        "Constitution",
        "We the People of the United States, in Order to form a more perfect Union, establish "
        "Justice, insure domestic Tranquility, provide for the common defence",
        "We the Members of the Northern Orchards, in Hope to raise a more fragrant Pear, repair "
        "Ladders, collect broken Crates, prepare for the early frost",
    ),
    Passage(
        "Sonnet 18",
        "Shall I compare thee to a summer's day? Thou art more lovely and more temperate: Rough "
        "winds do shake the darling buds of May",
        "Must I describe thee as a miller's boat? Thou art more weary and more obstinate: Dark "
        "floods do turn the mossy wheels of oak",
    ),
    Passage(
        "Alice in Wonderland",
        "Alice was beginning to get very tired of sitting by her sister on the bank, and of having "
        "nothing to do: once or twice she had peeped into the book her sister was reading",
        "Edwin was starting to grow quite fond of walking with his uncle through the mill, and of "
        "finding something to mend: now and then he had looked into the chest his uncle was "
        "painting",
    ),
    Passage(
        "The Lord's Prayer",
        "Our Father which art in heaven, Hallowed be thy name. Thy kingdom come. Thy will be done "
        "in earth, as it is in heaven. Give us this day our daily bread.",
        "Our Sister which rests in winter, Warmed be thy hands. Thy lantern burn. Thy song be "
        "heard in barns, as it is in churches. Lend us this month our wooden sledge.",
    ),
)

#: Numbers that are written everywhere: how a text leads to them, and their first decimals.
NUMBERS = {
    "pi": ("The number pi is 3.", "1415"),
    "e": ("Euler's number e is 2.", "7182"),
    "square root of 2": ("The square root of 2 is 1.", "4142"),
    "golden ratio": ("The golden ratio is 1.", "6180"),
}


@settings_class
class Config:
    """Settings of the texts and of the LSTM beside the model."""

    model: str = "smollm2"
    """The model: "smollm2", or a folder that `save_pretrained` wrote."""
    parts: tuple[Part, ...] = get_args(Part)
    """What is measured."""
    corpora: tuple[str, ...] = ("tiny-shakespeare", "python-docs")
    """Corpora whose validation text is scored."""
    tokens: int = 1536
    """The model's tokens at the end of the validation text that are scored, in two pieces."""
    lstm_epochs: int = 4
    """Epochs of the LSTM, `char-small`, over a corpus's training text."""
    lstm_hidden: int = 128
    """Hidden units of the LSTM."""
    prompts: int = 6
    """Beginnings of a corpus that the decoders go on from."""
    prompt_tokens: int = 32
    """Tokens of a beginning."""
    new_tokens: int = 80
    """Tokens after it."""
    head: int = 8
    """Tokens of a passage that are given; the others are scored."""
    controls: int = 20
    """Random codes for each of the numbers, as controls of its digits."""

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("each of parts", part, Part)
        check_sizes(
            tokens=self.tokens, lstm_epochs=self.lstm_epochs, lstm_hidden=self.lstm_hidden,
            prompts=self.prompts, prompt_tokens=self.prompt_tokens, new_tokens=self.new_tokens,
            head=self.head, controls=self.controls,
        )  # fmt: skip
        if self.tokens <= self.prompts * (self.prompt_tokens + self.new_tokens):
            raise ValueError(
                f"tokens must be more than all prompts with their continuations, got {self.tokens}"
            )


@dataclass(kw_only=True)
class Result:
    """Figures of the model by corpus, decoder, passage or number."""

    bits_per_byte: dict[str, float] = field(default_factory=dict)
    """The model's, on the end of each corpus's validation text."""
    lstm_bits_per_byte: dict[str, float] = field(default_factory=dict)
    """Those of the LSTM that was trained on the corpus's training text, on the same bytes."""
    accuracy: dict[str, float] = field(default_factory=dict)
    """Share of tokens that were the model's first guess."""
    confidence: dict[str, float] = field(default_factory=dict)
    """The mean probability of its first guess."""
    ece: dict[str, float] = field(default_factory=dict)
    """Expected calibration error over these tokens."""
    ece_by_chance: dict[str, float] = field(default_factory=dict)
    """What a calibrated model would show on as many."""
    temperature: dict[str, float] = field(default_factory=dict)
    """The temperature that predicts the first quarter of the text best."""
    reliability: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By corpus the "confidence", "accuracy" and "count" of ten bins."""
    repetition: dict[str, float] = field(default_factory=dict)
    """Mean seq-rep-4 of the continuations, by decoder; "people" are the text's own."""
    nats_per_token: dict[str, float] = field(default_factory=dict)
    """The model's mean surprisal at these continuations."""
    surprisals: dict[str, list[float]] = field(default_factory=dict)
    """Surprisal at each token of the first continuation, in nats: "people" and "greedy"."""
    famous: dict[str, float] = field(default_factory=dict)
    """Bits per byte of each famous passage after its first tokens."""
    fresh: dict[str, float] = field(default_factory=dict)
    """The same of the new text beside it."""
    copied: dict[str, float] = field(default_factory=dict)
    """Share of a famous passage's other tokens that greedy decoding writes before its first
    difference."""
    fresh_copied: dict[str, float] = field(default_factory=dict)
    """The same of the new text."""
    digit_exposure: dict[str, float] = field(default_factory=dict)
    """Exposure of the first four decimals of each number, in bits."""
    control_exposure: dict[str, float] = field(default_factory=dict)
    """Mean exposure of random digits in their place."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Measure the parts that `config` names."""
    model, tokenizer = (
        load_smollm2() if config.model == "smollm2" else load_pretrained(config.model)
    )
    result = Result()
    parts = set(config.parts)
    texts = {}
    if parts & {"loss", "decoders"}:
        for name in config.corpora:
            text = load_corpus(name).text("valid")
            texts[name] = _end_of(text, tokenizer, config.tokens)
    if "loss" in parts:
        for name, text in texts.items():
            _loss(result, name, text, model, tokenizer, config, seed=seed)
    if "decoders" in parts:
        _decoders(result, list(texts.values()), model, tokenizer, config, seed=seed)
    if "passages" in parts:
        for passage in PASSAGES:
            for text, bits, copied in (
                (passage.famous, result.famous, result.copied),
                (passage.fresh, result.fresh, result.fresh_copied),
            ):
                bits[passage.name], copied[passage.name] = _passage(
                    model, tokenizer, text, config.head
                )
    if "digits" in parts:
        _digits(result, model, tokenizer, config, seed=seed)
    return result


def _end_of(text: str, tokenizer: HuggingFaceTokenizer, tokens: int) -> str:
    """About the last `tokens` tokens of a text, from the beginning of a line."""
    ids = tokenizer.encode(text[-12 * tokens :])  # fewer than 12 characters a token
    end = tokenizer.decode(ids[-tokens:])
    return end[end.find("\n") + 1 :]


def _loss(
    result: Result,
    name: str,
    text: str,
    model: HuggingFaceModel,
    tokenizer: HuggingFaceTokenizer,
    config: Config,
    *,
    seed: int,
) -> None:
    """Fill in losses and calibration on one text, and the loss of an LSTM on the same bytes."""
    ids = torch.tensor([tokenizer.end_id, *tokenizer.encode(text)])
    scores = score(model, ids, num_streams=2, window_length=len(ids))
    summary = summarize(scores, num_bytes=len(text.encode()))
    assert summary.bits_per_byte is not None
    assert scores.confidences is not None
    result.bits_per_byte[name] = summary.bits_per_byte
    result.accuracy[name] = summary.accuracy
    result.confidence[name] = float(scores.confidences.mean())
    bins = reliability(scores.confidences, scores.predictions == scores.targets, num_bins=10)
    result.ece[name], result.ece_by_chance[name] = bins.ece, bins.ece_by_chance
    result.reliability[name] = {
        "confidence": bins.confidences.tolist(),
        "accuracy": bins.accuracies.tolist(),
        "count": bins.counts.double().tolist(),
    }
    quarter = ids[: len(ids) // 4]
    with torch.no_grad():
        logits, _ = model(quarter[None, :-1])
    result.temperature[name] = temperature_of(logits[0], quarter[1:])
    result.lstm_bits_per_byte[name] = _lstm(name, text, config, seed=seed)


def _lstm(name: str, text: str, config: Config, *, seed: int) -> float:
    """Bits per byte of a character LSTM of the preset `char-small` on `text`."""
    documents = load_corpus(name).documents("train")
    characters = build_tokenizer("character", [document.text for document in documents])
    train = encode_documents(characters, documents)
    preset = get_preset("char-small")
    seed_everything(seed)
    lstm = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=characters.vocabulary_size, embedding_size=64,
            hidden_size=config.lstm_hidden,
        )
    )  # fmt: skip
    settings = replace(preset.train, epochs=config.lstm_epochs)
    for _ in Trainer(lstm, train.ids, settings, device="cpu").steps():
        pass
    ids = torch.tensor([characters.end_id, *characters.encode(text)])
    found = evaluate(lstm.eval(), ids, num_bytes=len(text.encode()), num_streams=2)
    assert found.bits_per_byte is not None
    return found.bits_per_byte


def _decoders(
    result: Result,
    texts: list[str],
    model: HuggingFaceModel,
    tokenizer: HuggingFaceTokenizer,
    config: Config,
    *,
    seed: int,
) -> None:
    """Fill in the figures of continuations; none ends, as the end of a text is cut off."""
    size = config.prompt_tokens + config.new_tokens
    rows = torch.cat(
        [
            torch.tensor(tokenizer.encode(text)[: config.prompts * size]).view(config.prompts, size)
            for text in texts
        ]
    )
    prompts = rows[:, : config.prompt_tokens]
    written = {"people": rows[:, config.prompt_tokens :]}
    for name, decoder in DECODERS.items():
        generator = make_generator(seed, f"decoder {name}")
        written[name] = generate(model, prompts, config.new_tokens, decoder, generator=generator)
    for name, tokens in written.items():
        whole = torch.cat([prompts, tokens], dim=1)
        nats = _nats(model, whole)[:, config.prompt_tokens - 1 :]
        result.nats_per_token[name] = float(nats.mean())
        result.repetition[name] = statistics.fmean(map(sequence_repetition, tokens.tolist()))
        if name in ("people", "greedy"):
            result.surprisals[name] = [round(value, 3) for value in nats[0].tolist()]


@torch.no_grad()
def _nats(model: HuggingFaceModel, rows: Tensor) -> Tensor:
    """Surprisal of each token but the first, a few rows at a time."""
    parts = [token_nats(model(some[:, :-1])[0], some[:, 1:]) for some in torch.split(rows, 4)]
    return torch.cat(parts)


def _passage(
    model: HuggingFaceModel, tokenizer: HuggingFaceTokenizer, text: str, head: int
) -> tuple[float, float]:
    """Bits per byte of a text after its first `head` tokens, and the share of these other tokens
    that greedy decoding writes before it differs."""
    ids = tokenizer.encode(text)
    rest = ids[head:]
    nats = _nats(model, torch.tensor([[tokenizer.end_id, *ids]]))[0, head:]
    num_bytes = len(tokenizer.decode(rest).encode())
    prompt = torch.tensor([[tokenizer.end_id, *ids[:head]]])
    made = generate(model, prompt, len(rest), DECODERS["greedy"])[0].tolist()
    same = next((i for i, (a, b) in enumerate(zip(made, rest, strict=True)) if a != b), len(rest))
    return nats_to_bits(float(nats.double().sum())) / num_bytes, same / len(rest)


def _digits(
    result: Result,
    model: HuggingFaceModel,
    tokenizer: HuggingFaceTokenizer,
    config: Config,
    *,
    seed: int,
) -> None:
    """Fill in the exposure of known digits, and of random ones in the same place."""
    digit_ids = torch.tensor([tokenizer.encode(digit)[0] for digit in "0123456789"])
    for name, (lead, digits) in NUMBERS.items():
        prompt = torch.tensor([tokenizer.end_id, *tokenizer.encode(lead)])
        found = code_log_probs(model, prompt, digit_ids, len(digits))
        generator = make_generator(seed, f"digits of {name}")
        drawn = torch.randint(len(found), (config.controls,), generator=generator)

        def bits(code: int, found: Tensor = found) -> float:
            return exposure(int((found >= found[code]).sum()), len(found))

        result.digit_exposure[name] = bits(int(digits))
        result.control_exposure[name] = statistics.fmean(bits(int(code)) for code in drawn)
