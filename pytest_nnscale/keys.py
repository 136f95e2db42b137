"""What is stashed where: the typed keys between the hooks and the fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_nnscale.budget import Budget
from pytest_nnscale.options import Options

if TYPE_CHECKING:
    pass

OPTIONS = pytest.StashKey[Options]()
BUDGETS = pytest.StashKey[tuple[Budget, ...]]()
COLLECTION = pytest.StashKey["Collection"]()
CALLER = pytest.StashKey["NnscaleCaller"]()
TALLY = pytest.StashKey["Tally"]()
