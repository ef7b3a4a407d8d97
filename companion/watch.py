"""The training loss and gradient norm between two records, kept on the device unread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Watch:
    """Loss and gradient norm of the steps since the last record.

    They stay on the device, unread, so that no step waits for a number.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.nats: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.windows: list[int] = []
        self.targets = 0

    def add(self, nats: Tensor, targets: int) -> None:
        """Count in one window."""
        self.nats.append(nats)
        self.targets += targets

    def step_done(self, norm: Tensor) -> None:
        """Count in one step: the length of its gradient before clipping."""
        self.norms.append(norm)
        self.windows.append(len(self.nats))

    def first_failure(self, *, gradients: bool) -> int | None:
        """How many steps ago a loss, or a gradient, was first no finite number; None if none was.

        The same for all processes.
        """
        if not self.norms:
            return None
        finite = torch.isfinite(torch.stack(self.nats).double().cumsum(0))
        done = finite[torch.tensor(self.windows, device=finite.device) - 1]
        if gradients:
            done &= torch.isfinite(torch.stack(self.norms))
        failed = self.accelerator.gather((~done).unsqueeze(0)).any(dim=0).nonzero()
        return None if not len(failed) else len(self.norms) - 1 - int(failed[0])

    def take(self) -> tuple[float, float]:
        """Nats per token over all processes, and the mean gradient norm; starts again from zero."""
        summed = torch.stack(self.nats).double().sum()
        sums = torch.stack([summed, torch.full_like(summed, self.targets)])
        nats, targets = self.accelerator.reduce(sums, reduction="sum").tolist()
        norms = torch.stack(self.norms)
        norm = float(norms[torch.isfinite(norms)].mean())
        self.nats, self.norms, self.windows, self.targets = [], [], [], 0
        return nats / targets, norm

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it: (processes, windows), (steps,) and (steps,)."""
        if not self.norms:
            return {}
        return {
            "nats": self.accelerator.gather(torch.stack(self.nats).unsqueeze(0)),
            "norms": torch.stack(self.norms),
            "windows": torch.tensor(self.windows),
        }

    def put(self, tensors: Mapping[str, Tensor], targets: int) -> None:
        """Take up what `tensors` gave, under names that begin with "watch."."""
        if "watch.norms" not in tensors:
            return
        device, rank = self.accelerator.device, self.accelerator.process_index
        nats = tensors["watch.nats"].to(device)
        if len(nats) == self.accelerator.num_processes:
            own = nats[rank]
        else:  # another number of processes: the first one takes the sums
            own = nats.sum(dim=0) if rank == 0 else torch.zeros_like(nats[0])
            targets = targets * len(nats) if rank == 0 else 0
        self.nats = list(own.unbind())
        self.norms = list(tensors["watch.norms"].to(device).unbind())
        self.windows = tensors["watch.windows"].tolist()
        self.targets = targets
