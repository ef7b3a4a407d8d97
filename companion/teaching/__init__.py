"""What chapters show and check: pictures that respond, models that run in the page, answers to
exercises, and guesses; and the marking of assignments."""

# fmt: off
from companion.teaching.checks import (
    Mistake, Verdict, check, check_exercise, check_function, check_gradient, check_sampler,
    check_shape, partial_points,
)
from companion.teaching.exercises import EXERCISES, Exercise
from companion.teaching.guesses import Guesses
from companion.teaching.marking import Limits, Mark, Marks, Task, cells_of, mark
from companion.teaching.play import Play
from companion.teaching.widgets import Control, Frame, Picture, explore

__all__ = [
    "EXERCISES", "Control", "Exercise", "Frame", "Guesses", "Limits", "Mark", "Marks", "Mistake",
    "Picture", "Play", "Task", "Verdict", "cells_of", "check", "check_exercise", "check_function",
    "check_gradient", "check_sampler", "check_shape", "explore", "mark", "partial_points",
]
