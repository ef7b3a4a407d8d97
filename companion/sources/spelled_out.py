"""Numbers, amounts and dates in full words, in four languages: every translation is known.

The words are those of num2words (numbers, ordinals and years) and of Babel (names of days, months
and currencies, from the Unicode CLDR). num2words has no Chinese numerals, so they are written here:
a page of rules. One meaning, a number or a date, is written in each language, so each sentence has
exactly one right translation.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch

from companion.core.settings import check_choice, check_sizes

#: Languages, by the names that Babel knows.
Language = Literal["en", "zh", "de", "fr"]

#: Kinds of sentences.
Kind = Literal["number", "amount", "date"]

#: Upper bound of the numbers, exclusive.
LIMIT = 1_000_000

#: Currencies of the amounts.
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF", "CNY", "INR", "KRW", "CAD", "MXN", "TRY", "SEK")

_DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_FIRST_DAY, _LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a sentence says, in no language; `written` says it in one."""

    kind: Kind
    """number, amount or date."""
    number: int
    """The number or the amount; of a date, its ordinal day."""
    currency: str = ""
    """The code of an amount's currency."""


def written(meaning: Meaning, language: Language) -> str:
    """The sentence in words.

    Raises ValueError for another language or kind, a number outside [0, 1,000,000), a day outside
    1900 to 2099, and where num2words or Babel is missing, with what to install.
    """
    check_choice("language", language, Language)
    check_choice("kind", meaning.kind, Kind)
    if meaning.kind == "date":
        return _date(datetime.date.fromordinal(meaning.number), language)
    words = number_in_words(meaning.number, language)
    if meaning.kind == "number":
        return words
    name = currency_name(meaning.currency, meaning.number, language)
    return words + name if language == "zh" else f"{words} {name}"


def number_in_words(number: int, language: Language) -> str:
    """A number below a million as it is said."""
    if not 0 <= number < LIMIT:
        raise ValueError(f"number must be between 0 and {LIMIT - 1}, got {number}")
    if language == "zh":
        return chinese_number(number)
    words = _spoken(number, language, "cardinal")
    # num2words writes "einhunderteinstausend".
    return words.replace("einstausend", "eintausend") if language == "de" else words


def chinese_number(number: int) -> str:
    """A number below 100,000,000 in Chinese numerals: 10,205 is 一万零二百零五.

    Four places make a group; a gap of zeros between other digits is one 零; and ten to nineteen
    begin with 十, where nothing stands before them.
    """
    if not 0 <= number < 10**8:
        raise ValueError(f"number must be between 0 and {10**8 - 1}, got {number}")
    if number < 10:
        return _DIGITS[number]
    high, low = divmod(number, 10_000)
    if high:
        gap = _DIGITS[0] if 0 < low < 1000 else ""
        return chinese_number(high) + "万" + gap + (_group(low) if low else "")
    words = _group(low)
    return words[1:] if words.startswith("一十") else words


def _group(number: int) -> str:
    """A number from 1 to 9,999 by its places: 1,010 is 一千零一十."""
    words, gap = "", False
    for place in (3, 2, 1, 0):
        digit = number // 10**place % 10
        if digit:
            words += (_DIGITS[0] if gap and words else "") + _DIGITS[digit] + _PLACES[place]
        gap = not digit
    return words


def currency_name(code: str, number: int, language: Language) -> str:
    """The currency's name as it follows that number: "Swiss francs", "瑞士法郎"."""
    check_choice("currency", code, CURRENCIES)
    name: str = _library("babel.numbers").get_currency_name(code, count=number, locale=language)
    return name


def draw_meanings(
    n: int,
    *,
    generator: torch.Generator,
    kinds: Sequence[Kind] = ("number", "amount", "date"),
    digits: Sequence[int] = (1, 2, 3, 4, 5, 6),
    currencies: Sequence[str] = CURRENCIES,
) -> list[Meaning]:
    """`n` different meanings: kinds, numbers of digits and currencies with equal probability.

    Amounts do not end in one, except in eleven, where languages differ in how "one" agrees with
    what it counts. Dates are days of 1900 to 2099. Raises ValueError for no kind or digits to draw
    from, and where there are not `n` different meanings to be found.
    """
    check_sizes(n=n)
    if not kinds or not digits or not currencies:
        raise ValueError("kinds, digits and currencies need one choice or more each")
    found: dict[Meaning, None] = {}
    for _ in range(100 * n):
        found[_draw(generator, kinds, digits, currencies)] = None
        if len(found) == n:
            return list(found)
    raise ValueError(
        f"only {len(found)} different meanings of {n} were found; allow more kinds or digits"
    )


def _draw(
    generator: torch.Generator,
    kinds: Sequence[Kind],
    digits: Sequence[int],
    currencies: Sequence[str],
) -> Meaning:
    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    kind = kinds[below(len(kinds))]
    if kind == "date":
        first = _FIRST_DAY.toordinal()
        return Meaning(kind=kind, number=first + below(_LAST_DAY.toordinal() + 1 - first))
    while True:
        places = digits[below(len(digits))]
        low = 10 ** (places - 1) if places > 1 else 0
        number = low + below(10**places - low)
        if kind == "number":
            return Meaning(kind=kind, number=number)
        if number > 1 and (number % 10 != 1 or number % 100 == 11):
            return Meaning(kind=kind, number=number, currency=currencies[below(len(currencies))])


def _date(day: datetime.date, language: Language) -> str:
    if not _FIRST_DAY <= day <= _LAST_DAY:
        raise ValueError(f"a date must be between {_FIRST_DAY} and {_LAST_DAY}, got {day}")
    # Chinese months are numbered; "zh" of Babel calls the third one 三月 already.
    weekday, month = _name(day, "EEEE", language), _name(day, "MMMM", language)
    if language == "zh":
        year = "".join(_DIGITS[int(digit)] for digit in str(day.year))
        return f"{year}年{month}{chinese_number(day.day)}日{weekday}"
    year = _spoken(day.year, language, "year")
    if language == "fr":
        number = _spoken(day.day, language, "ordinal" if day.day == 1 else "cardinal")
        return f"{weekday} {number} {month} {year}"
    ordinal = _spoken(day.day, language, "ordinal")
    if language == "de":
        return f"{weekday}, der {ordinal} {month} {year}"
    return f"{weekday}, the {ordinal} of {month}, {year}"


def _name(day: datetime.date, pattern: str, language: Language) -> str:
    name: str = _library("babel.dates").format_date(day, pattern, locale=language)
    return name


@functools.cache
def _spoken(number: int, language: Language, form: str) -> str:
    words: str = _library("num2words").num2words(number, lang=language, to=form)
    return words


def _library(name: str) -> Any:
    """The module; ValueError, saying what to install, when it is missing."""
    import importlib

    try:
        found: ModuleType = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"numbers in words need {name.partition('.')[0]}, which is not installed; install what "
            "this part needs with: python -m pip install num2words babel"
        ) from error
    return found
