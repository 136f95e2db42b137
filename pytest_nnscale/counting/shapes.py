"""What an operator returns, from shapes alone: its rule, else torch's own meta kernel.

The answer is an `Outcome`, which holds for every call with arguments of the same specs. Whatever
depends on values raises NeedsValues.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pytest_nnscale.counting.shape_rules import rule_for
from pytest_nnscale.counting.specs import Spec, contiguous, extent, spec, spec_of
from pytest_nnscale.counting.traced import NeedsValues, Traced

_aten = torch.ops.aten
INDEXING = frozenset({_aten.index, _aten._unsafe_index})
MASKS = (torch.bool, torch.uint8)
# These are not tagged as what they are.
_ELEMENTWISE = frozenset({_aten.hardswish.default, _aten.hardswish_backward.default})
# They take the strides of what they are given.
_COPIES = frozenset({_aten.clone.default, _aten._to_copy.default, _aten.hardtanh.default})
Place = int | str  # of an argument: its position, or its name


class New(NamedTuple):
    """An output with a storage of its own."""

    spec: Spec


class View(NamedTuple):
    """An output that shares the storage of an argument."""

    spec: Spec
    of: tuple[Place, ...]


class Same(NamedTuple):
    """An output that is an argument itself."""

    place: tuple[Place, ...]


class Given(NamedTuple):
    """An output that is no tensor."""

    value: Any


Output = New | View | Same | Given


class Outcome(NamedTuple):
    """The outputs of a call, in a list or tuple where the operator returns one."""

    outputs: tuple[Output, ...]
    wrapped: type | None  # tuple or list; None for a single output


def outcome_of(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], device: torch.device
) -> Outcome:
    """Return what a call gives, `device` being where the trace takes itself to be.

    Raises NeedsValues where shapes are not enough.
    """
    if depends_on_values(func, args):
        raise NeedsValues(f"{func.name()} depends on values")
    tensors = [*placed(args, kwargs)]
    home = _home(func, kwargs, [tensor for _, tensor in tensors], device)
    rule = rule_for(func, home.type)
    if rule is not None:
        answer = rule(*_specs(args), **_specs(kwargs))
        if answer is not None:
            outputs = tuple(_foretold(each, home) for each in answer)
            return Outcome(outputs, tuple if len(func._schema.returns) > 1 else None)
    return _by_meta_kernel(func, args, kwargs, tensors, home)


def with_gradients(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outcome: Outcome
) -> Outcome:
    """Have views need a gradient where what they view does, as autograd has them do at all times."""
    if func is _aten.detach.default:
        return outcome
    outputs = []
    for output in outcome.outputs:
        if isinstance(output, View):
            source = argument_at(output.of, args, kwargs)
            if source.spec.needs_grad if type(source) is Traced else source.requires_grad:
                output = View(output.spec.with_gradient(), output.of)
        outputs.append(output)
    return Outcome(tuple(outputs), outcome.wrapped)


def depends_on_values(func: Any, args: Sequence[Any]) -> bool:
    """Tell whether outputs, or their shapes, depend on what tensors hold.

    torch tags such operators. Indexing is one of them only where an index is a mask.
    """
    if func._overloadpacket in INDEXING:
        indices = [each for each in args[1] if isinstance(each, Tensor)]
        return any(each.dtype in MASKS for each in indices)
    return (
        torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
    )


def why_untraceable(tensor: Tensor) -> str:
    """Say why a tensor cannot be described by a spec; an empty text where it can."""
    if type(tensor) is Traced:
        return ""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout is not torch.strided:
        return f"a tensor of layout {tensor.layout}"
    if tensor.is_quantized:
        return "a quantised tensor"
    if tensor.is_conj() or tensor.is_neg():
        return "a conjugate view"
    return ""


def _foretold(answer: Spec | int | None, home: torch.device) -> Output:
    """Return an output as a rule tells it."""
    if isinstance(answer, int):
        return Same((answer,))
    return Given(None) if answer is None else New(_at(answer, home))


def _by_meta_kernel(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tensors: list[tuple[tuple[Place, ...], Tensor]],
    home: torch.device,
) -> Outcome:
    standing: dict[int, Tensor] = {}
    for _, tensor in tensors:
        if id(tensor) not in standing:
            standing[id(tensor)] = on_meta(tensor)
    meta_args = [_replaced(arg, standing) for arg in args]
    meta_kwargs = {name: _replaced(arg, standing) for name, arg in kwargs.items()}
    for name, arg in kwargs.items():
        if name == "device" or isinstance(arg, torch.device):
            meta_kwargs[name] = torch.device("meta")
        elif name in ("generator", "pin_memory"):
            meta_kwargs[name] = None
        elif name == "layout" and arg not in (None, torch.strided):
            raise NeedsValues(f"{func.name()} makes a tensor of layout {arg}")
    if "device" not in kwargs and _makes_from_nothing(func):
        meta_kwargs["device"] = torch.device("meta")
    before = {id(tensor): spec_of(standing[id(tensor)]) for _, tensor in tensors}
    try:
        out = func(*meta_args, **meta_kwargs)
    except NeedsValues:
        raise
    except Exception as error:
        # No meta kernel; or the call is wrong, which running it says better.
        raise NeedsValues(
            f"{func.name()} has no answer on shapes alone ({_first_line(error)})"
        ) from error
    for _, tensor in tensors:
        if spec_of(standing[id(tensor)]) is not before[id(tensor)]:
            raise NeedsValues(f"{func.name()} changes the shape of a tensor in place")
    wrapped = type(out) if type(out) in (tuple, list) else None
    outs = out if wrapped else [out]
    if not isinstance(outs, tuple | list):
        raise NeedsValues(f"{func.name()} returned {type(out).__name__}")
    origins = {id(standing[id(tensor)]): place for place, tensor in tensors}
    storages = {standing[id(tensor)].untyped_storage()._cdata: place for place, tensor in tensors}
    call = (func, args, [tensor for _, tensor in tensors])
    outputs = tuple(_output(call, each, origins, storages, home) for each in outs)
    return Outcome(outputs, wrapped)


def _output(
    call: tuple[Any, Sequence[Any], Sequence[Tensor]],
    out: Any,
    origins: Mapping[int, tuple[Place, ...]],
    storages: Mapping[int, tuple[Place, ...]],
    home: torch.device,
) -> Output:
    func, *_ = call
    if not isinstance(out, Tensor):
        if out is None or isinstance(out, bool | int | float):
            return Given(out)
        raise NeedsValues(f"{func.name()} returned {type(out).__name__}")
    if id(out) in origins:
        return Same(origins[id(out)])
    why = why_untraceable(out)
    if why:
        raise NeedsValues(f"{func.name()} gives {why}")
    found = _at(spec_of(out), home)
    shared = storages.get(out.untyped_storage()._cdata)
    if shared is not None:
        return View(found, shared)
    if _runs_over_dense(*call, found):
        found = spec(found.size, contiguous(found.size), found.dtype, home)
    return New(found)


def _runs_over_dense(func: Any, args: Sequence[Any], tensors: Sequence[Tensor], out: Spec) -> bool:
    """Tell whether a kernel that goes element by element finds all of its tensors contiguous.

    Then its output is, too, on every device but meta, which keeps strides of axes of length one.
    Numbers among its operands are tensors of another shape to it.
    """
    pointwise = torch.Tag.pointwise in func.tags or func in _ELEMENTWISE
    if 1 not in out.size or not pointwise or func in _COPIES or func._overloadname == "Scalar":
        return False
    for argument, arg in zip(func._schema.arguments, args, strict=False):
        if str(argument.type) == "Tensor" and not isinstance(arg, Tensor):
            return False
    return all(tuple(tensor.shape) == out.size and tensor.is_contiguous() for tensor in tensors)


def _home(
    func: Any, kwargs: Mapping[str, Any], tensors: Sequence[Tensor], device: torch.device
) -> torch.device:
    """Return where outputs are: where the call says, else where its tensors are."""
    asked = kwargs.get("device")
    if asked is not None:
        asked = torch.device(asked)
        return device if asked.type == "meta" else asked
    found = {tensor.device for tensor in tensors if tensor.ndim and not tensor.is_meta}
    if len(found) > 1:
        raise NeedsValues(f"{func.name()} mixes {' and '.join(sorted(map(str, found)))}")
    if found:
        return found.pop()
    return next((tensor.device for tensor in tensors if not tensor.is_meta), device)


def argument_at(
    place: tuple[Place, ...], args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> Any:
    """Return the argument at a place of a call, or what is in it."""
    first = place[0]
    found = args[first] if isinstance(first, int) else (kwargs or {})[first]
    return found if len(place) == 1 else found[place[1]]


def all_on_meta(tree: Any) -> Any:
    """Put meta tensors in the place of traced ones, in nested arguments."""
    if isinstance(tree, Tensor):
        return on_meta(tree) if type(tree) is Traced else tree
    if isinstance(tree, dict):
        return {name: all_on_meta(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(all_on_meta(value) for value in tree)
    return tree


def on_meta(tensor: Tensor) -> Tensor:
    """Return a meta tensor of the same shape, strides, offset and dtype."""
    size, stride, offset = tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
    if not offset:
        return torch.empty_strided(size, stride, dtype=tensor.dtype, device="meta")
    room = torch.empty(extent(size, stride, offset), dtype=tensor.dtype, device="meta")
    return room.as_strided(size, stride, offset)


def placed(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Sequence[tuple[tuple[Place, ...], Tensor]]:
    """Return every tensor among some arguments with its place."""
    found: list[tuple[tuple[Place, ...], Tensor]] = []
    places: list[tuple[Place, Any]] = [*enumerate(args), *kwargs.items()]
    for place, arg in places:
        if isinstance(arg, Tensor):
            found.append(((place,), arg))
        elif isinstance(arg, list | tuple):
            inner = ((index, each) for index, each in enumerate(arg) if isinstance(each, Tensor))
            found += [((place, index), each) for index, each in inner]
    return found


def _replaced(arg: Any, standing: Mapping[int, Tensor]) -> Any:
    if isinstance(arg, Tensor):
        return standing[id(arg)]
    if isinstance(arg, list | tuple):
        return type(arg)(_replaced(each, standing) for each in arg)
    return arg


def _specs(arguments: Any) -> Any:
    """Put specs in the place of tensors."""
    if isinstance(arguments, Tensor):
        return arguments.spec if type(arguments) is Traced else spec_of(arguments)
    if isinstance(arguments, Mapping):
        return {name: _specs(arg) for name, arg in arguments.items()}
    if isinstance(arguments, list | tuple):
        return [_specs(each) for each in arguments]
    return arguments


def _at(found: Spec, device: torch.device) -> Spec:
    if found.device == device:
        return found
    return spec(found.size, found.stride, found.dtype, device, found.offset, found.room)


@functools.cache
def _makes_from_nothing(func: Any) -> bool:
    arguments = func._schema.arguments
    return any(a.name == "device" for a in arguments) and not any(
        "Tensor" in str(a.type) for a in arguments
    )


def _first_line(error: Exception) -> str:
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return first[:120]
