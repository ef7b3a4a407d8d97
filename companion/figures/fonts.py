"""Fonts for characters that matplotlib's own font lacks: Chinese, Japanese, Korean, emoji, others.

matplotlib draws a box, and warns, for a character that no font of the text has.
`installed_families` finds installed fonts; `legible` writes other characters as code points, such
as U+4E2D.
"""

from __future__ import annotations

from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

#: A character of each script that DejaVu Sans lacks; for Chinese, simplified and traditional.
SAMPLES = "中语語あ가अবਗગதతಕമසไລខကᏣአ🙂𝄞"
#: Preferred fonts, best first; other fonts come after them, those without serifs first.
PREFERRED = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
    "Microsoft YaHei", "Hiragino Sans GB", "WenQuanYi Micro Hei", "Noto Sans CJK JP",
    "Noto Sans JP", "Hiragino Sans", "Yu Gothic", "Apple SD Gothic Neo", "Malgun Gothic",
    "Arial Unicode MS", "Noto Emoji", "Segoe UI Emoji", "Segoe UI Symbol", "Symbola",
)  # fmt: skip


def installed_families() -> list[str]:
    """DejaVu Sans and installed fonts that together have as many of `SAMPLES` as possible."""
    return list(_families(tuple((e.name, str(e.fname)) for e in font_manager.fontManager.ttflist)))


def legible(text: str, *, family: str | list[str] | None = None, weight: Any = "normal") -> str:
    """`text` with characters that no font can show written as code points: `U+4E2D U+6587`.

    Of more than three such characters in a row, it keeps the first three and `…`, so that labels
    stay short. Line feeds are kept. family: font family; by default that in matplotlib's settings.
    """
    families = mpl.rcParams["font.family"] if family is None else family
    if isinstance(families, str):
        families = [families]
    known = frozenset({ord("\n")}).union(*map(_characters, _paths(families, weight)))
    return "".join(
        "".join(signs) if there else _code_points(list(signs))
        for there, signs in groupby(text, lambda sign: ord(sign) in known)
    )


def _code_points(signs: list[str]) -> str:
    return " ".join(f"U+{ord(sign):04X}" for sign in signs[:3]) + "…" * (len(signs) > 3)


def _paths(families: list[str], weight: Any) -> list[str]:
    """The installed font files in which matplotlib looks for a character."""
    found = []
    for family in families:
        wanted = font_manager.FontProperties(family=family, weight=weight)
        try:
            found.append(str(font_manager.findfont(wanted, fallback_to_default=False)))
        except ValueError:
            continue
    return found


@cache
def _families(installed: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    order = {name: place for place, name in enumerate(PREFERRED)}

    def rank(font: tuple[str, str]) -> tuple[int, bool, str]:
        name = font[0]
        return order.get(name, len(order)), "serif" in name.lower() or "Sans" not in name, name

    lacking, chosen = set(SAMPLES), list[str]()
    for name, path in sorted(installed, key=rank):
        # A last-resort font has a box for every character.
        if lacking and "lastresort" not in name.lower().replace(" ", "").replace("-", ""):
            shows = lacking & _samples(path)
            if shows and name not in chosen:
                chosen.append(name)
                lacking -= shows
    return tuple(chosen)


@cache
def _samples(path: str) -> frozenset[str]:
    """The samples for which the font has an outline; a font of coloured bitmaps has no outlines."""
    try:
        font = FT2Font(path)
        font.set_size(12, 72)
        found = [sign for sign in SAMPLES if font.get_char_index(ord(sign))]
        return frozenset(sign for sign in found if font.load_char(ord(sign)).width > 0)
    except (RuntimeError, OSError):  # no outlines, or damaged: treat it as not installed
        return frozenset()


@cache
def _characters(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap()) if Path(path).exists() else frozenset()
