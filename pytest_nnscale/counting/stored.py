"""The tensors that a model keeps: parameters, buffers, and weights packed by quantisation.

Also the weights that torch.jit.freeze made constants of a graph. Which of its constants were weights
is not told there, so every floating-point tensor that is no scalar counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_nnscale.tree import ModuleTree

if TYPE_CHECKING:
    import torch


class Inventory(NamedTuple):
    """What some models keep: each tensor once, the row of its module, and whether it is a weight.

    Packed weights count as parameters, too. `lazy` are the positions of tensors without a shape yet,
    `unopened` the paths of packs that cannot be opened.
    """

    tree: ModuleTree
    tensors: list[torch.Tensor]
    rows: list[int]
    are_parameters: list[bool]
    lazy: tuple[int, ...]
    unopened: tuple[str, ...]

    def path_of(self, position: int) -> str:
        """Return the path of the module that keeps a tensor."""
        return self.tree.paths[self.rows[position]]


def take_inventory(modules: Sequence[torch.nn.Module], tree: ModuleTree | None = None) -> Inventory:
    """List what some models keep; `tree` is theirs, where there is one already."""
    tree = tree or ModuleTree(modules)
    tensors, rows, are_parameters = [*tree.kept.tensors], [*tree.kept.rows], [*tree.kept[2]]
    lazy: tuple[int, ...] = ()
    if any_lazy(tensors):
        lazy = tuple(place for place, tensor in enumerate(tensors) if any_lazy([tensor]))
    unopened = []
    frozen: set[tuple[int, ...]] = set()
    for module in tree.modules if _any_packs(tree) else ():
        row = tree.row_of[id(module)]
        found: list[torch.Tensor] = []
        try:
            found += unpacked(module)
            for tensor in constants(module):
                # The graphs of two methods share what they have in common.
                place = (_address(tensor), *tensor.shape)
                if place not in frozen:
                    frozen.add(place)
                    found.append(tensor)
        except (AttributeError, RuntimeError, TypeError):
            unopened.append(tree.paths[row])
        tensors += found
        rows += [row] * len(found)
        are_parameters += [True] * len(found)
    return Inventory(tree, tensors, rows, are_parameters, lazy, tuple(unopened))


def any_lazy(tensors: Sequence[torch.Tensor]) -> bool:
    """Tell whether any of some tensors has no shape yet."""
    from torch.nn.parameter import is_lazy

    # One of each type tells for all of it.
    return any(map(is_lazy, dict(zip(map(type, tensors), tensors, strict=True)).values()))


def _any_packs(tree: ModuleTree) -> bool:
    """Tell whether any module may keep weights in anything but tensors."""
    import torch

    if any(issubclass(kind, torch.jit.ScriptModule) for kind in {*map(type, tree.modules)}):
        return True
    return torch.ScriptObject in tree.attribute_types


def why_incomplete(unopened: Sequence[str], strays: Sequence[torch.Tensor]) -> tuple[str, str]:
    """Say what is missing from the stored tensors, and what to do about it.

    `strays` are parameters that ran and belong to no model whose tensors were listed.
    """
    if not strays:
        return (
            f"{unopened[0]} keeps weights packed in a form that cannot be opened here",
            "measure the model before it is packed",
        )
    shapes = list(dict.fromkeys(str(tuple(stray.shape)) for stray in strays))
    more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
    return (
        f"parameters of shape {', '.join(shapes[:3])}{more} ran that belong to no module seen",
        "call the module that owns them, or use nnscale.profile(model)",
    )


def packs_of(module: torch.nn.Module) -> list[torch.ScriptObject]:
    """Return the C++ objects that a module keeps, in which weights may be packed."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        # Its attributes live in C++; `_packed_params` is the name that torch.ao packs under.
        kept = [getattr(module, "_packed_params", None)]
    else:
        kept = list(vars(module).values())
    return [pack for pack in kept if type(pack) is torch.ScriptObject]


def unpacked(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Open what torch.ao's quantised modules pack: C++ objects with `unpack` or `__getstate__`.

    Raises RuntimeError for a C++ object of any other kind, since weights may hide in it.
    """
    for pack in packs_of(module):
        yield from opened(pack)


def constants(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield the weights that are constants of a frozen module's graphs.

    Freezing drops the `training` flag. Without it, constants are what the code wrote as literals.
    """
    import torch

    if not isinstance(module, torch.jit.ScriptModule) or hasattr(module, "training"):
        return
    from pytest_nnscale.counting.scripts import graphs_of, nodes_in

    for graph in graphs_of(module):
        for node in nodes_in(graph):
            kind = node.kindOf("value") if node.hasAttribute("value") else ""
            # Optimisers leave what they replaced in the graph, and nothing uses it.
            used = kind in ("t", "ts", "ival") and node.output().uses()
            if node.kind().startswith("prim::Constant") and used:
                value = getattr(node, kind)("value")
                yield from (leaf for leaf in _leaves(value) if _is_weight(leaf))


def _is_weight(tensor: torch.Tensor) -> bool:
    # Quantised tensors are weights too, though torch does not call them floating-point.
    return tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized


def _address(tensor: torch.Tensor) -> int:
    # Opaque tensors (mkldnn) have no address, and those on meta have none that tells.
    return id(tensor) if tensor.is_mkldnn or tensor.is_meta else tensor.data_ptr()


def opened(pack: Any) -> Iterator[torch.Tensor]:
    """Yield the weights and biases in a pack; RuntimeError where it is of an unknown kind."""
    kind = pack._type().qualified_name()
    if kind.endswith("LinearPackedParamsBase"):
        yield from _present(*_linear(pack))
    elif kind.endswith(("Conv2dPackedParamsBase", "Conv3dPackedParamsBase")):
        yield from _present(pack.weight(), pack.bias())
    elif kind.endswith("EmbeddingPackedParamsBase"):
        yield from _present(*_embedding(pack))
    elif kind.endswith("CellParamsBase"):
        state = pack.__getstate__()
        yield from _leaves(state)
    else:
        raise RuntimeError(f"{kind} cannot be opened")


def _linear(pack: torch.ScriptObject) -> tuple[torch.Tensor, torch.Tensor | None]:
    import torch

    try:
        unpacked: tuple[torch.Tensor, torch.Tensor | None] = torch.ops.quantized.linear_unpack(pack)
    except RuntimeError:
        unpacked = torch.ops.quantized.linear_unpack_fp16(pack)
    return unpacked


def _embedding(pack: torch.ScriptObject) -> tuple[torch.Tensor]:
    import torch

    return (torch.ops.quantized.embedding_bag_unpack(pack),)


def _leaves(tree: object) -> Iterator[torch.Tensor]:
    """Yield the weights and biases of a quantised recurrent cell, which nests packs in tuples."""
    import torch

    if isinstance(tree, torch.Tensor):
        if tree.ndim:
            yield tree
    elif isinstance(tree, torch.ScriptObject):
        yield from opened(tree)
    elif isinstance(tree, tuple | list):
        for branch in tree:
            yield from _leaves(branch)


def _present(*tensors: torch.Tensor | None) -> Iterator[torch.Tensor]:
    return (tensor for tensor in tensors if tensor is not None)
