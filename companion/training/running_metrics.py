"""Training loss and gradient norm between two records, kept on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.runtime import sum_over_processes
from companion.losses.cross_entropy import divergence_limit

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunningMetrics:
    """Loss and gradient norm of the steps since the last record.

    They stay tensors on the device until a record needs them, so that no step waits for the device.
    """

    def __init__(self, accelerator: Accelerator, vocabulary_size: int) -> None:
        self.accelerator, self.vocabulary_size = accelerator, vocabulary_size
        self.first: Tensor | None = None  # nats a token of the first window, over all processes
        self.nats: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.sizes: list[int] = []  # targets of each window
        self.windows: list[int] = []  # number of windows so far, after each step
        self.good = 0  # steps already checked by `first_failure`
        # Steps in a row without a finite norm: the last checked ones, and those at the last record.
        self.overflows = self.recorded_overflows = 0

    @property
    def targets(self) -> int:
        """Number of targets since the last record."""
        return sum(self.sizes)

    def add(self, nats: Tensor, targets: int) -> None:
        """Add one window: its summed loss in nats and its number of targets."""
        if self.first is None:
            self.first = self.accelerator.reduce(nats / targets, reduction="mean")
        self.nats.append(nats)
        self.sizes.append(targets)

    def step_done(self, norm: Tensor) -> None:
        """End one optimizer step, given its gradient norm before clipping."""
        self.norms.append(norm)
        self.windows.append(len(self.nats))

    def first_failure(self, *, overflows: int) -> int | None:
        """How many steps ago the first failure was: a diverged loss, or a gradient that is not
        finite for more than `overflows` steps in a row; None if there was no failure.

        overflows: 0 where a gradient always has to be finite; with loss scaling some in a row need
        not be, until the scale is small enough. A loss has diverged above
        `cross_entropy.divergence_limit`. All processes get one answer.
        """
        if self.good == len(self.norms):
            return None
        start = self.windows[self.good - 1] if self.good else 0
        # One transfer, since each waits for the device; the rest is done on the CPU.
        nats, norms = torch.stack(self.nats[start:]), torch.stack(self.norms[self.good :])
        # Kept together: a number left alone between large blocks that are freed keeps the memory
        # around it from use, and a loop without records would grow by a megabyte a step.
        self.nats[start:], self.norms[self.good :] = nats.unbind(), norms.unbind()
        numbers = torch.cat([nats, norms]).cpu()
        nats, norms = torch.split(numbers, [len(nats), len(norms)])
        wrong = self.beyond(nats / torch.tensor(self.sizes[start:]).clamp(min=1)).cumsum(0) > 0
        failed = wrong[torch.tensor(self.windows[self.good :]) - start - 1]
        in_a_row = [self.overflows]
        for finite in torch.isfinite(norms).tolist():
            in_a_row.append(0 if finite else in_a_row[-1] + 1)
        failed |= torch.tensor(in_a_row[1:]) > overflows
        if self.accelerator.num_processes > 1:
            everyone = self.accelerator.gather(failed.unsqueeze(0).to(self.accelerator.device))
            failed = everyone.any(dim=0).cpu()
        steps = failed.nonzero()
        if len(steps):
            return len(self.norms) - self.good - 1 - int(steps[0])
        self.good, self.overflows = len(self.norms), in_a_row[-1]
        return None

    def lately_finite(self, steps: int) -> bool:
        """Whether the gradient of one of the last `steps` steps since the last record was finite;
        reading it waits for the device."""
        return bool(torch.isfinite(torch.stack(self.norms[-steps:])).any())

    def beyond(self, nats_per_token: Tensor) -> Tensor:
        """Whether losses have diverged: not finite, or above `cross_entropy.divergence_limit`."""
        first = nats_per_token.new_zeros(())
        if self.first is not None:  # stays where it is compared: it moves once, and waits once
            first = self.first = self.first.to(nats_per_token.device)
        limit = divergence_limit(self.vocabulary_size, first)
        return ~(torch.isfinite(nats_per_token) & (nats_per_token <= limit))

    def take(self) -> tuple[float, float | None]:
        """Nats per token over all processes, and the mean of the finite gradient norms, None if
        there was none; then resets both."""
        numbers = torch.cat([torch.stack(self.nats), torch.stack(self.norms)]).cpu()
        each, norms = torch.split(numbers, [len(self.nats), len(self.norms)])
        summed = each.double().sum()
        sums = torch.stack([summed, torch.full_like(summed, self.targets)])
        nats, targets = sum_over_processes(self.accelerator, sums)
        norms = norms[torch.isfinite(norms)].double()
        norm = float(norms.mean()) if len(norms) else None
        self.nats, self.norms, self.sizes, self.windows, self.good = [], [], [], [], 0
        self.recorded_overflows = self.overflows
        return nats / targets, norm

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint: the first loss; and, if there were steps since the last record,
        nats of shape (processes, windows), sizes and windows, and norms of shape (steps,)."""
        tensors = {} if self.first is None else {"first": self.first}
        tensors |= {"overflows": torch.tensor(self.recorded_overflows)}
        if not self.norms:
            return tensors
        return tensors | {
            "nats": self.accelerator.gather(torch.stack(self.nats).unsqueeze(0)),
            "norms": torch.stack(self.norms),
            "sizes": torch.tensor(self.sizes),
            "windows": torch.tensor(self.windows),
        }

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned, from entries whose names begin with "watch."."""
        device, rank = self.accelerator.device, self.accelerator.process_index
        if "watch.overflows" in tensors:
            self.overflows = self.recorded_overflows = int(tensors["watch.overflows"])
        if "watch.first" in tensors:
            self.first = tensors["watch.first"].to(device)
        if "watch.sizes" not in tensors:
            return
        nats, sizes = tensors["watch.nats"].to(device), tensors["watch.sizes"]
        if len(nats) == self.accelerator.num_processes:
            own = nats[rank]
        else:  # a different number of processes than when saved: the first one takes the sums
            own = nats.sum(dim=0) if rank == 0 else torch.zeros_like(nats[0])
            sizes = sizes * len(nats) if rank == 0 else torch.zeros_like(sizes)
        self.nats = list(own.unbind())
        self.norms = list(tensors["watch.norms"].to(device).unbind())
        self.sizes = sizes.tolist()
        self.windows = tensors["watch.windows"].tolist()
