"""A small student learns the distributions of a large teacher (Hinton, Vinyals & Dean 2015).

At each position the text says which token came; the teacher says how probable every token was. On
a language model, where each position is a classification, Kim & Rush (2016) call this word-level
distillation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from companion.losses.cross_entropy import summed_nats
from companion.models.base import LanguageModel, State
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class DistillationLoss(nn.Module):
    """The loss of a student beside its teacher, in the form that `Trainer` takes.

    (1 - weight) * cross-entropy + weight * temperature**2 * KL(teacher || student), the KL of both
    distributions at `temperature`. The factor keeps the size of the gradient as the temperature
    changes (Hinton et al. 2015). The teacher reads along: its state goes on from window to window,
    and starts over where the student's does.
    """

    def __init__(
        self,
        student: LanguageModel,
        teacher: LanguageModel,
        *,
        temperature: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_distillation(temperature, weight)
        if student.vocabulary_size != teacher.vocabulary_size:
            raise ValueError(
                f"student and teacher must have the same tokens, got {student.vocabulary_size} and "
                f"{teacher.vocabulary_size}"
            )
        self.student, self.teacher = student, teacher.eval()
        self.temperature, self.weight = temperature, weight
        self.teacher_state: State | None = None

    def forward(
        self,
        inputs: Int[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"],
        state: State | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], State]:
        """The loss to minimise, the student's cross-entropy (detached) and its new state; both
        losses are sums over the window, in nats."""
        if state is None:
            self.teacher_state = None
        logits, state = self.student(inputs, state)
        nats = summed_nats(logits, targets)
        with torch.no_grad():
            goal, self.teacher_state = self.teacher(inputs, self.teacher_state)
            goal = F.log_softmax(goal / self.temperature, dim=-1)
        now = F.log_softmax(logits / self.temperature, dim=-1)
        kl = F.kl_div(now, goal, reduction="sum", log_target=True)
        loss = (1 - self.weight) * nats + self.weight * self.temperature**2 * kl
        return loss, nats.detach(), state


def check_distillation(temperature: float, weight: float) -> None:
    """Raise ValueError for a temperature or a weight that makes no loss."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be in [0, 1], got {weight}")


def distill(
    student: LanguageModel,
    teacher: LanguageModel,
    ids: Int[Tensor, " total"],
    training: TrainConfig,
    *,
    temperature: float = 1.0,
    weight: float = 1.0,
    device: str = "cpu",
    progress: bool = False,
) -> int:
    """Train `student` in place on the text `ids` beside `teacher`; it ends in evaluation mode.

    The caller sets the seed and initialises the student. Returns the number of steps. Raises
    ValueError where the teacher could not read along: `reset_state` starts streams over of which it
    is not told.
    """
    if training.reset_state:
        raise ValueError(
            f"distillation needs reset_state 0, got {training.reset_state}: the teacher is not "
            "told which streams start over"
        )
    loss = DistillationLoss(student, teacher, temperature=temperature, weight=weight)
    trainer = Trainer(student, ids, training, device=device, loss=loss)
    for _ in tqdm(trainer.steps(), total=trainer.total_steps, disable=not progress, unit="step"):
        pass
    student.eval()
    return trainer.total_steps
