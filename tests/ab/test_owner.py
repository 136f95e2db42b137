"""Owners: who made a worktree, and whether that process is gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_nnscale.ab.owner import Owner


def test_an_owner_survives_as_text() -> None:
    """Git keeps it as the reason of a lock, with a line's end."""
    assert Owner.read(f"{Owner.ours().text}\n") == Owner.ours()
    assert Owner.ours().pid == os.getpid()


@pytest.mark.parametrize("text", ["", "initializing", "on a disk that is not plugged in"])
def test_a_lock_of_somebody_else_has_no_owner(text: str) -> None:
    """It is theirs to remove."""
    assert Owner.read(text) is None


def test_an_owner_is_gone_with_its_process() -> None:
    """Of another machine's nothing is known: the folder may be shared."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not Owner.ours().is_gone
    assert Owner.ours()._replace(pid=ended.pid).is_gone
    assert not Owner(ended.pid, "elsewhere").is_gone
