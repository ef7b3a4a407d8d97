"""Number words and the numerals they stand for: a task whose every right answer is known.

"forty two thousand seven" = 4 2 0 0 7. The words follow a grammar of a few rules, and whoever knows
the rules for hundreds and for thousands can read their compositions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from companion.batching import IGNORE, Batch, padded

if TYPE_CHECKING:
    from jaxtyping import Int

UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

#: What ends a text, the words, what stands between words and numeral, and the ten digits.
TOKENS: tuple[str, ...] = (
    "<end>", *UNITS, *TENS, "hundred", "thousand", "=", *(str(digit) for digit in range(10)),
)  # fmt: skip
ID_OF = {token: index for index, token in enumerate(TOKENS)}
END_ID = 0

#: Numbers are below this.
LIMIT = 1_000_000


def number_words(number: int) -> list[str]:
    """The English words of a number from 0 to 999,999, without "and".

    >>> " ".join(number_words(42_307))
    'forty two thousand three hundred seven'
    """
    if not 0 <= number < LIMIT:
        raise ValueError(f"number must be between 0 and {LIMIT - 1}, got {number}")
    if number < len(UNITS):
        return [UNITS[number]]
    words = []
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            words += [*number_words(number // size), name]
            number %= size
    if number >= len(UNITS):
        words.append(TENS[number // 10 - 2])
        number %= 10
    return [*words, UNITS[number]] if number else words


def prompt_of(number: int) -> Int[torch.Tensor, " words"]:
    """The ids of its words, and of "="."""
    return torch.tensor([ID_OF[word] for word in [*number_words(number), "="]])


def reply_of(number: int) -> Int[torch.Tensor, " digits"]:
    """The ids of its digits."""
    return torch.tensor([ID_OF[digit] for digit in str(number)])


def numeral_batch(numbers: Sequence[int]) -> Batch:
    """Words, "=", digits of each number as a row; only digits and the end are targets."""
    prompts = [prompt_of(number) for number in numbers]
    rows = [torch.cat([prompt, reply_of(n)]) for prompt, n in zip(prompts, numbers, strict=True)]
    batch = padded(rows, start_id=END_ID, end_id=END_ID)
    targets = batch.targets.clone()
    for row, prompt in enumerate(prompts):
        targets[row, : len(prompt)] = IGNORE
    return Batch(inputs=batch.inputs, targets=targets)
