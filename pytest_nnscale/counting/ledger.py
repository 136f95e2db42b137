"""What was counted: plain data that outlives the run, and the book it is written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pytest_nnscale.counting.liveness import KINDS, Kind
from pytest_nnscale.counting.modules import ModuleTracker, with_hidden
from pytest_nnscale.tree import ModuleTree


class Uncounted(NamedTuple):
    """An operator without a formula: where it ran, how often, on what, and the one-line remedy.

    One that is `unseen` never reached the dispatcher: its kernels and memory are unknown too.
    """

    operator: str
    module: str
    module_type: str
    calls: int
    shapes: str
    remedy: str
    backward: bool
    unseen: bool = False


class ModuleWork(NamedTuple):
    """What one module did: by itself (`own_`), and with all below it (`total_`).

    Memory is bytes alive at the peak of the whole run: what the module's weights hold, and what
    was made while it ran; None where it was not asked for. FLOPs are a lower bound unless `complete`: an operator in it, or below
    it, has no formula.
    """

    path: str
    type: str
    own_flops: int
    total_flops: int
    own_kernels: int
    total_kernels: int
    own_memory: int | None
    total_memory: int | None
    complete: bool = True


class OperatorWork(NamedTuple):
    """The FLOPs of one operator over a whole run, and how often it was called with any."""

    operator: str
    calls: int
    flops: int


class Count(NamedTuple):
    """What a counted run did; holds no tensors. `forward_` is what ran outside backward passes.

    `forward_memory_bytes` is the peak before the first backward operator; memory is None where it
    was not asked for. The row of `modules`
    with the path "" is the whole; no operator at all means that nothing ran. `threads` got work
    inside and used torch for it, `processes` got work inside; a counter does not see either.
    `raised` names modules whose call ended half way, by an error that the block outlived.
    `by_operator` has the operators that did any contraction work, most first. `held` has the bytes
    alive at the peak by what they are: weights, inputs, activations, gradients, optimizer. `traced`
    tells that no operator computed anything, `why_executed` why they had to. `unopened` names classes of modules that keep
    weights in a form of unknown size.
    """

    operators: int
    flops: int
    forward_flops: int
    kernels: int
    forward_kernels: int
    memory_bytes: int | None
    forward_memory_bytes: int | None
    backward: bool
    uncounted: tuple[Uncounted, ...]
    modules: tuple[ModuleWork, ...]
    devices: tuple[str, ...]
    threads: tuple[str, ...]
    processes: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()
    by_operator: tuple[OperatorWork, ...] = ()
    held: tuple[tuple[str, int], ...] = ()
    traced: bool = False
    why_executed: str = ""
    unopened: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """How it was counted: "traced" on shapes alone, or "executed"."""
        return "traced" if self.traced else "executed"

    def as_one_call(self) -> Count:
        """Return the same count with every gradient taken inside as a part of the call itself."""
        return self._replace(
            forward_flops=self.flops,
            forward_kernels=self.kernels,
            forward_memory_bytes=self.memory_bytes,
            backward=False,
            uncounted=tuple(unknown._replace(backward=False) for unknown in self.uncounted),
        )


class Entry(Protocol):
    """What a call costs, as it is logged: its parts together, where it has any."""

    @property
    def name(self) -> str: ...
    @property
    def flops(self) -> int | None: ...
    @property
    def kernels(self) -> int: ...
    @property
    def devices(self) -> tuple[str, ...]: ...
    @property
    def parts(self) -> Sequence[Entry] | None: ...


class Ledger:
    """The book of a run: sums by owner and direction, written operator by operator."""

    def __init__(self) -> None:
        self.operators = 0
        self.backward = False
        self.devices: dict[str, None] = {}
        self.unopened: list[str] = []
        self.log: list[tuple[Entry, int]] = []  # of calls in a forward, and of which module
        self._flops: dict[tuple[int, bool], int] = {}
        self._kernels: dict[tuple[int, bool], int] = {}
        self._by_operator: dict[str, tuple[int, int]] = {}
        self._uncounted: dict[tuple[str, int, bool, bool], tuple[int, str, str]] = {}

    def work(
        self, owner: int, *, backward: bool, flops: int, kernels: int, operator: str = ""
    ) -> None:
        """Book what one operator did."""
        key = (owner, backward)
        if flops:
            calls, before = self._by_operator.get(operator, (0, 0))
            self._by_operator[operator] = calls + 1, before + flops
            self._flops[key] = self._flops.get(key, 0) + flops
        if kernels:
            self._kernels[key] = self._kernels.get(key, 0) + kernels

    def uncounted(
        self,
        operator: str,
        owner: int,
        *,
        backward: bool,
        shapes: str,
        remedy: str,
        unseen: bool = False,
    ) -> None:
        """Book one call of an operator whose FLOPs are not known."""
        key = (operator, owner, backward, unseen)
        calls, shapes, remedy = self._uncounted.get(key, (0, shapes, remedy))
        self._uncounted[key] = (calls + 1, shapes, remedy)

    def close(
        self,
        tracker: ModuleTracker,
        tree: ModuleTree,
        *,
        peak: int | None,
        forward_peak: int | None,
        at_peak: Mapping[tuple[int, Kind], int] | None,
        threads: tuple[str, ...],
        processes: tuple[str, ...],
        traced: bool = False,
    ) -> Count:
        """Resolve owners to modules of a tree, and return the count; no peak, no memory."""
        self._read_log()
        tree = with_hidden(tracker, tree)
        held = dict.fromkeys(KINDS, 0)
        for (_, kind), nbytes in (at_peak or {}).items():
            held[kind] += nbytes
        return Count(
            operators=self.operators,
            flops=sum(self._flops.values()),
            forward_flops=_forward(self._flops),
            kernels=sum(self._kernels.values()),
            forward_kernels=_forward(self._kernels),
            memory_bytes=peak,
            forward_memory_bytes=forward_peak,
            backward=self.backward,
            uncounted=tuple(self._told(key, tree) for key in self._uncounted),
            modules=self._rows(tracker.called, tree, at_peak),
            devices=tuple(self.devices),
            threads=threads,
            processes=processes,
            raised=tuple(dict.fromkeys(_named(tree, id(each)) for each in tracker.raised)),
            by_operator=tuple(
                OperatorWork(operator, calls, flops)
                for operator, (calls, flops) in sorted(
                    self._by_operator.items(), key=lambda row: (-row[1][1], row[0])
                )
            ),
            held=tuple((kind, nbytes) for kind, nbytes in held.items() if nbytes),
            traced=traced,
            unopened=tuple(dict.fromkeys(self.unopened)),
        )

    def _read_log(self) -> None:
        flops, kernels, by_operator = self._flops, self._kernels, self._by_operator
        devices: dict[tuple[str, ...], None] = {}
        for (whole, owner), times in Counter(self.log).items():
            key = (owner, False)
            parts = (whole,) if whole.parts is None else whole.parts
            self.operators += times * len(parts)
            for entry in parts:
                if entry.flops:
                    calls, before = by_operator.get(entry.name, (0, 0))
                    by_operator[entry.name] = calls + times, before + times * entry.flops
                    flops[key] = flops.get(key, 0) + times * entry.flops
                if entry.kernels:
                    kernels[key] = kernels.get(key, 0) + times * entry.kernels
                devices[entry.devices] = None
        self.devices.update((device, None) for found in devices for device in found)
        self.log.clear()

    def _told(self, key: tuple[str, int, bool, bool], tree: ModuleTree) -> Uncounted:
        (operator, owner, backward, unseen), (calls, shapes, remedy) = key, self._uncounted[key]
        row = tree.row_of.get(owner)
        place = ("", "") if row is None else (tree.paths[row], tree.types[row])
        return Uncounted(operator, *place, calls, shapes, remedy, backward, unseen)

    def _rows(
        self,
        called: Iterable[int],
        tree: ModuleTree,
        at_peak: Mapping[tuple[int, Kind], int] | None,
    ) -> tuple[ModuleWork, ...]:
        row_of = tree.row_of
        present = [row_of[owner] for owner in called]
        columns: list[Sequence[int | None]] = []
        unknown = [None] * len(tree)
        for amounts in (self._flops, self._kernels, at_peak):
            if amounts is None:
                columns += [unknown, unknown]
                continue
            own = [0] * len(tree)
            for (owner, _), amount in amounts.items():
                if amount:
                    row = row_of.get(owner, 0)
                    own[row] += amount
                    present.append(row)
            columns += [own, tree.add_up(own)]
        lacking = [row_of.get(owner, 0) for _, owner, _, _ in self._uncounted]
        incomplete = {*tree.with_above(lacking)} if lacking else set()
        complete = [row not in incomplete for row in range(len(tree))]
        rows = [*zip(tree.paths, tree.types, *columns, complete, strict=True)]
        return tuple(ModuleWork._make(rows[row]) for row in tree.with_above(present))


def _forward(amounts: Mapping[tuple[int, bool], int]) -> int:
    return sum(amount for (_, backward), amount in amounts.items() if not backward)


def _named(tree: ModuleTree, owner: int) -> str:
    path, kind = tree.paths[tree.row_of[owner]], tree.types[tree.row_of[owner]]
    return kind if path in ("", kind) else f"{path} ({kind})"
