"""Drawings of the part "Background"."""

from companion.figures.drawings.canvas import MAIN, OTHER, Canvas
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
