"""A figure that somebody published of a model, with its digits and its source."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Published:
    """Parameters and FLOPs as printed at the source; a FLOP here is half of a multiply-accumulate.

    `per` divides the FLOPs of the workload where the source gives them per token or per frame.
    """

    name: str
    workload: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    params: str
    flops: str
    source: str
    per: int = 1
