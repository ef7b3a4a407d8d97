"""Number words and their numerals: a task in which every right answer is known.

"forty two thousand seven" = 4 2 0 0 7. The words follow a few rules, so the rules for hundreds and
for thousands are enough to read every combination of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from companion.text.batching import IGNORE, Batch, padded
from companion.text.rows import END_ID

if TYPE_CHECKING:
    from jaxtyping import Int

UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

#: The vocabulary: end of text, number words, the separator "=", and the ten digits.
TOKENS: tuple[str, ...] = (
    "<end>", *UNITS, *TENS, "hundred", "thousand", "=", *(str(digit) for digit in range(10)),
)  # fmt: skip
ID_OF = {token: index for index, token in enumerate(TOKENS)}

#: Upper bound of the numbers, exclusive.
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
    """Token ids of the number's words, followed by "="."""
    return torch.tensor([ID_OF[word] for word in [*number_words(number), "="]])


def reply_of(number: int) -> Int[torch.Tensor, " digits"]:
    """Token ids of the number's digits."""
    return torch.tensor([ID_OF[digit] for digit in str(number)])


def numeral_batch(numbers: Sequence[int]) -> Batch:
    """A batch with one row per number: words, "=", digits, end.

    Only the digits and the end token are targets; all other positions are `IGNORE`.
    """
    prompts = [prompt_of(number) for number in numbers]
    rows = [torch.cat([prompt, reply_of(n)]) for prompt, n in zip(prompts, numbers, strict=True)]
    batch = padded(rows, start_id=END_ID, end_id=END_ID)
    targets = batch.targets.clone()
    for row, prompt in enumerate(prompts):
        targets[row, : len(prompt)] = IGNORE
    return Batch(inputs=batch.inputs, targets=targets)
