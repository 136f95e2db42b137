"""What TorchScript runs past the dispatcher: the nodes of its graphs that no mode sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pytest_nnscale.counting.coverage import Work, classify

REMEDY = "count the model before torch.jit.optimize_for_inference or a fuser rewrites it"
# What torch.jit.optimize_for_inference and the fusers put in place of convolutions and products.
_UNSEEN = frozenset(
    {
        "prim::mkldnn_convolution",
        "prim::MKLDNNGroup",
        "prim::oneDNNFusionGroup",
        "prim::TensorExprGroup",
        "prim::TensorExprDynamicGroup",
        "prim::CudaFusionGroup",
        "prim::FusionGroup",
        "prim::StaticSubgraph",
    }
)


def nodes_in(graph: Any) -> Iterator[Any]:
    """Yield every node of a TorchScript graph or block, those in branches and loops included."""
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from nodes_in(block)


def graphs_of(module: torch.jit.ScriptModule) -> Iterator[Any]:
    """Yield the graph of each method, with the methods that it calls in place."""
    for name in module._c._method_names():
        graph = module._c._get_method(name).graph.copy()
        torch._C._jit_pass_inline(graph)
        yield graph


def unseen_in(module: torch.jit.ScriptModule) -> frozenset[str]:
    """Name the kinds of nodes in a scripted module that do contraction work no mode sees."""
    return _unseen(*graphs_of(module))


def unseen_in_last_run() -> frozenset[str]:
    """Name those in the graph that this thread ran last, which a fuser has rewritten."""
    return _unseen(torch._C._last_executed_optimized_graph())


def _unseen(*graphs: Any) -> frozenset[str]:
    return frozenset(
        node.kind()
        for graph in graphs
        for node in nodes_in(graph)
        if node.kind() in _UNSEEN and not _only_free(node)
    )


def _only_free(node: Any) -> bool:
    """Tell whether a fused group holds no contraction: most are of pointwise work."""
    if not node.hasAttribute("Subgraph"):
        return False
    return all(_is_free(inner.kind()) for inner in nodes_in(node.g("Subgraph")))


def _is_free(kind: str) -> bool:
    namespace, _, name = kind.partition("::")
    if namespace == "prim":
        return kind not in _UNSEEN
    packet = getattr(torch.ops.aten, name, None) if namespace == "aten" else None
    if packet is None:
        return False
    return all(classify(getattr(packet, each)) is Work.FREE for each in packet.overloads())
