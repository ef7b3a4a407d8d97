"""What chapters show and check: pictures that respond, answers to exercises, and guesses."""

# fmt: off
from companion.teaching.checks import Verdict, check, check_exercise, check_function
from companion.teaching.exercises import EXERCISES, Exercise
from companion.teaching.guesses import Guesses
from companion.teaching.widgets import Control, Frame, Picture, explore

__all__ = [
    "EXERCISES",
    "Control",
    "Exercise",
    "Frame",
    "Guesses",
    "Picture",
    "Verdict",
    "check",
    "check_exercise",
    "check_function",
    "explore",
]
