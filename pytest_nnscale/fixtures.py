"""The nnscale fixture: call a model through it, and the call is what the budgets judge."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale import keys

if TYPE_CHECKING:
    from pytest_nnscale.calling import NnscaleCaller


@pytest.fixture
def nnscale(request: pytest.FixtureRequest) -> Iterator[NnscaleCaller]:
    """Run a model and hold the call to the test's budgets: `output = nnscale(model, *inputs)`."""
    from pytest_nnscale.calling import NnscaleCaller
    from pytest_nnscale.collecting import budgets_of
    from pytest_nnscale.references import references_of
    from pytest_nnscale.report.progress import announcer
    from pytest_nnscale.taking_turns import effort_of

    caller = NnscaleCaller(
        budgets_of(request.node),
        effort_of(request.config),
        announcer(request.config),
        partial(references_of, request.node),
    )
    request.node.stash[keys.CALLER] = caller
    yield caller
    del request.node.stash[keys.CALLER]
