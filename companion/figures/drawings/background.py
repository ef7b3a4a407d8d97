"""Drawings of the part "Background"."""

from companion.figures.drawings.canvas import INK, MAIN, OTHER, Canvas
from companion.figures.drawings.catalogue import drawn


@drawn(
    "next-word",
    chapter="language_models",
    height=330,
    alt="""A loop. The text so far, "if the", goes into a language model, which gives every
    possible next word a probability: string 6 %, class 5 %, subject 4 %, function 4 %, all other
    words 81 %. One word is drawn, appended to the text, and the model is asked again.""",
)
def _next_word(c: Canvas) -> None:
    c.text(130, 14, "the text so far")
    c.box(60, 28, 40, 28, "if", tint=0.06)
    c.box(106, 28, 48, 28, "the", tint=0.06)
    c.box(160, 28, 40, 28, "?", color=OTHER, dashed=True, bold=True)
    c.arrow((130, 58), (130, 82))
    c.box(60, 84, 140, 32, "language model", color=MAIN, bold=True)
    c.arrow((130, 116), (130, 140))
    c.text(160, 152, "a probability for every next word")
    words = (("string", 6), ("class", 5), ("subject", 4), ("function", 4))
    for i, (word, percent) in enumerate(words):
        y = 178 + 20 * i
        c.text(112, y, word, anchor="end")
        c.bar(120, y - 7, 16 * percent, 14)
        c.text(126 + 16 * percent, y, f"{percent} %", anchor="start")
    c.text(112, 258, "all others", anchor="end")
    c.text(120, 258, "… 81 %", anchor="start")
    c.arrow((130, 268), (130, 290))
    c.box(60, 292, 140, 30, "draw one word", color=OTHER)
    c.arrow((200, 307), (334, 307), (334, 42), (202, 42), color=OTHER)
    c.text(326, 70, "append it,", "ask again", anchor="end")


@drawn(
    "witten-bell",
    chapter="language_models",
    height=268,
    opens=False,
    alt="""Witten-Bell smoothing for dog after the. The context was seen 3 times, with 2 different
    followers: five events, cat, dog, dog and two marks "new". The share of the marks, 2/5, goes to
    the context without words, which was seen 10 times with 6 different words: 16 events, dog
    twice, eight others, six marks. Their share, 6/16, is divided evenly among the 7 tokens. So
    p(dog) is .179 and p(dog | the) is .471.""",
)
def _witten_bell(c: Canvas) -> None:
    left, width = 10, 340
    c.text(left, 14, "after “the”: 3 words and 2 marks", anchor="start", bold=True)
    step = width / 5
    for i, word in enumerate(("cat", "dog", "dog", "new", "new")):
        chosen = {"dog": MAIN, "new": OTHER}.get(word, INK)
        c.box(
            left + i * step, 26, step, 28, word, radius=0, color=chosen,
            bold=word == "dog", tint=0.04 if word == "cat" else 0.25,
        )  # fmt: skip
    c.arrow((left + 4 * step, 54), (left + 4 * step, 78), color=OTHER)
    c.text(left + 4 * step - 8, 67, "2/5 goes to the shorter context", anchor="end")
    c.text(left, 98, "after anything: 10 words and 6 marks", anchor="start", bold=True)
    step = width / 16
    at = float(left)
    for word, times, color in (("dog", 2, MAIN), ("8 others", 8, INK), ("6 × new", 6, OTHER)):
        c.box(
            at, 110, times * step, 28, word, radius=0, color=color,
            bold=color == MAIN, tint=0.04 if color == INK else 0.25,
        )  # fmt: skip
        at += times * step
    c.arrow((left + 13 * step, 138), (left + 13 * step, 162), color=OTHER)
    c.text(left + 13 * step - 8, 151, "6/16 goes to all tokens alike", anchor="end")
    c.text(left, 182, "any token: 1/7", anchor="start", bold=True)
    step = width / 7
    for i in range(7):
        c.box(
            left + i * step, 194, step, 20, "dog" if i == 0 else "", radius=0,
            color=MAIN if i == 0 else INK, bold=i == 0, tint=0.25 if i == 0 else 0.04,
        )  # fmt: skip
    c.text(180, 234, "p(dog) = (2 + 6 × 1/7) / 16 = .179")
    c.text(180, 254, "p(dog | the) = (2 + 2 × .179) / 5 = .471", bold=True)


@drawn(
    "kneser-ney",
    chapter="language_models",
    height=292,
    opens=False,
    alt="""Kneser-Ney smoothing in the text of ten tokens. For each word, how often it was seen and
    which different words stood before it. dog was seen twice, but only after the; the was seen
    three times, after the start, after saw and after the full stop; the full stop twice, after dog
    and after ran; cat, saw and ran once. Below, the counts after the: of dog's 2 and of cat's 1 the
    discount of 7/9 each is taken and given to words by their numbers of different neighbours.""",
)
def _kneser_ney(c: Canvas) -> None:
    c.text(50, 14, "word", anchor="end", bold=True)
    c.text(62, 14, "seen", anchor="start", bold=True)
    c.text(140, 14, "different words before it", anchor="start", bold=True)
    rows = (
        ("the", 3, ("(start)", "saw", "."), INK),
        ("dog", 2, ("the",), MAIN),
        (".", 2, ("dog", "ran"), INK),
        ("cat", 1, ("the",), INK),
        ("saw", 1, ("cat",), INK),
        ("ran", 1, ("dog",), MAIN),
    )
    for i, (word, times, before, color) in enumerate(rows):
        y = 38 + 25 * i
        c.text(50, y, word, anchor="end", bold=color == MAIN)
        for k in range(times):
            c.bar(62 + 18 * k, y - 7, 15, 14, color=color, fill=0.6)
        for k, other in enumerate(before):
            c.box(140 + 56 * k, y - 10, 50, 20, other, color=color, tint=0.12)
    c.text(180, 190, "dog: seen twice, one word before it, like ran", italic=True)
    c.line((12, 206), (348, 206), width=0.75)
    c.text(10, 226, "after “the”: 7/9 of each count is given away", anchor="start", bold=True)
    for i, (word, times) in enumerate((("dog", 2), ("cat", 1))):
        y = 250 + 25 * i
        c.text(50, y, word, anchor="end")
        kept = 54 * (times - 7 / 9)
        c.bar(62, y - 8, kept, 16, color=MAIN, fill=0.6)
        c.box(62 + kept, y - 8, 54 * 7 / 9, 16, color=OTHER, dashed=True, radius=0)
    c.text(182, 250, "kept for dog: 11/9", anchor="start")
    c.text(182, 275, "given away: 2 × 7/9", anchor="start")


@drawn(
    "two-problems",
    chapter="two_problems",
    height=338,
    alt="""Two nested pairs of boxes. Objective mismatch: the loss asks for reviews like the
    source's, and what the user wants, positive and correct ones, is only a part of these, so the
    trouble remains where the trained loss is low. Mismatched generalization: the inputs that
    training often showed are a part of those met in use, and the trouble lies outside, where the
    trained loss is high.""",
)
def _two_problems(c: Canvas) -> None:
    c.text(180, 14, "Objective mismatch: the wrong measure", bold=True, size=13)
    c.box(12, 30, 336, 96, color=MAIN)
    c.text(180, 46, "the loss asks for reviews like the source’s")
    c.box(90, 62, 180, 52, "the user wants", "positive, correct ones", color=OTHER)
    c.text(180, 142, "The trained loss is low where the trouble is.", italic=True)
    c.line((12, 164), (348, 164), width=0.75)
    c.text(180, 186, "Mismatched generalization: out of reach", bold=True, size=13)
    c.box(12, 202, 336, 96, color=OTHER, dashed=True)
    c.text(180, 218, "inputs that training seldom showed")
    c.box(90, 234, 180, 52, "inputs that training", "often showed", color=MAIN)
    c.text(180, 314, "The trained loss is high where the trouble is.", italic=True)
