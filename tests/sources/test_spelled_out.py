"""Sentences with one right translation: the words, the numerals, and what is drawn."""

import datetime

import pytest

from companion.core.seeds import make_generator
from companion.sources.spelled_out import (
    CURRENCIES,
    LIMIT,
    Meaning,
    chinese_number,
    currency_name,
    draw_meanings,
    number_in_words,
    written,
)

needs_words = pytest.importorskip("num2words")
pytest.importorskip("babel")

LANGUAGES = ("en", "zh", "de", "fr")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "零"), (7, "七"), (10, "十"), (15, "十五"), (20, "二十"), (105, "一百零五"),
        (110, "一百一十"), (1_000, "一千"), (1_010, "一千零一十"), (10_000, "一万"),
        (10_205, "一万零二百零五"), (100_001, "十万零一"), (120_000, "十二万"),
        (205_060, "二十万五千零六十"), (999_999, "九十九万九千九百九十九"),
    ],
)  # fmt: skip
def test_chinese_numerals(number, words):
    assert chinese_number(number) == words


def test_chinese_numerals_are_the_japanese_ones_with_their_zeros_and_ones():
    """num2words knows Japanese, which writes the same digits and places, no zero in a gap, and no
    one before ten, hundred and thousand: an independent reference."""
    for number in (*range(3_000), *range(3_000, LIMIT, 9_973)):
        words = chinese_number(number)
        if number > 9:
            words = words.replace("零", "")
        for place in "十百千":
            words = words.replace(f"一{place}", place)
        assert words == needs_words.num2words(number, lang="ja")


def test_numbers_differ_in_words_wherever_they_differ():
    """Else a sentence would have two right translations."""
    for language in LANGUAGES:
        numbers = [*range(2_000), *range(2_000, LIMIT, 4_999)]
        assert len({number_in_words(n, language) for n in numbers}) == len(numbers)


def test_words_where_languages_have_a_rule_of_their_own():
    assert number_in_words(312, "en") == "three hundred and twelve"
    assert number_in_words(21, "de") == "einundzwanzig"
    assert number_in_words(101_000, "de") == "einhunderteintausend"
    assert number_in_words(80_080, "fr") == "quatre-vingt mille quatre-vingts"
    assert currency_name("CHF", 5, "en") == "Swiss francs"


def test_a_date_is_the_same_day_in_each_language():
    day = datetime.date(1987, 3, 14)
    meaning = Meaning(kind="date", number=day.toordinal())
    assert [written(meaning, language) for language in LANGUAGES] == [
        "Saturday, the fourteenth of March, nineteen eighty-seven",
        "一九八七年三月十四日星期六",
        "Samstag, der vierzehnte März neunzehnhundertsiebenundachtzig",
        "samedi quatorze mars mille neuf cent quatre-vingt-sept",
    ]


def test_an_amount_has_its_currency():
    meaning = Meaning(kind="amount", number=3, currency="CHF")
    assert [written(meaning, language) for language in LANGUAGES] == [
        "three Swiss francs", "三瑞士法郎", "drei Schweizer Franken", "trois francs suisses"
    ]  # fmt: skip


def test_drawn_meanings_differ_and_depend_on_the_generator_alone():
    one = draw_meanings(300, generator=make_generator(5))
    assert one == draw_meanings(300, generator=make_generator(5))
    assert len(set(one)) == 300
    for language in LANGUAGES:
        assert len({written(meaning, language) for meaning in one}) == 300
    kinds = [sum(m.kind == kind for m in one) for kind in ("number", "amount", "date")]
    # 100 expected of each, less numbers of one digit that came twice; standard deviation 8.
    assert all(70 < count < 130 for count in kinds)


def test_drawn_meanings_keep_to_what_was_asked():
    drawn = draw_meanings(
        80, generator=make_generator(0), kinds=("amount",), digits=(3,), currencies=("EUR",)
    )
    assert all(m.kind == "amount" and m.currency == "EUR" for m in drawn)
    assert all(100 <= m.number < 1000 for m in drawn)
    assert not any(m.number % 10 == 1 and m.number % 100 != 11 for m in drawn)


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="between 0 and 999999, got 1000000"):
        number_in_words(LIMIT, "en")
    with pytest.raises(ValueError, match="between 1900-01-01 and 2099-12-31"):
        written(Meaning(kind="date", number=1), "en")
    with pytest.raises(ValueError, match="currency must be one of"):
        currency_name("ABC", 2, "en")
    with pytest.raises(ValueError, match="one choice or more"):
        draw_meanings(3, generator=make_generator(0), kinds=())
    with pytest.raises(ValueError, match="only 10 different meanings of 11"):
        draw_meanings(11, generator=make_generator(0), kinds=("number",), digits=(1,))
    assert len(CURRENCIES) == len(set(CURRENCIES))


def test_a_missing_library_is_named(monkeypatch):
    import companion.sources.spelled_out as spelled_out

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    spelled_out._spoken.cache_clear()
    with pytest.raises(ValueError, match=r"need num2words, which is not installed.*pip install"):
        number_in_words(5, "en")
