"""Drawings of the part "Mismatched generalization"."""

import math

from companion.figures.drawings.canvas import INK, MAIN, OTHER, Canvas
from companion.figures.drawings.catalogue import drawn


@drawn(
    "below-the-floor",
    chapter="fitting_and_memorizing",
    height=316,
    alt="""Two sketches over the epochs of training. Above, the training loss falls far below the
    floor of its text, which shows memory, while the loss on fresh text falls, turns and rises.
    Below, what the model knows of planted codes: of a code with eight copies it knows almost all
    16.6 bits before the fresh loss turns; a code that it never read stays at chance, 1.4
    bits.""",
)
def _below_the_floor(c: Canvas) -> None:
    left, right, turn = 20.0, 345.0, 152.0
    c.text(left, 14, "loss", anchor="start", bold=True)
    c.graph(lambda x: 148 - 118 * math.exp(-(x - left) / 95), left, right, color=OTHER)
    c.graph(
        lambda x: 30 + 46 * (1 - math.exp(-(x - left) / 52)) - 0.0011 * max(0, x - 120) ** 2,
        left, right, color=MAIN,
    )  # fmt: skip
    c.line((left, 98), (right, 98), dashed=True)
    c.text(right, 85, "floor: the source’s entropy", anchor="end")
    c.text(right, 64, "fresh text", anchor="end")
    c.text(right, 158, "training text: memory", anchor="end")
    c.line((left, 20), (left, 170), (right, 170), width=1)
    for top, bottom in ((78, 182), (208, 292)):
        c.line((turn, top), (turn, bottom), dashed=True, width=1, color=MAIN)
    c.text(left, 196, "bits known of a code", anchor="start", bold=True)
    c.line((left, 204), (left, 294), (right, 294), width=1)
    c.graph(
        lambda x: 282 - 62 / (1 + math.exp(-(x - 98) / 13)), left, right, color=OTHER,
    )  # fmt: skip
    c.graph(lambda x: 283, left, right, color=INK)
    c.text(right, 208, "8 copies: almost 16.6 bits", anchor="end")
    c.text(right, 270, "no copy: chance, 1.4 bits", anchor="end")
    c.text(turn, 306, "fresh loss lowest")


@drawn(
    "loss-parts",
    chapter="distribution_shift",
    height=244,
    alt="""A source moves: from the old source the new text departs. A model that learned the old
    source pays three parts on the new text: the entropy of the new source, which every model
    pays; the KL from the new to the old source, which a perfect model of the old source pays too;
    and its own error, its difference from the old source at the places where the new text
    leads.""",
)
def _loss_parts(c: Canvas) -> None:
    c.circle(64, 48, 34, "old", "source")
    c.circle(284, 48, 34, "new", "source", color=OTHER)
    c.arrow((102, 38), (246, 38), color=OTHER, width=2.5)
    c.text(174, 24, "the source moves")
    c.line((100, 60), (248, 60), color=OTHER, dashed=True)
    c.text(174, 74, "unavoidable")
    c.box(30, 112, 68, 28, "model", color=MAIN, bold=True)
    c.line((64, 84), (64, 110), color=MAIN, dashed=True)
    c.text(74, 98, "own error", anchor="start")
    c.text(12, 162, "its loss on new text:", anchor="start", bold=True)
    y = 174
    c.box(12, y, 140, 30, "entropy", radius=0)
    c.box(152, y, 100, 30, "unavoidable", color=OTHER, tint=0.2, radius=0)
    c.box(252, y, 96, 30, "own error", color=MAIN, tint=0.2, radius=0)
    c.text(82, y + 48, "every model", "pays it")
    c.text(202, y + 48, "KL from new", "to old source")
    c.text(300, y + 48, "model against", "old source")


@drawn(
    "notice-and-adapt",
    chapter="detecting_and_adapting",
    height=322,
    alt="""Two questions. Can a model notice strange text? On a scale of surprisal Shakespeare
    lies above the familiar text and is noticed; blanks and the model's own loops lie below it and
    are missed. Can it adapt? Trained further on new text alone it goes from the old source all
    the way to the new one; with old text mixed in it stops between: it keeps more and gains
    less.""",
)
def _notice_and_adapt(c: Canvas) -> None:
    c.text(12, 16, "Does it notice strange text?", anchor="start", bold=True, size=13)
    c.text(62, 44, "missed")
    c.text(288, 44, "noticed")
    c.box(12, 58, 100, 40, "blanks, loops", "of its own", color=OTHER, dashed=True)
    c.box(124, 58, 96, 40, "familiar", "text")
    c.box(232, 58, 112, 40, "Shakespeare", color=MAIN)
    c.arrow((12, 108), (350, 108))
    c.text(350, 122, "surprisal", anchor="end")
    c.line((12, 144), (348, 144), width=0.75)
    c.text(12, 166, "Does it adapt to a little new text?", anchor="start", bold=True, size=13)
    c.circle(42, 242, 34, "old", "source")
    c.circle(318, 242, 34, "new", "source", color=OTHER)
    c.box(84, 228, 62, 28, "model", bold=True, color=MAIN)
    c.arrow((146, 242), (282, 242), color=OTHER, width=2.5)
    c.text(214, 228, "new text alone")
    c.arrow((115, 258), (115, 276), (210, 276), color=MAIN, width=2.5)
    c.text(162, 290, "old text mixed in:")
    c.text(162, 306, "keeps more, gains less")


@drawn(
    "composition-table",
    chapter="length_and_composition",
    height=344,
    alt="""A table of numbers, the thousands down and the rest across. The row without thousands,
    with three hundred seven, and the column of whole thousands, with forty two thousand, are
    in training. The inside of the table is not. There lies forty two thousand three hundred seven,
    every part of which is known.""",
)
def _composition_table(c: Canvas) -> None:
    left, top, step = 118.0, 54.0, 32.0
    thousands = ("0", "1", "…", "42", "…", "999")
    rests = ("0", "1", "…", "307", "…", "999")
    c.text(left + 3 * step, 14, "the rest", bold=True)
    c.text(12, top + 16, "thousands", anchor="start", bold=True)
    for k in range(6):
        c.text(left + step * (k + 0.5), 40, rests[k])
        c.text(left - 8, top + step * (k + 0.5), thousands[k], anchor="end")
    for i in range(6):
        for j in range(6):
            asked = (i, j) == (3, 3)
            if i == j == 0:
                color, tint = INK, 0.04
            elif i == 0 or j == 0:
                color, tint = MAIN, 0.4
            else:
                color, tint = OTHER, 0.45 if asked else 0.06
            if (i, j) in ((0, 3), (3, 0)):
                tint = 0.75
            c.box(
                left + step * j, top + step * i, step, step, "?" if asked else "",
                color=color, tint=tint, bold=asked, radius=0,
            )  # fmt: skip
    c.box(12, 262, 18, 18, color=MAIN, tint=0.4, radius=0)
    c.text(38, 271, "in training:", anchor="start")
    c.text(38, 287, "“forty two thousand”, “three hundred seven”", anchor="start")
    c.box(12, 306, 18, 18, color=OTHER, tint=0.06, radius=0)
    c.text(38, 315, "never in training:", anchor="start")
    c.text(38, 331, "“forty two thousand three hundred seven”", anchor="start")


@drawn(
    "two-paths",
    chapter="safety_generalization",
    height=288,
    alt="""The same question takes two paths. Asked in the plain language, about a florb, it meets
    the refusal, which safety examples in the plain language have taught, and is refused. Encoded,
    it passes beside the refusal, which stops at the border of the language, and is answered with
    what the model knows in both languages.""",
)
def _two_paths(c: Canvas) -> None:
    c.text(72, 14, "plain", bold=True)
    c.text(280, 14, "encoded", bold=True)
    c.box(8, 28, 128, 44, "what does a", "florb need ?", color=MAIN)
    c.box(216, 28, 128, 44, "jung qbrf n", "sybeo arrq ?", color=OTHER)
    c.arrow((72, 74), (72, 98), color=MAIN, width=2.5)
    c.box(8, 100, 336, 44, tint=0.06)
    c.text(176, 122, "documents, instructions: knows the answer")
    c.arrow((72, 146), (72, 174), color=MAIN, width=2.5)
    c.arrow((280, 74), (280, 98), color=OTHER, width=2.5)
    c.arrow((280, 146), (280, 234), color=OTHER, width=2.5)
    c.box(8, 176, 196, 38, "the refusal: safety", "examples, plain only", color=MAIN, tint=0.3)
    c.arrow((72, 216), (72, 234), color=MAIN, width=2.5)
    c.box(8, 236, 128, 40, "refused", color=MAIN, bold=True)
    c.box(216, 236, 128, 40, "answered", color=OTHER, bold=True)


@drawn(
    "coverage",
    chapter="closing_the_gap",
    height=294,
    alt="""A table of ways to ask: three languages down; asked simply, with a demand, and with the
    reply begun across. The safety data called "all" have the plain row, and in the second
    language the simple question; most of these are refused. An encoded question whose reply has
    begun, and a simple one in the third language, are not in these data and are not refused. The
    others were not tested.""",
)
def _coverage(c: Canvas) -> None:
    left, top, width, height = 88, 56, 88, 44
    for j, name in enumerate((("asked", "simply"), ("with a", "demand"), ("reply", "begun"))):
        c.text(left + width * (j + 0.5), 30, *name)
    table = (
        ("refused", "refused", "refused"),
        ("refused", "", "not refused"),
        ("not refused", "", ""),
    )
    for i, (language, row) in enumerate(zip(("plain", "encoded", "third"), table, strict=True)):
        y = top + (height + 6) * i
        c.text(left - 8, y + height / 2, language, anchor="end", bold=True)
        for j, word in enumerate(row):
            covered = word == "refused"
            c.box(
                left + width * j + 3, y, width - 6, height, *word.split(), dashed=not covered,
                color=MAIN if covered else OTHER, tint=0.3 if covered else 0.04,
            )  # fmt: skip
    c.box(12, 218, 28, 18, color=MAIN, tint=0.3)
    c.text(48, 227, "in the safety data “all”", anchor="start")
    c.box(12, 244, 28, 18, color=OTHER, dashed=True, tint=0.04)
    c.text(48, 253, "not in these data (empty: not tested)", anchor="start")
    c.text(12, 280, "What the data lack was not refused, if tested.", anchor="start", italic=True)
