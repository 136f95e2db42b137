"""Steps of optimisers: what is made in them is theirs."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class OptimizerSteps:
    """Tells, by process-wide hooks, whether an optimiser is stepping."""

    def __init__(self) -> None:
        self.running = 0
        self._handles: list[Any] = []

    def start(self) -> None:
        """Begin to follow."""
        self._handles = [
            register_optimizer_step_pre_hook(self._begin),
            register_optimizer_step_post_hook(self._end),
        ]

    def stop(self) -> None:
        """Take the hooks off."""
        while self._handles:
            self._handles.pop().remove()

    def _begin(self, *_: object) -> None:
        self.running += 1

    def _end(self, *_: object) -> None:
        self.running = max(0, self.running - 1)
