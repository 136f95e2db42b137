"""A tensor of a trace that is used where values are needed says so, and ends no process."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from pytest_nnscale import profile
from pytest_nnscale.counting.liveness import Lifeline, MadeBy
from pytest_nnscale.counting.specs import spec
from pytest_nnscale.counting.traced import NeedsValues, Traced, traced

CPU = torch.device("cpu")


def without_data(*size: int, dtype: torch.dtype = torch.float32) -> Traced:
    return traced(spec(size, torch.empty(size, device="meta").stride(), dtype, CPU), None)


USES: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: x + 1,
    "a product": lambda x: x @ torch.rand(3, 3),
    "with another": lambda x: torch.rand(3) + x,
    "in place": lambda x: x.add_(1),
    "into another": lambda x: torch.zeros(3).copy_(x),
    "a view": lambda x: x[0],
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x.sum()),
    "truth": lambda x: bool(x.sum() > 0),
    "format": lambda x: f"{x.sum():.2f}",
    "data_ptr": lambda x: x.data_ptr(),
    "from_dlpack": torch.from_dlpack,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": pickle.dumps,
    "save": lambda x: torch.save(x, io.BytesIO()),
    "cast": lambda x: x.double(),
    "equal": lambda x: torch.equal(x, x),
    "iteration": list,
    "backward": lambda x: x.requires_grad_().sum().backward(),
    "from numpy": lambda x: torch.as_tensor(x) + 1,
    "print options": lambda x: torch._tensor_str._str(x + 0),
}


@pytest.mark.parametrize("name", USES)
def test_whatever_needs_its_values_says_so(name: str) -> None:
    """NeedsValues, with a text, wherever it is used after its trace."""
    with pytest.raises(NeedsValues, match=r"left over from a trace|was asked for|copied"):
        USES[name](without_data(3, 3))


READ_BY_ADDRESS: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: x.numpy(),
    "numpy, forced": lambda x: x.numpy(force=True),
    "asarray": numpy.asarray,
    "array": numpy.array,
    "tolist": lambda x: x.tolist(),
    "storage": lambda x: x.untyped_storage().tolist(),
    "storage, typed": lambda x: list(x.storage()),
    "bytes of a storage": lambda x: bytes(x.untyped_storage()),
    "address of a storage": lambda x: x.untyped_storage()[0],
    "pinned": lambda x: x.pin_memory(),
    "buffer": lambda x: memoryview(x),
    "array interface": lambda x: x.__array__(),
}


@pytest.mark.parametrize("name", READ_BY_ADDRESS)
@pytest.mark.filterwarnings("ignore")
def test_what_reads_its_memory_raises(name: str) -> None:
    """An error of whatever kind, where a read would end the process."""
    with pytest.raises((NeedsValues, RuntimeError, TypeError, NotImplementedError, ValueError)):
        READ_BY_ADDRESS[name](without_data(3, 3))


def test_sharing_its_memory_raises() -> None:
    """In a process of its own, since it may not outlive that."""
    program = (
        "import torch\n"
        "from pytest_nnscale.counting.specs import spec\n"
        "from pytest_nnscale.counting.traced import NeedsValues, traced\n"
        "x = traced(spec((3,), (1,), torch.float32, torch.device('cpu')), None)\n"
        "try:\n    x.share_memory_()\nexcept (NeedsValues, RuntimeError):\n    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0


def test_its_text_tells_what_it_is() -> None:
    """In a debugger, or in a message of the user's."""
    text = "<traced torch.float32 of (3, 3) on cpu>"
    x = without_data(3, 3)
    assert (repr(x), str(x), f"{x}") == (text, text, text)


def test_it_has_shape_strides_dtype_and_device() -> None:
    """What models ask of a tensor is answered as a real one would."""
    x, real = without_data(2, 3, dtype=torch.int64), torch.empty(2, 3, dtype=torch.int64)
    for ask in (
        "shape",
        "dtype",
        "device",
        "layout",
        "ndim",
        "is_leaf",
        "requires_grad",
        "itemsize",
    ):
        assert getattr(x, ask) == getattr(real, ask)
    for ask in ("stride", "numel", "is_contiguous", "storage_offset", "is_floating_point", "dim"):
        assert getattr(x, ask)() == getattr(real, ask)()
    assert len(x) == 2


def test_its_bytes_are_freed_with_it() -> None:
    """And those that its views share with the last of them."""
    notes: list[int] = []
    holder = MadeBy(0, "activations")
    life = Lifeline(lambda note: notes.append(note[1]), holder, 36)
    whole = traced(spec((3, 3), (3, 1), torch.float32, CPU), life)
    part = traced(spec((3,), (1,), torch.float32, CPU), whole.lifeline)
    del life, whole
    assert notes == [36]
    del part
    assert notes == [36, -36]


CAPTURED: list[Tensor] = []


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_what_a_hook_captures_has_values(phase: Any) -> None:
    """The model is run then, so that the user finds tensors that can be used."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    CAPTURED.clear()
    handles = [part.register_forward_hook(lambda *call: CAPTURED.append(call[2])) for part in model]
    found = profile(model, args=(torch.rand(2, 3),), phase=phase)
    for handle in handles:
        handle.remove()
    assert found.method == "executed"
    assert [type(each) for each in CAPTURED] == [Tensor] * 3
    assert all(each.isfinite().all() for each in CAPTURED)
    CAPTURED.clear()


def test_what_a_closure_keeps_has_values() -> None:
    """A name of an outer function that a call binds anew."""
    last = None
    model = nn.Linear(3, 3)

    def run(x: Tensor) -> Tensor:
        nonlocal last
        last = model(x)
        return last * 2

    profile(run, args=(torch.rand(2, 3),))
    assert type(last) is Tensor
    assert last.isfinite().all()


@pytest.mark.parametrize("where", ["around", "inside"])
def test_autocast_keeps_no_cast_of_a_trace(where: str) -> None:
    """A real call in the same block afterwards is right: autocast keeps casts of weights."""
    model, x = nn.Linear(8, 8), torch.rand(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        if where == "inside":
            model(x)
        for phase in ("inference", "training"):
            assert profile(model, args=(x,), phase=phase).method == "traced"  # type: ignore[arg-type]
        found = model(x)
    assert type(found) is Tensor
    assert torch.equal(found, expected)
    found.float().sum().backward()
    assert model.weight.grad is not None
    assert type(model.weight.grad) is Tensor
