"""What is stashed where, and what a report carries: the names that the hooks agree on."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rich.status import Status

    from pytest_nnscale.benchmarked import Benchmarked
    from pytest_nnscale.budget import Budget
    from pytest_nnscale.calling import NnscaleCaller
    from pytest_nnscale.measurement import Measurement
    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.observation import ReferenceKey
    from pytest_nnscale.options import Options
    from pytest_nnscale.tally import Tally
    from pytest_nnscale.timing.quiet import Quiet
    from pytest_nnscale.workload import Workload

OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
BUDGETS: pytest.StashKey[tuple[Budget, ...]] = pytest.StashKey()
MARKED: pytest.StashKey[int] = pytest.StashKey()  # marks of ours on the test when it was collected
CALLER: pytest.StashKey[NnscaleCaller] = pytest.StashKey()
BENCHMARKED: pytest.StashKey[Benchmarked] = pytest.StashKey()
EFFORT: pytest.StashKey[Effort] = pytest.StashKey()  # how sampled metrics are measured
QUIET: pytest.StashKey[Quiet] = pytest.StashKey()  # what tests and measurements take turns by
# What tests took that others are held against.
TIMED: pytest.StashKey[dict[ReferenceKey, Workload | Measurement]] = pytest.StashKey()
ENDING: pytest.StashKey[ExitStack] = pytest.StashKey()  # what is let go when all is cleaned up
SPINNER: pytest.StashKey[tuple[Status, str]] = pytest.StashKey()  # on the terminal, and its text
TALLY: pytest.StashKey[Tally] = pytest.StashKey()

# Names of user properties: they reach xdist's controller and JUnit by themselves.
VERDICT = "nnscale.verdict"
NOT_RUN = "nnscale.not_run"
IDLE = "nnscale.idle"
OURS = (VERDICT, NOT_RUN, IDLE)
