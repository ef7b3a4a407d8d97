"""Capitals: a closed list that names each country once, and finds a capital as a word."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from companion.sources.capitals import COUNTRIES


def test_each_country_stands_once_with_a_capital_that_is_not_its_own_name() -> None:
    assert len(COUNTRIES) == 83
    assert max(Counter(c.name for c in COUNTRIES).values()) == 1
    assert max(Counter(c.spanish for c in COUNTRIES).values()) == 1
    assert not any(c.named_in(c.with_article) or c.named_in(c.spanish) for c in COUNTRIES)


def test_the_pairs_are_those_that_were_checked_by_hand() -> None:
    """A changed pair must be checked again, and the stored replies measured again."""
    rows = [
        (c.continent, c.name, c.capital, c.spanish, c.spanish_capital)
        for c in sorted(COUNTRIES, key=lambda c: c.name)
    ]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert digest.startswith("adcba274670b4356")


def test_a_capital_is_found_whatever_its_accents_and_size_but_only_as_whole_words() -> None:
    by_name = {c.name: c for c in COUNTRIES}
    assert by_name["Colombia"].named_in("Es BOGOTÁ.")
    assert by_name["Haiti"].named_in("It is Port-au-Prince!")
    assert not by_name["Italy"].named_in("Romania")
    assert not by_name["France"].named_in("comparison")
