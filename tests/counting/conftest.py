"""What tests of traces share: operators set beside the CPU, and traces beside runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch._dynamo  # the first of torch's meta kernels imports it
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_nnscale import observing
from pytest_nnscale.counting import shapes
from pytest_nnscale.counting.ledger import Count
from pytest_nnscale.counting.specs import spec_of
from pytest_nnscale.counting.traced import NeedsValues
from pytest_nnscale.workload import Workload

CPU = torch.device("cpu")


class SetBeside(TorchDispatchMode):
    """Runs each operator, and compares what it gave with what its shapes foretold.

    `wrong` says what did not come as foretold, `refused` which operators had no answer; `seen` are
    all that were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.wrong: list[str] = []
        self.refused: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                return func.decompose(*args, **kwargs)
        if func.namespace in ("prim", "profiler") or torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)
        places = dict(reversed([*shapes.placed(args, kwargs)]))
        given = str(shapes._specs([*args, *kwargs.values()]))
        foretold = None
        try:
            foretold = shapes.outcome_of(func, args, kwargs, CPU)
        except NeedsValues:
            self.refused.add(func.name())
        storages = {t.untyped_storage()._cdata: place for place, t in places.items()}
        out = func(*args, **kwargs)
        if foretold is not None:
            self.seen.add(func.name())
            outs = [*out] if isinstance(out, tuple | list) else [out]
            self._compare(func.name() + given, outs, foretold, places, storages)
        return out

    def _compare(
        self, call: str, outs: list[Any], foretold: shapes.Outcome, places: Any, storages: Any
    ) -> None:
        if len(outs) != len(foretold.outputs):
            self.wrong.append(f"{call}: {len(outs)} outputs, not {len(foretold.outputs)}")
            return
        fresh: set[int] = set()
        for number, (out, output) in enumerate(zip(outs, foretold.outputs, strict=True)):
            found = self._found(out, places, storages)
            if not _agree(found, output):
                self.wrong.append(f"{call}, output {number}: {found}, not {output}")
            elif isinstance(found, shapes.New):
                storage = out.untyped_storage()
                if storage._cdata in fresh:
                    self.wrong.append(f"{call}, output {number}: shares another output's storage")
                fresh.add(storage._cdata)
                if storage.nbytes() != output.spec.nbytes:
                    nbytes = f"{storage.nbytes()} bytes, not {output.spec.nbytes}"
                    self.wrong.append(f"{call}, output {number}: {nbytes}")

    def _found(self, out: Any, places: Any, storages: Any) -> shapes.Output:
        if not isinstance(out, Tensor):
            return shapes.Given(out)
        for place, tensor in places.items():
            if tensor is out:
                return shapes.Same(place)
        found = spec_of(out)
        shared = storages.get(out.untyped_storage()._cdata)
        return shapes.New(found) if shared is None else shapes.View(found, shared)


def _agree(found: shapes.Output, foretold: shapes.Output) -> bool:
    """Tell whether two outputs are one, but for strides of axes of length one: no step is taken."""
    if type(found) is not type(foretold) or not isinstance(found, shapes.New | shapes.View):
        return found == foretold
    one, other = found.spec, foretold.spec
    return (
        found[1:] == foretold[1:]
        and (one.size, one.dtype, one.device, one.offset)
        == (other.size, other.dtype, other.device, other.offset)
        and all(
            length == 1 or step == expected
            for length, step, expected in zip(one.size, one.stride, other.stride, strict=True)
        )
    )


@pytest.fixture
def set_beside() -> type[SetBeside]:
    """Return the mode that compares operators with what was foretold of them."""
    return SetBeside


Both = Callable[..., Count]


@pytest.fixture
def both() -> Both:
    """Return `both(model, args, phase, kwargs=...)`: a trace and a run, equal in all fields."""

    def compare(
        model: Any,
        args: tuple[Any, ...],
        phase: Any = "inference",
        kwargs: Mapping[str, Any] | None = None,
        **step: Any,
    ) -> Count:
        workload = Workload(model, args, dict(kwargs or {}), phase, **step)
        tracer = observing._trace(workload)
        assert not tracer.gave_up, tracer.gave_up
        counter = observing._execute(workload)
        traced, executed = tracer.count(), counter.count()
        assert traced.traced
        assert not executed.traced
        for name in Count._fields:
            if name != "traced":
                assert getattr(traced, name) == getattr(executed, name), name
        assert traced._replace(traced=False) == executed
        assert [*map(id, tracer.roots)] == [*map(id, counter.roots)]
        return traced

    return compare
