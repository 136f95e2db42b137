"""What other counters say of a model; each imported when asked, and all said in FLOP.

A peer that counts multiply-accumulates is doubled: 1 MAC = 2 FLOP.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Inputs = tuple["torch.Tensor", ...]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a peer says: its FLOPs, by operator where it tells, or why it says nothing."""

    peer: str
    flops: int | None
    by_operator: dict[str, int] | None = field(default=None, hash=False)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another counter: its name, the package that has it, and how it is asked."""

    name: str
    package: str
    ask: Callable[[torch.nn.Module, Inputs], Opinion]


def opinions(model: torch.nn.Module, inputs: Inputs) -> list[Opinion]:
    """Ask every peer that is installed, each about a copy of the model; none may fail the rest."""
    import torch

    heard = []
    for peer in PEERS:
        if find_spec(peer.package) is None:
            continue
        try:
            with (
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
                torch.no_grad(),
            ):
                warnings.simplefilter("ignore")
                heard.append(peer.ask(copy.deepcopy(model), inputs))
        except Exception as error:  # a peer may fail in any way of its own
            told = " ".join(f"{type(error).__name__}: {error}".split())
            heard.append(Opinion(peer.name, None, error=told[:100]))
    return heard


def _flop_counter_mode(model: torch.nn.Module, inputs: Inputs) -> Opinion:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    by_operator: dict[str, int] = {}
    for operator, flops in counter.get_flop_counts().get("Global", {}).items():
        name = str(operator).replace(".", "::", 1)
        by_operator[name] = by_operator.get(name, 0) + int(flops)
    return Opinion("FlopCounterMode", int(counter.get_total_flops()), by_operator)


def _ptflops(backend: str) -> Callable[[torch.nn.Module, Inputs], Opinion]:
    def ask(model: torch.nn.Module, inputs: Inputs) -> Opinion:
        import ptflops

        macs, _ = ptflops.get_model_complexity_info(
            _called_with(model, inputs),
            (1,),
            print_per_layer_stat=False,
            as_strings=False,
            backend=backend,
        )
        if macs is None:
            raise RuntimeError("it gave no number")
        return Opinion(f"ptflops ({backend})", 2 * int(macs))

    return ask


def _called_with(model: torch.nn.Module, inputs: Inputs) -> torch.nn.Module:
    """Wrap a model so that it is called with these inputs, whatever it is handed."""
    import torch

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, _: torch.Tensor) -> Any:
            return self.model(*inputs)

    return Called()


def _fvcore(model: torch.nn.Module, inputs: Inputs) -> Opinion:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False)
    return Opinion("fvcore", 2 * int(analysis.uncalled_modules_warnings(False).total()))


def _thop(model: torch.nn.Module, inputs: Inputs) -> Opinion:
    import thop

    return Opinion("thop", 2 * int(thop.profile(model, inputs=inputs, verbose=False)[0]))


def _torchprofile(model: torch.nn.Module, inputs: Inputs) -> Opinion:
    from torchprofile import profile_macs

    macs: Any = profile_macs(model, inputs)
    return Opinion("torchprofile", 2 * int(macs))


def _torchinfo(model: torch.nn.Module, inputs: Inputs) -> Opinion:
    import torchinfo

    summary = torchinfo.summary(model, input_data=inputs, verbose=0)
    return Opinion("torchinfo", 2 * int(summary.total_mult_adds))


def _calflops(model: torch.nn.Module, inputs: Inputs) -> Opinion:
    from calflops import calculate_flops

    _, macs, _ = calculate_flops(
        model, args=list(inputs), print_results=False, output_as_string=False
    )
    return Opinion("calflops", 2 * int(macs))


PEERS = (
    Peer("FlopCounterMode", "torch", _flop_counter_mode),
    Peer("ptflops (aten)", "ptflops", _ptflops("aten")),
    Peer("ptflops (pytorch)", "ptflops", _ptflops("pytorch")),
    Peer("fvcore", "fvcore", _fvcore),
    Peer("thop", "thop", _thop),
    Peer("torchprofile", "torchprofile", _torchprofile),
    Peer("torchinfo", "torchinfo", _torchinfo),
    Peer("calflops", "calflops", _calflops),
)
