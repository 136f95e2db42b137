"""Compute budgets for PyTorch models, asserted by pytest: parameters, FLOPs, memory, time, energy.

The names are resolved on first use, so that importing the package, as every pytest run does
through the plugin, costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_nnscale.counting.formulas import flop_formula as flop_formula
    from pytest_nnscale.decorators import max_energy_j as max_energy_j
    from pytest_nnscale.decorators import max_flops as max_flops
    from pytest_nnscale.decorators import max_kernels as max_kernels
    from pytest_nnscale.decorators import max_latency_ms as max_latency_ms
    from pytest_nnscale.decorators import max_macs as max_macs
    from pytest_nnscale.decorators import max_memory_mb as max_memory_mb
    from pytest_nnscale.decorators import max_params as max_params
    from pytest_nnscale.decorators import max_size_mb as max_size_mb
    from pytest_nnscale.decorators import min_efficiency as min_efficiency
    from pytest_nnscale.errors import BadBudget as BadBudget
    from pytest_nnscale.errors import BadOption as BadOption
    from pytest_nnscale.errors import BadQuantity as BadQuantity
    from pytest_nnscale.errors import BadWorkload as BadWorkload
    from pytest_nnscale.errors import CannotMeasure as CannotMeasure
    from pytest_nnscale.errors import NnscaleError as NnscaleError
    from pytest_nnscale.failure import BudgetExceeded as BudgetExceeded
    from pytest_nnscale.measurement import Measurement as Measurement
    from pytest_nnscale.measurement import Metric as Metric
    from pytest_nnscale.profiles import Profile as Profile
    from pytest_nnscale.profiling import count as count
    from pytest_nnscale.profiling import profile as profile

_HOMES = {
    "counting.formulas": ("flop_formula",),
    "decorators": (
        "max_energy_j",
        "max_flops",
        "max_kernels",
        "max_latency_ms",
        "max_macs",
        "max_memory_mb",
        "max_params",
        "max_size_mb",
        "min_efficiency",
    ),
    "errors": (
        "BadBudget",
        "BadOption",
        "BadQuantity",
        "BadWorkload",
        "CannotMeasure",
        "NnscaleError",
    ),
    "failure": ("BudgetExceeded",),
    "measurement": ("Measurement", "Metric"),
    "profiles": ("Profile",),
    "profiling": ("count", "profile"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
