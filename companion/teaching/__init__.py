"""What chapters show and check: pictures that respond, and answers to exercises."""

# fmt: off
from companion.teaching.checks import Verdict, check, check_exercise, check_function
from companion.teaching.exercises import EXERCISES, Exercise
from companion.teaching.widgets import Control, Frame, Picture, explore

__all__ = [
    "EXERCISES",
    "Control",
    "Exercise",
    "Frame",
    "Picture",
    "Verdict",
    "check",
    "check_exercise",
    "check_function",
    "explore",
]
