"""The least that a run has to do on its device: contractions by what computes them, and bytes moved.

Counts, each byte once however often it is moved: what operators read of tensors that were there before
the run (weights, inputs), what they write of such, and what was made in the run and outlives it (the
output, gradients). An operator counts for its bytes only where it reads all of its operands: products,
convolutions, attention, pointwise ones, reductions, and those named below.
Does not count: what is made and used up in between, tables of which rows are looked up, operators of
other libraries, memory of other devices. So the true traffic is never less.
Error sources: a convolution that steps over pixels counts the whole of its input.
"""

from __future__ import annotations

import functools
import sys
import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._prims_common import is_non_overlapping_and_dense_or_false
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_nnscale.counting.casting import casting
from pytest_nnscale.counting.coverage import Work, classify, is_kernel
from pytest_nnscale.counting.dispatch import CountingMode, name_of
from pytest_nnscale.counting.eager import forced_eager
from pytest_nnscale.counting.flops import NoCount, flops_of
from pytest_nnscale.counting.writes import tensors_in, written_by


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Of aten: what reads all of its operands, and writes all that it returns.
_WHOLE = _names("""
mm addmm bmm baddbmm mv addmv dot vdot matmul linear addbmm _int_mm _scaled_mm mkldnn_linear
_weight_int8pack_mm _addmm_activation mkldnn_rnn_layer _cudnn_rnn _transformer_encoder_layer_fwd
_native_multi_head_attention
_to_copy copy_ clone cat stack zero_ fill_ softmax log_softmax _softmax _log_softmax _safe_softmax
native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm miopen_batch_norm
_native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
_batch_norm_no_update _fused_rms_norm hardswish prelu _prelu_kernel glu cumsum cumprod
adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d
""")
_WHOLE_PREFIXES = (
    "conv", "_conv", "cudnn_conv", "mkldnn_conv", "miopen_conv", "_slow_conv", "slow_conv",
    "thnn_conv", "_scaled_dot_product", "_flash_attention", "_efficient_attention",
)  # fmt: skip
# A complex product is made of real ones, and its FLOPs are theirs.
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Contraction(NamedTuple):
    """What computes some FLOPs: a "product" or a "convolution", of which dtype.

    The two go to different libraries, with settings of their own for the precision of float32.
    """

    kind: str
    dtype: str


class Traffic(NamedTuple):
    """The least that one run has to do; `uncounted` names an operator of unknown FLOPs, or is ""."""

    flops: dict[Contraction, int]
    read_bytes: int
    written_bytes: int
    uncounted: str = ""

    @property
    def nbytes(self) -> int:
        """All bytes that have to be moved."""
        return self.read_bytes + self.written_bytes


def least_traffic(run: Callable[[], object], device: str) -> Traffic:
    """Run something once, compiled code as it was written, and say what it had to do on a device."""
    mode = _TrafficMode(device.partition(":")[0])
    # Whoever has compiled something has imported this; importing it takes seconds.
    eager = forced_eager() if "torch._dynamo" in sys.modules else nullcontext()
    with warnings.catch_warnings(), eager:
        warnings.filterwarnings("ignore", message=r"Using `torch\.compile\(module\)` when")
        with mode:
            output = run()
    written = mode.outliving() + sum(region.nbytes for region in mode.written.values())
    del output  # until now: what it holds is what outlives the run
    read = sum(region.nbytes for region in mode.read.values())
    return Traffic(dict(mode.flops), read, written, mode.uncounted)


class _Region:
    """The part of one storage that operators touched."""

    __slots__ = ("_dense", "_loose")

    def __init__(self) -> None:
        self._dense: set[tuple[int, int]] = set()
        self._loose = 0

    def add(self, tensor: Tensor) -> None:
        """Add what a tensor is a view of; an expanded one is no more than what it repeats."""
        each = tensor.element_size()
        sizes = zip(tensor.shape, tensor.stride(), strict=True)
        amount = each * prod(int(size) for size, stride in sizes if stride)
        if is_non_overlapping_and_dense_or_false(tensor):
            start = each * int(tensor.storage_offset())
            self._dense.add((start, start + amount))
        else:
            self._loose = max(self._loose, amount)

    @property
    def nbytes(self) -> int:
        """How many bytes it has at least."""
        covered, end = 0, 0
        for start, stop in sorted(self._dense):
            covered += max(0, stop - max(start, end))
            end = max(end, stop)
        return max(covered, self._loose)


class _TrafficMode(CountingMode):
    """Lets every operator run, and notes what it has to do."""

    def __init__(self, device_type: str) -> None:
        TorchDispatchMode.__init__(self)
        self._on_operator = lambda: None
        self._device_type = device_type
        self.flops: Counter[Contraction] = Counter()
        self.uncounted = ""
        self.read: defaultdict[int, _Region] = defaultdict(_Region)
        self.written: defaultdict[int, _Region] = defaultdict(_Region)
        self._made: dict[int, tuple[weakref.ref[Any], _Region]] = {}

    def outliving(self) -> int:
        """Return the bytes of what was made in the run and is still there."""
        return sum(region.nbytes for storage, region in self._made.values() if storage())

    def _observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        with casting():
            out = func(*args, **kwargs)
        inputs = self._here([*tensors_in(args), *tensors_in(kwargs)])
        outputs = self._here([*tensors_in(out)])
        if inputs and classify(func) is not Work.FREE:
            try:
                flops = flops_of(func, args, kwargs, out)
            except NoCount:
                self.uncounted = name_of(func)
            else:
                self.flops[_contraction(func, inputs)] += flops
        written = [*written_by(func, args, kwargs)]
        if _is_whole(func):
            for tensor, storage in inputs.items():
                is_written = any(tensor is each for each in written)
                made = self._made_in(storage)
                if made is None:
                    made = (self.written if is_written else self.read)[storage._cdata]
                    made.add(tensor)
                elif is_written:
                    made.add(tensor)
        for tensor, storage in outputs.items():
            if all(storage is not other for other in inputs.values()):
                region = _Region()
                if is_kernel(func):  # no bare allocation
                    region.add(tensor)
                self._made[storage._cdata] = weakref.ref(storage), region
        return out

    def _here(self, tensors: list[Tensor]) -> dict[Tensor, Any]:
        """Return the storage of each dense tensor on the device; those of other kinds have none."""
        return {
            tensor: tensor.untyped_storage()
            for tensor in tensors
            if tensor.device.type == self._device_type
            and tensor.layout is torch.strided
            and not tensor.is_nested
        }

    def _made_in(self, storage: Any) -> _Region | None:
        """Return what is known of a storage that was made in the run; None of an earlier one."""
        reference, region = self._made.get(storage._cdata, (lambda: None, None))
        return region if reference() is storage else None


@functools.cache
def _is_whole(func: Any) -> bool:
    """Tell whether an operator reads all of its operands."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace not in ("aten", "prims"):
        return False
    if torch.Tag.pointwise in func.tags or torch.Tag.reduction in func.tags:
        return True
    name = str(func._schema.name).partition("::")[2]
    if name in _WHOLE or name.rstrip("_") in _WHOLE:
        return True
    return name.startswith(_WHOLE_PREFIXES) and "backward" not in name


def _contraction(func: Any, operands: Iterable[Tensor]) -> Contraction:
    first = next(iter(operands)).dtype
    # As torch does: cuDNN, which has the recurrent layers as well, and all else.
    kind = "convolution" if "conv" in str(func) or "cudnn" in str(func) else "product"
    return Contraction(kind, str(_REAL.get(first, first)).removeprefix("torch."))
