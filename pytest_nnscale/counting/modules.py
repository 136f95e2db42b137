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
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from pytest_nnscale.naming import class_name, is_shell, named_parts

NOWHERE = 0  # the owner of what runs outside any module; other owners are ids of modules


class _Running(NamedTuple):
    """A module on the stack: was it entered inside a backward, and while which error was handled."""

    module: nn.Module
    in_backward: bool
    handling: int


class ModuleTracker:
    """Follows, by process-wide hooks, which module runs; needs no change to any module.

    `entered` is called with each module before it runs, in the thread of `start`. Calls of
    modules in other threads are only noted, by the name of the thread. `roots` are models whose
    parts may be called without them, as `model.forward(x)` does. `left` is called with each
    module that returned. `raised` are the modules that an exception left, and with them the call.
    """

    def __init__(
        self,
        entered: Callable[[nn.Module], None],
        roots: Iterable[nn.Module] = (),
        left: Callable[[nn.Module], None] = lambda _module: None,
    ) -> None:
        self._entered, self._left = entered, left
        self._home = threading.get_ident()
        self._stacks: dict[int, list[_Running]] = {}
        self._numbers: list[int] = []
        self._owners: list[int] = []
        self._handles: list[Any] = []
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
        """Take the hooks off, whatever happened meanwhile."""
        while self._handles:
            self._handles.pop().remove()
        left_behind = self._stacks.get(self._home)
        if left_behind and not left_behind[0].in_backward:
            self.raised.append(left_behind[0].module)  # torch ran no hook: see _leave
        self._stacks.clear()

    @property
    def in_call(self) -> bool:
        """Tell whether the home thread is calling a module, other than from a backward pass."""
        stack = self._stacks.get(self._home)
        return stack is not None and len(stack) > 0 and not stack[0].in_backward

    def owner(self, node: Any) -> int:
        """Return the id of the module that runs, or that made the autograd node which runs."""
        stack = self._stacks.get(threading.get_ident())
        running = id(stack[-1].module) if stack else NOWHERE
        # Checkpointing runs a forward inside the backward; that is work of who runs it.
        if node is None or (stack and stack[-1].in_backward):
            return running
        position = bisect_right(self._numbers, node._sequence_nr()) - 1
        # AccumulateGrad has the largest number there is, and lies behind the last exit.
        return (self._owners[position] if position >= 0 else NOWHERE) or running

    def _enter(self, module: nn.Module, _args: object) -> None:
        if is_shell(module):  # a shell: the module in it is called next
            self._entered(module)
            return
        thread = threading.get_ident()
        in_backward = torch._C._current_autograd_node() is not None
        if thread != self._home and not in_backward:
            self.elsewhere.setdefault(threading.current_thread().name)
            return
        stack = self._stacks.setdefault(thread, [])
        if id(module) not in self.called:
            self.called[id(module)] = module
            self.callers[id(module)] = id(stack[-1].module) if stack else NOWHERE
        if not stack and not in_backward and all(module is not top for top in self.tops):
            self.tops.append(module)
        self._entered(module)
        stack.append(_Running(module, in_backward, _handled()))
        self._note(thread, id(module))

    def _leave(self, module: nn.Module, _args: object, _output: object) -> None:
        thread = threading.get_ident()
        stack = self._stacks.get(thread, [])
        if all(module is not running.module for running in stack):
            return
        while (left := stack.pop()).module is not module:
            pass  # left by an exception that is no Exception: torch runs no hooks then
        self._note(thread, id(stack[-1].module) if stack else NOWHERE)
        # torch runs this hook inside its `except` where the forward raised; that its output is
        # None would not tell, as a forward may return that.
        if _handled() == left.handling:
            self._left(module)
        elif not stack and not left.in_backward:
            self.raised.append(module)

    def _note(self, thread: int, owner: int) -> None:
        # Every thread numbers its nodes by itself; those of the forward are in the home thread.
        if thread == self._home:
            self._numbers.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
            self._owners.append(owner)


def _handled() -> int:
    # By identity: an exception that is held on to keeps the tensors of its frames alive.
    return id(sys.exc_info()[1])


def outermost(tops: list[nn.Module]) -> tuple[nn.Module, ...]:
    """Drop from modules those that are part of another of them."""
    parts = {id(part) for top in tops for part in top.modules() if part is not top}
    return tuple(top for top in tops if id(top) not in parts)


def hidden(tracker: ModuleTracker) -> list[nn.Module]:
    """Return the modules called that are no registered part of a root, and keep something."""
    parts = {id(part) for top in tracker.tops for part in top.modules()}
    return [
        module
        for owner, module in tracker.called.items()
        if owner not in parts and any(_keeps_something(part) for part in module.modules())
    ]


def _keeps_something(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return True
    own = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
    return any(isinstance(value, torch.Tensor | torch.ScriptObject) for value in own)


def places(tracker: ModuleTracker) -> dict[int, tuple[str, str]]:
    """Return path and type of every module under the roots, and of every other one called.

    A module that is no registered part of a root hangs below the module that called it, by its
    type.
    """
    parts = named_parts(outermost(tracker.tops))
    found = {id(module): (path, class_name(module)) for path, module in parts}
    for owner, module in tracker.called.items():
        if owner not in found:
            above = found.get(tracker.callers[owner], ("", ""))[0]
            kind = class_name(module)
            found[owner] = (f"{above}.{kind}" if above else kind, kind)
    return found
