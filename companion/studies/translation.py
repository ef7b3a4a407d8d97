"""What does attention give a translator, and what do likelihood, beams and small data take away?

Numbers, amounts and dates in words are translated from English (`companion.sources.spelled_out`):
each sentence has one right translation, so exact match is the truth and not a reference's whim. A
translator with attention is compared with the same one without, by the number of training pairs, on
longer sentences than it was trained on, and on words that it met a few times. Then a share of the
training targets is cut off after their first token, as a careless alignment of real text would, and
beam search looks for the most probable translation of such a model.

At last a translator learns from the message catalogue of a real program, some 650 pairs, and is
compared with copying the source and with looking up the nearest known message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from tqdm import tqdm

from companion.core.runtime import cpu_seconds
from companion.core.seeds import make_generator
from companion.core.settings import check_choice, check_sizes, settings_class
from companion.evaluation.translation import exact_match, look_up, pair_nats, score_translations
from companion.generation.translation import Translator
from companion.models.seq2seq import Attention
from companion.sources.spelled_out import CURRENCIES, Language, Meaning, draw_meanings, written
from companion.text.parallel import Pair, read_catalogue, split_pairs
from companion.text.tokenizers import BPETokenizer, Tokenizer, build_tokenizer
from companion.training.translation import TranslationConfig, train_translator

#: What a run measures, beside the main translator.
Part = Literal["attention", "doses", "rare", "lengths", "beams", "catalogue"]

#: How each language is cut into tokens: German writes a number in one word.
TOKENS = {"en": "word", "fr": "word", "zh": "character", "de": "character"}

#: Tokens of the longest translation that is searched for.
LONGEST = 100


@settings_class
class Config:
    """Settings of the sentences, the translators and the searches."""

    parts: tuple[Part, ...] = ("attention", "doses", "rare", "catalogue")
    """What is measured beside the main translator: the controls of its "attention", fewer pairs,
    rare words, and the real catalogue; or its mismatches, "lengths" and "beams"."""
    target: Language = "zh"
    """Language that is translated to, from English."""
    num_pairs: int = 4000
    """Training pairs of the translators that are not measured by dose."""
    doses: tuple[int, ...] = (250, 1000)
    """Smaller numbers of training pairs; all are trained for the same number of steps."""
    num_test: int = 400
    """Test sentences of each kind of test."""
    translator: TranslationConfig = TranslationConfig(
        embedding_size=48, hidden_size=96, steps=800, learning_rate=1e-2, dropout=0.1
    )
    """The translator of sentences, with attention."""
    controls: tuple[Attention, ...] = ("uniform", "none")
    """Kinds of attention of the translators that are compared with it."""
    short_digits: int = 4
    """Digits of the longest training number of the translator that is tested on longer ones."""
    rare_counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Training sentences with each of the rare currencies, one currency for each count."""
    noise: float = 0.35
    """Share of the noisy translator's training targets that are cut off after their first token."""
    noisy_pairs: int = 1000
    """Training pairs of the noisy translator."""
    widths: tuple[int, ...] = (1, 2, 4, 10)
    """Beam widths."""
    penalties: tuple[float, ...] = (0.0, 1.0)
    """Length penalties of the searches; 0 ranks by probability, 1 by nats per token."""
    num_searches: int = 40
    """Test sentences that are searched for."""
    catalogue: str = "de"
    """Language of the real catalogue that is translated to."""
    catalogue_translator: TranslationConfig = TranslationConfig(
        embedding_size=48, hidden_size=96, steps=800, batch_size=32, learning_rate=1e-2, dropout=0.3
    )
    """The translator of the catalogue."""
    catalogue_tokens: int = 800
    """Byte-pair pieces of each side of the catalogue."""

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("each of parts", part, Part)
        check_choice("target", self.target, Language)
        check_sizes(
            num_pairs=self.num_pairs, num_test=self.num_test, noisy_pairs=self.noisy_pairs,
            num_searches=self.num_searches, catalogue_tokens=self.catalogue_tokens,
        )  # fmt: skip
        if any(not 1 <= dose <= self.num_pairs for dose in self.doses):
            raise ValueError(
                f"doses must be between 1 and num_pairs = {self.num_pairs}, got {self.doses}"
            )
        if not 1 <= self.noisy_pairs <= self.num_pairs:
            raise ValueError(
                f"noisy_pairs must be between 1 and num_pairs = {self.num_pairs}, "
                f"got {self.noisy_pairs}"
            )
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must be in [0, 1), got {self.noise}")
        if not 1 <= self.short_digits <= 5:
            raise ValueError(f"short_digits must be between 1 and 5, got {self.short_digits}")
        if len(set(self.rare_counts)) < len(self.rare_counts):
            raise ValueError(f"rare_counts must be different, got {self.rare_counts}")
        if len(self.rare_counts) > len(CURRENCIES) - 2:
            raise ValueError(
                f"there are {len(CURRENCIES)} currencies, of which two must be common, got "
                f"{len(self.rare_counts)} rare counts"
            )


@dataclass(kw_only=True)
class Result:
    """Shares of test sentences, and losses, by translator: "attention" is the main one, "uniform"
    and "none" are the controls, "250" and so on the doses, "noisy" has the cut targets."""

    exact: dict[str, float] = field(default_factory=dict)
    """Share of unseen test sentences translated exactly right, greedily."""
    nats_per_token: dict[str, float] = field(default_factory=dict)
    """Mean surprisal of the right translations, in nats per target token."""
    sampled: dict[str, float] = field(default_factory=dict)
    """Expected share right of one sample from the model: the mean probability of the right
    translation."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Trainable parameters of the main translator and of its controls."""
    train_seconds: float = 0.0
    """CPU seconds of the main translator's training and test."""
    by_kind: dict[str, float] = field(default_factory=dict)
    """The main translator's share right by kind of sentence."""
    by_digits: dict[str, float] = field(default_factory=dict)
    """Share right of unseen numbers by number of digits, "3" to "6", of a translator trained on
    numbers of at most `short_digits` digits."""
    by_digits_all: dict[str, float] = field(default_factory=dict)
    """The control: the same of the main translator, which was trained on all lengths."""
    rare: dict[str, float] = field(default_factory=dict)
    """The main translator's share right of amounts, by how often their currency was met in
    training; "common" are the common currencies."""
    rare_currency: dict[str, float] = field(default_factory=dict)
    """Share of these translations that end in the right currency, whatever the number."""
    beam_exact: dict[str, float] = field(default_factory=dict)
    """Share right of the noisy translator's best hypothesis, by penalty and width: "0 10"."""
    beam_ratio: dict[str, float] = field(default_factory=dict)
    """Characters of these translations divided by those of the right ones."""
    beam_nats: dict[str, float] = field(default_factory=dict)
    """Mean of -log p(found | source) of these translations, in nats."""
    clean_exact: dict[str, float] = field(default_factory=dict)
    """The control: share right of the main translator's best hypothesis without penalty, by
    width."""
    clean_ratio: dict[str, float] = field(default_factory=dict)
    """Characters of these translations divided by those of the right ones."""
    catalogue_bleu: dict[str, float] = field(default_factory=dict)
    """BLEU on the catalogue's unseen messages: "translator", "copy" of the source, and "look-up" of
    the nearest known message."""
    catalogue_chrf: dict[str, float] = field(default_factory=dict)
    """chrF of the same."""
    catalogue_low: dict[str, float] = field(default_factory=dict)
    """Lower end of the 95 % interval of BLEU over messages."""
    catalogue_high: dict[str, float] = field(default_factory=dict)
    """Upper end of it."""
    catalogue_exact: dict[str, float] = field(default_factory=dict)
    """Share of unseen messages that are exactly the catalogue's; "trained on" is the translator's
    share of an equal number of its training messages."""
    catalogue_pairs: dict[str, int] = field(default_factory=dict)
    """Pairs of the catalogue's training and test split."""
    signature: dict[str, str] = field(default_factory=dict)
    """sacrebleu's signatures of "BLEU" and "chrF"."""


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Training and test pairs of one seed."""

    train: list[Pair]
    """Training pairs of the main translator, in random order."""
    test: list[Pair]
    """Unseen sentences of the same kinds."""
    kinds: list[str]
    """The kind of each test sentence."""
    by_digits: dict[str, list[Pair]]
    """Unseen numbers by number of digits."""
    short: list[Pair]
    """The training pairs without longer numbers and amounts, and as many others in their place."""
    rare: dict[str, list[Pair]]
    """Unseen amounts by how often their currency occurs in training."""
    currency: dict[str, str]
    """The currency's name in the target language of each of these."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train every translator and test it on unseen sentences."""
    result = Result()
    parts = {part: part in config.parts for part in get_args(Part)}
    bar = tqdm(
        total=1 + parts["attention"] * len(config.controls) + parts["doses"] * len(config.doses)
        + parts["lengths"] + parts["beams"] + parts["catalogue"],
        disable=not progress, unit="translator",
    )  # fmt: skip
    data = sentences(config, seed=seed)
    everything = [*data.train, *data.short]
    tokenizers = (
        build_tokenizer("word", [pair.source for pair in everything]),
        build_tokenizer(TOKENS[config.target], [pair.target for pair in everything]),
    )

    def learnt(pairs: Sequence[Pair], attention: Attention | None = None) -> Translator:
        settings = replace(config.translator, attention=attention or config.translator.attention)
        made = train_translator(
            pairs, settings, source=tokenizers[0], target=tokenizers[1], seed=seed
        )
        bar.update()
        return made

    before = cpu_seconds()
    main = learnt(data.train)
    _judge(result, "attention", main, data.test)
    result.train_seconds = cpu_seconds() - before
    result.parameters["attention"] = main.model.num_parameters
    right = _right(main, data.test)
    for kind in dict.fromkeys(data.kinds):
        of_kind = [r for r, k in zip(right, data.kinds, strict=True) if k == kind]
        result.by_kind[kind] = sum(of_kind) / len(of_kind)
    if parts["rare"]:
        _rare(result, main, data)
    if parts["attention"]:
        for kind in config.controls:
            control = learnt(data.train, attention=kind)
            _judge(result, kind, control, data.test)
            result.parameters[kind] = control.model.num_parameters
    if parts["doses"]:
        for dose in config.doses:
            _judge(result, str(dose), learnt(data.train[:dose]), data.test)
    if parts["lengths"]:
        shorter = learnt(data.short)
        for digits, pairs in data.by_digits.items():
            result.by_digits[digits] = sum(_right(shorter, pairs)) / len(pairs)
            result.by_digits_all[digits] = sum(_right(main, pairs)) / len(pairs)
    if parts["beams"]:
        noisy = learnt(cut_targets(data.train[: config.noisy_pairs], config.noise, seed=seed))
        _judge(result, "noisy", noisy, data.test)
        _beams(result, main, noisy, data.test[: config.num_searches], config)
    if parts["catalogue"]:
        _catalogue(result, config, seed=seed)
        bar.update()
    bar.close()
    return result


def sentences(config: Config, *, seed: int) -> Sentences:
    """The sentences of one seed; no test sentence is one of the training sentences."""
    generator = make_generator(seed, "sentences")
    order = torch.randperm(len(CURRENCIES), generator=generator).tolist()
    names = [CURRENCIES[i] for i in order]
    counts = config.rare_counts
    rare, common = names[: len(counts)], names[len(counts) :]
    per_digit = max(1, config.num_test // 4)
    drawn = draw_meanings(
        config.num_pairs + config.num_test, generator=generator, currencies=common
    )
    train, test = drawn[: config.num_pairs], drawn[config.num_pairs :]
    planted: list[Meaning] = []
    unseen: dict[str, list[Meaning]] = {}
    for currency, count in zip(rare, counts, strict=True):
        amounts = draw_meanings(
            count + per_digit, generator=generator, kinds=("amount",), currencies=(currency,)
        )
        planted += amounts[:count]
        unseen[str(count)] = amounts[count:]
    # In the place of as many others, so that the number of pairs stays the same.
    train = [*train[: config.num_pairs - len(planted)], *planted]
    train = [train[i] for i in torch.randperm(len(train), generator=generator).tolist()]
    seen = {*train, *test}
    unseen["common"] = [m for m in test if m.kind == "amount"]
    by_digits = {}
    for digits in range(3, 7):
        many = min(700, 8 * per_digit)  # more than are tested, as some stand in training
        numbers = draw_meanings(many, generator=generator, kinds=("number",), digits=(digits,))
        by_digits[str(digits)] = [m for m in numbers if m not in seen][:per_digit]
    few_digits = range(1, config.short_digits + 1)
    more = draw_meanings(config.num_pairs, generator=generator, digits=few_digits)
    taken = {*test, *(m for some in by_digits.values() for m in some)}
    limit = 10**config.short_digits
    short = [m for m in train if m.kind == "date" or m.number < limit]
    known = {*short, *taken}
    short += [m for m in more if m not in known][: config.num_pairs - len(short)]

    def pairs(meanings: Sequence[Meaning]) -> list[Pair]:
        return [Pair(written(m, "en"), written(m, config.target)) for m in meanings]

    return Sentences(
        train=pairs(train),
        test=pairs(test),
        kinds=[meaning.kind for meaning in test],
        by_digits={name: pairs(some) for name, some in by_digits.items() if some},
        short=pairs(short),
        rare={name: pairs(some) for name, some in unseen.items() if some},
        currency={
            str(count): written(
                Meaning(kind="amount", number=2, currency=code), config.target
            ).removeprefix(written(Meaning(kind="number", number=2), config.target)).strip()
            for code, count in zip(rare, counts, strict=True)
        },
    )  # fmt: skip


def cut_targets(pairs: Sequence[Pair], share: float, *, seed: int) -> list[Pair]:
    """The pairs, of which about that share has only the first character of its target, or its first
    word where words have spaces between them."""
    generator = make_generator(seed, "cut targets")
    cut = (torch.rand(len(pairs), generator=generator) < share).tolist()
    return [
        Pair(pair.source, _first(pair.target)) if short else pair
        for pair, short in zip(pairs, cut, strict=True)
    ]


def _first(text: str) -> str:
    return text.split()[0] if " " in text else text[0]


def _rare(result: Result, main: Translator, data: Sentences) -> None:
    """Fill in the figures of rare words."""
    for name, pairs in data.rare.items():
        found = main.translate([pair.source for pair in pairs], max_tokens=LONGEST)
        result.rare[name] = exact_match(found, [pair.target for pair in pairs])
        if name in data.currency:
            ends = [text.endswith(data.currency[name]) for text in found]
            result.rare_currency[name] = sum(ends) / len(ends)


def _beams(
    result: Result, main: Translator, noisy: Translator, pairs: Sequence[Pair], config: Config
) -> None:
    """Fill in the figures of beam search."""
    right = [pair.target for pair in pairs]
    for width in config.widths:
        for penalty in config.penalties:
            name = f"{penalty:g} {width}"
            found, nats = _searched(noisy, pairs, width, penalty)
            result.beam_exact[name] = exact_match(found, right)
            result.beam_ratio[name] = _length_ratio(found, pairs)
            result.beam_nats[name] = nats
        found, _ = _searched(main, pairs, width, 0.0)
        result.clean_exact[str(width)] = exact_match(found, right)
        result.clean_ratio[str(width)] = _length_ratio(found, pairs)


def _judge(result: Result, name: str, translator: Translator, pairs: Sequence[Pair]) -> None:
    nats, tokens = pair_nats(translator, pairs)
    result.exact[name] = sum(_right(translator, pairs)) / len(pairs)
    result.nats_per_token[name] = float(nats.sum() / tokens.sum())
    result.sampled[name] = float((-nats).exp().mean())


def _right(translator: Translator, pairs: Sequence[Pair]) -> list[bool]:
    found = translator.translate([pair.source for pair in pairs], max_tokens=LONGEST)
    return [text == pair.target for text, pair in zip(found, pairs, strict=True)]


def _searched(
    translator: Translator, pairs: Sequence[Pair], width: int, penalty: float
) -> tuple[list[str], float]:
    """The best hypothesis of each source, and the mean of its surprisal in nats."""
    best = [
        translator.search(
            pair.source, width=width, length_penalty=penalty, max_tokens=LONGEST
        )[0]
        for pair in pairs
    ]  # fmt: skip
    return [each.text for each in best], -sum(each.log_prob for each in best) / len(best)


def _length_ratio(found: Sequence[str], pairs: Sequence[Pair]) -> float:
    return sum(map(len, found)) / sum(len(pair.target) for pair in pairs)


def _catalogue(result: Result, config: Config, *, seed: int) -> None:
    """Fill in the figures of the real catalogue."""
    parts = split_pairs(read_catalogue("django", config.catalogue))
    size = config.catalogue_tokens
    tokenizers: list[Tokenizer] = [
        BPETokenizer.fit(texts, vocabulary_size=size)
        for texts in ([p.source for p in parts.train], [p.target for p in parts.train])
    ]
    translator = train_translator(
        parts.train, config.catalogue_translator,
        source=tokenizers[0], target=tokenizers[1], seed=seed,
    )  # fmt: skip
    sources = [pair.source for pair in parts.test]
    references = [pair.target for pair in parts.test]
    systems = {
        "translator": translator.translate(sources),
        "copy": sources,
        "look-up": look_up(parts.train, sources),
    }
    tokenize = "zh" if config.catalogue.startswith("zh") else "13a"
    for name, texts in systems.items():
        scores = score_translations(texts, references, tokenize=tokenize)
        result.catalogue_bleu[name] = scores.bleu.score
        result.catalogue_chrf[name] = scores.chrf.score
        result.catalogue_low[name] = scores.bleu.low
        result.catalogue_high[name] = scores.bleu.high
        result.catalogue_exact[name] = scores.exact_match
        result.signature = {"BLEU": scores.bleu.signature, "chrF": scores.chrf.signature}
    known = parts.train[: len(parts.test)]
    result.catalogue_exact["trained on"] = sum(_right(translator, known)) / len(known)
    result.catalogue_pairs = {"train": len(parts.train), "test": len(parts.test)}
