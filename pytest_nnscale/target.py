"""What was handed to a benchmark: a call, with what goes before and after each round of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_nnscale.naming import joint_name
from pytest_nnscale.observation import Observation

if TYPE_CHECKING:
    from torch import nn

    from pytest_nnscale.counting.counter import Counter

_DRESSED = "the setup and teardown of its rounds would be measured with the call"
_UNDRESS = "benchmark a call that needs none, or take the mark off"


class Target(NamedTuple):
    """A benchmarked call; `setup` may return (args, kwargs), `teardown` is given what was used."""

    function: Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    setup: Callable[[], Any] | None = None
    teardown: Callable[..., Any] | None = None

    @property
    def dressed(self) -> bool:
        """Whether a round is more than the call."""
        return self.setup is not None or self.teardown is not None

    def begin(self) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Begin a round, and return its arguments: those that the setup made, if it made any."""
        made = self.setup() if self.setup is not None else None
        return made or (self.args, self.kwargs)

    def end(self, *args: Any, **kwargs: Any) -> None:
        """End a round."""
        if self.teardown is not None:
            self.teardown(*args, **kwargs)


def observe_target(
    target: Target, *, fallback_name: str, models: Iterable[nn.Module] = ()
) -> Observation:
    """Run one round more, its call under a counter, and put back what the round did.

    `models` are some that a round may change before it calls them. A round that raises is not
    counted, and the observation says why.
    """
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.observing import ran_on
    from pytest_nnscale.preservation.keepsake import preserved
    from pytest_nnscale.workload import Workload

    counters: list[Counter] = []

    def watched(roots: Sequence[nn.Module] = ()) -> Counter:
        counters.append(Counter(preserve=True, roots=roots))
        undo.callback(counters[-1].restore)
        return counters[-1]

    with ExitStack() as undo:
        undo.enter_context(preserved(models))
        try:
            args, kwargs = target.args, target.kwargs
            if target.setup is not None:
                with watched():
                    args, kwargs = target.begin()
            workload = Workload(target.function, tuple(args), kwargs)
            inputs = (workload.args, workload.kwargs)
            undo.enter_context(preserved(workload.modules, workload.tensors, inputs=inputs))
            with watched(workload.modules) as counter:
                counter.inputs(workload.tensors)
                workload.call()
            if target.teardown is not None:
                with watched():
                    target.end(*args, **kwargs)
        except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
            first, *_ = str(error).strip().splitlines() or ["no message"]
            return Observation(
                fallback_name,
                reason=f"the benchmarked call cannot run once more: {type(error).__name__}: {first}",
                remedy="benchmark a call that can run many times",
            )
    count = counter.count()
    touched = [
        *workload.tensors,
        *(tensor for each in counters for tensor in each.written),
    ]
    roots = [root for each in counters for root in each.roots]
    name = workload.subject
    return Observation(
        joint_name(counter.roots) or (fallback_name if name == "<lambda>" else name),
        counter.roots,
        count,
        repeat=None if target.dressed else workload.call,
        guard=lambda: preserved(roots, touched, inputs=inputs),
        device=ran_on(counter, workload.device),
        reason=_DRESSED if target.dressed else "",
        remedy=_UNDRESS if target.dressed else "",
        elsewhere=counter.parameters_elsewhere,
    )
