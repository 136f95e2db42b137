"""Operators made of others, as an inference meets them: what one of them did the last time.

Without autograd torch hands such an operator over whole, and taking it apart costs as much as all
of its parts. Only those are remembered whose parts follow from their arguments alone, by torch's
own code: not from values, nor from flags of a backend, as those of fused attention do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pytest_nnscale.counting.formulas.registry import named
from pytest_nnscale.counting.ledger import Entry
from pytest_nnscale.counting.liveness import Holder, Lifeline
from pytest_nnscale.counting.memo import Remembered
from pytest_nnscale.counting.shapes import Given, New, Output, Same, View, placed
from pytest_nnscale.counting.traced import Traced

WHOLE = frozenset(
    named(
        "aten",
        """
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d batch_norm
        chunk contiguous conv1d conv1d.padding conv2d conv2d.padding
        conv3d conv3d.padding dropout dropout_ expand_as flatten.using_ints
        group_norm layer_norm linear log_softmax.int matmul
        max_pool1d max_pool2d max_pool3d pad reshape
        rms_norm softmax.int to.device to.dtype type_as
        upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_nearest2d.vec
        """,
    )
)


def composed(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    out: Any,
    parts: Sequence[Entry],
    events: Sequence[tuple[Holder, int]],
) -> Remembered | None:
    """Return what is to be remembered of a call that did `parts`, with these births and deaths.

    None where the call cannot be told from them.
    """
    wrapped = type(out) if type(out) in (tuple, list) else None
    outputs: list[Output] = []
    for each in out if wrapped else [out]:
        origin = _origin(each, args, kwargs)
        if origin is None:
            return None
        outputs.append(origin)
    if not outputs or len({id(holder) for holder, _ in events}) > 1:
        return None
    changes = [change for _, change in events]
    born = [output.spec.nbytes for output in outputs if type(output) is New]
    if len(born) > 1 or sum(changes) != sum(born):
        return None
    place = changes.index(born[0]) if any(born) else 0
    return Remembered(
        func,
        name=str(func.name()),
        output=outputs[0],
        outputs=tuple(outputs),
        wrapped=wrapped,
        flops=0,
        remedy="",
        kernels=0,
        special=False,
        writes=False,
        valueless=False,
        devices=(),
        # One that was remembered already stands for its own parts.
        parts=tuple(
            each for part in parts for each in ((part,) if part.parts is None else part.parts)
        ),
        before=tuple(changes[:place]),
        after=tuple(changes[place + any(born) :]),
    )


def _origin(out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Output | None:
    """Tell where an output comes from: an argument, a view of one, or made in the call."""
    if not isinstance(out, Tensor):
        return Given(out) if out is None or isinstance(out, bool | int | float) else None
    arguments = placed(args, kwargs)
    for place, arg in arguments:
        if arg is out:
            return Same(place)
    if type(out) is not Traced:
        return None
    for place, arg in arguments:
        whole = arg.lifeline if type(arg) is Traced else arg
        if whole is not None and whole is out.lifeline:
            return View(out.spec, place)
    made = type(out.lifeline) is Lifeline or (out.lifeline is None and not out.spec.nbytes)
    return New(out.spec) if made else None
