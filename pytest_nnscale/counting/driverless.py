"""The dispatch mode of a trace of a GPU's path on a machine that has none."""

from __future__ import annotations

from typing import Any

import torch

from pytest_nnscale.counting.tracing import TracingMode


class DriverlessTracingMode(TracingMode):
    """A tracing mode under whose key torch makes tensors on a GPU without looking for its driver."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True
