"""What is stashed where: the typed keys between the hooks and the fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest

from pytest_nnscale.budget import Budget
from pytest_nnscale.options import Options
from pytest_nnscale.tally import Tally

if TYPE_CHECKING:
    from pytest_nnscale.fixtures import NnscaleCaller

    _Caller: TypeAlias = NnscaleCaller
else:
    _Caller = object  # the fixture's room imports this one

OPTIONS = pytest.StashKey[Options]()
BUDGETS = pytest.StashKey[tuple[Budget, ...]]()
CALLER = pytest.StashKey[_Caller]()
TALLY = pytest.StashKey[Tally]()
