"""What chapters show and check: pictures that respond, models that run in the page, answers to
exercises, and guesses."""

# fmt: off
from companion.teaching.checks import Verdict, check, check_exercise, check_function
from companion.teaching.exercises import EXERCISES, Exercise
from companion.teaching.guesses import Guesses
from companion.teaching.play import Play
from companion.teaching.widgets import Control, Frame, Picture, explore

__all__ = [
    "EXERCISES",
    "Control",
    "Exercise",
    "Frame",
    "Guesses",
    "Picture",
    "Play",
    "Verdict",
    "check",
    "check_exercise",
    "check_function",
    "explore",
]
