"""Which module is running, or made the autograd node that is.

Counts as inside a module: what runs between its forward pre-hook and its forward hook, and later
the backward of the autograd nodes made there. Nodes carry rising sequence numbers: the number at
every entry and exit of a module is noted, and a node belongs to the module its number falls into.
A backward that runs while a module is being called is part of that call.
Error sources: a second-order backward belongs to no module, nor do gradient accumulations.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from pytest_nnscale.naming import is_shell, parts_of
from pytest_nnscale.tree import ModuleTree

_thread = threading.get_ident
_autograd_node = torch._C._current_autograd_node
# An exception is compared by identity: holding on to it would keep the tensors of its frames alive.
_error: Callable[[], BaseException | None] = getattr(
    sys,
    "exception",
    lambda: sys.exc_info()[1],  # new in Python 3.11
)
_sequence_number = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]

NOWHERE = 0  # the owner of what runs outside any module; other owners are ids of modules


# A module on the stack: its id, itself, was it entered inside a backward, and while which error was
# handled. A plain tuple, as one is made at every call of a module.
_Running = tuple[int, nn.Module, bool, int]


class ModuleTracker:
    """Follows, by process-wide hooks, which module runs; needs no change to any module.

    `entered` is called with each module before it first runs, in the thread of `start`, unless it is
    in `known`, and whenever a compiled shell is entered. Calls of modules in other threads are only noted, by the
    name of the thread. `roots` are models whose parts may be called without them, as
    `model.forward(x)` does. `left` is called with each module that returned. `raised` are the
    modules that an exception left, and with them the call.
    """

    def __init__(
        self,
        entered: Callable[[nn.Module], None],
        roots: Iterable[nn.Module] = (),
        left: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self._entered, self._left = entered, left
        self._home = threading.get_ident()
        self.stack: list[_Running] = []  # of the home thread
        self._stacks: dict[int, list[_Running]] = {self._home: self.stack}
        self._numbers: list[int] = []
        self._owners: list[int] = []
        self._handles: list[Any] = []
        self.known: dict[int, nn.Module] = {}  # what needs no `entered` when it is called
        self.called: dict[int, nn.Module] = {}  # holds the modules, so that their ids stay theirs
        self.callers: dict[int, int] = {}
        self.tops: list[nn.Module] = [*roots]
        self.elsewhere: dict[str, None] = {}
        self.raised: list[nn.Module] = []

    def start(self) -> None:
        """Begin to follow."""
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]

    def stop(self) -> None:
        """Take the hooks off, whatever happened meanwhile, and let go of whom they told."""
        while self._handles:
            self._handles.pop().remove()
        self._entered, self._left = _nobody, None
        if self.stack and not self.stack[0][2]:
            self.raised.append(self.stack[0][1])  # torch ran no hook: see _leave
        self.stack.clear()
        self._stacks.clear()

    @property
    def in_call(self) -> bool:
        """Tell whether the home thread is calling a module, other than from a backward pass."""
        return len(self.stack) > 0 and not self.stack[0][2]

    def owner(self, node: Any) -> int:
        """Return the id of the module that runs, or that made the autograd node which runs."""
        stack = self._stacks.get(_thread())
        running = stack[-1][0] if stack else NOWHERE
        # Checkpointing runs a forward inside the backward; that is work of who runs it.
        if node is None or (stack and stack[-1][2]):
            return running
        position = bisect_right(self._numbers, node._sequence_nr()) - 1
        # AccumulateGrad has the largest number there is, and lies behind the last exit.
        return (self._owners[position] if position >= 0 else NOWHERE) or running

    def _enter(self, module: nn.Module, _args: object) -> None:
        thread, owner = _thread(), id(module)
        in_backward = _autograd_node() is not None
        if thread == self._home:
            stack = self.stack
        elif in_backward:
            stack = self._stacks.setdefault(thread, [])
        else:
            self.elsewhere.setdefault(threading.current_thread().name)
            return
        if owner not in self.called:
            known = owner in self.known
            if not known and is_shell(module):  # the module in it is called next
                self._entered(module)
                return
            self.called[owner] = module
            self.callers[owner] = stack[-1][0] if stack else NOWHERE
            if not known:
                self._found_top(module, stack, in_backward=in_backward)
                self._entered(module)
        if not stack:
            self._found_top(module, stack, in_backward=in_backward)
        stack.append((owner, module, in_backward, id(_error())))
        if thread == self._home:
            self._note(owner)

    def _found_top(
        self, module: nn.Module, stack: Sequence[_Running], *, in_backward: bool
    ) -> None:
        if not stack and not in_backward and all(module is not top for top in self.tops):
            self.tops.append(module)

    def _leave(self, module: nn.Module, _args: object, _output: object) -> None:
        thread, owner = _thread(), id(module)
        stack = self.stack if thread == self._home else self._stacks.get(thread, [])
        if not stack or (stack[-1][0] != owner and all(owner != each[0] for each in stack)):
            return
        while (left := stack.pop())[0] != owner:
            pass  # left by an exception that is no Exception: torch runs no hooks then
        if thread == self._home:
            self._note(stack[-1][0] if stack else NOWHERE)
        # torch runs this hook inside its `except` where the forward raised; that its output is
        # None would not tell, as a forward may return that.
        _, _, in_backward, handling = left
        if id(_error()) == handling:
            if self._left is not None:
                self._left(module)
        elif not stack and not in_backward:
            self.raised.append(module)

    def _note(self, owner: int) -> None:
        # Every thread numbers its nodes by itself; those of the forward are in the home thread.
        number = _sequence_number()
        if self._numbers and self._numbers[-1] == number:
            self._owners[-1] = owner  # no node was made since
        else:
            self._numbers.append(number)
            self._owners.append(owner)


def _nobody(_module: nn.Module) -> None:
    """Take no notice."""


def outermost(tops: list[nn.Module]) -> tuple[nn.Module, ...]:
    """Drop from modules those that are part of another of them."""
    if len(tops) == 1:
        return tuple(tops)
    parts = {id(part) for top in tops for part in parts_of(top) if part is not top}
    return tuple(top for top in tops if id(top) not in parts)


def hidden(tracker: ModuleTracker, tree: ModuleTree) -> list[nn.Module]:
    """Return the modules called that are not in the tree of the roots, and keep something."""
    if tracker.called.keys() <= tree.row_of.keys():
        return []
    return [
        module
        for owner, module in tracker.called.items()
        if owner not in tree.row_of and any(_keeps_something(part) for part in parts_of(module))
    ]


def _keeps_something(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return True
    own = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
    return any(isinstance(value, torch.Tensor | torch.ScriptObject) for value in own)


def with_hidden(tracker: ModuleTracker, tree: ModuleTree) -> ModuleTree:
    """Return a tree that has every module called.

    One that is no registered part of a root hangs below the module that called it, by its type.
    """
    if tracker.called.keys() <= tree.row_of.keys():
        return tree
    tree = ModuleTree(tree.roots)
    for owner, module in tracker.called.items():
        if owner not in tree.row_of:
            tree.hang(module, tree.row_of.get(tracker.callers[owner], 0))
    return tree
