"""Distillation: the loss, its gradient, and a teacher that reads along."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from companion.compression.distillation import DistillationLoss, distill
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training.config import TrainConfig
from companion.training.trainer import train


def model(hidden: int, seed: int = 0, **changes: object) -> LSTMLanguageModel:
    torch.manual_seed(seed)
    settings = {"vocabulary_size": 12, "embedding_size": 6, "hidden_size": hidden, **changes}
    return LSTMLanguageModel(LSTMConfig(**settings))


IDS = torch.randint(12, (600,), generator=torch.Generator().manual_seed(1))
TRAINING = TrainConfig(steps=4, num_streams=4, window_length=8)


def test_the_loss_is_the_sum_of_both_parts_worked_out() -> None:
    student, teacher = model(8), model(16, seed=1)
    inputs, targets = IDS[:20].view(2, 10), IDS[20:40].view(2, 10)
    loss = DistillationLoss(student, teacher, temperature=2.0, weight=0.3)
    found, nats, _ = loss(inputs, targets, None)
    mine, theirs = student(inputs)[0], teacher(inputs)[0]
    text = F.cross_entropy(mine.flatten(0, 1), targets.flatten(), reduction="sum")
    p, q = (torch.softmax(logits / 2, dim=-1) for logits in (theirs, mine))
    kl = (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(found, 0.7 * text + 0.3 * 4 * kl)
    torch.testing.assert_close(nats, text.detach())


def test_the_gradient_reaches_the_student_alone() -> None:
    student, teacher = model(8), model(16, seed=1)
    loss, _, _ = DistillationLoss(student, teacher)(IDS[None, :9], IDS[None, 1:10], None)
    loss.backward()
    assert all(each.grad is not None for each in student.parameters())
    assert all(each.grad is None for each in teacher.parameters())


def test_a_student_like_its_teacher_has_no_loss_from_it() -> None:
    student, teacher = model(8), model(8)
    loss, _, _ = DistillationLoss(student, teacher)(IDS[None, :9], IDS[None, 1:10], None)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)


def test_the_teacher_reads_on_from_window_to_window_and_starts_over_with_the_student() -> None:
    student, teacher = model(8), model(16, seed=1)
    loss = DistillationLoss(student, teacher)
    whole, _, _ = loss(IDS[None, :10], IDS[None, 1:11], None)
    first, _, state = loss(IDS[None, :5], IDS[None, 1:6], None)
    second, _, _ = loss(IDS[None, 5:10], IDS[None, 6:11], state)
    torch.testing.assert_close(first + second, whole)


@pytest.mark.slow
def test_without_a_teachers_part_it_trains_as_train_does() -> None:
    one, other = model(8), model(8)
    distill(one, model(16, seed=1), IDS, TRAINING, weight=0.0)
    train(other, IDS, TRAINING, device="cpu")
    for name, each in one.state_dict().items():
        torch.testing.assert_close(each, other.state_dict()[name])


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher() -> None:
    student, teacher = model(8), model(16, seed=1)
    loss = DistillationLoss(student, teacher)
    with torch.no_grad():
        before = float(loss(IDS[None, :-1], IDS[None, 1:], None)[0])
    distill(student, teacher, IDS, TrainConfig(steps=60, num_streams=4, learning_rate=1e-2))
    with torch.no_grad():
        after = float(loss(IDS[None, :-1], IDS[None, 1:], None)[0])
    assert after < 0.5 * before
    assert not student.training


def test_what_makes_no_sense_is_refused() -> None:
    student, teacher = model(8), model(16)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        DistillationLoss(student, teacher, temperature=0.0)
    with pytest.raises(ValueError, match=r"weight must be in \[0, 1\]"):
        DistillationLoss(student, teacher, weight=1.5)
    with pytest.raises(ValueError, match="the same tokens, got 12 and 9"):
        DistillationLoss(student, model(8, vocabulary_size=9))
    with pytest.raises(ValueError, match="reset_state 0"):
        distill(student, teacher, IDS, TrainConfig(steps=1, reset_state=0.1))
