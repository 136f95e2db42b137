"""Partners: what is said of a worker that has ended, or that keeps the other side waiting."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_nnscale.ab import partner as module
from pytest_nnscale.ab.partner import Died, Partner, Place

# Answers instead of pytest, from a file of its name in the folder that leads the import path.
WORKER = """
import json, os, sys, time
reads, writes = json.loads(os.environ["PYTEST_NNSCALE_AB"])["pipes"]
def say(**message): os.write(writes, json.dumps(message).encode() + b"\\n")
print("what it printed", flush=True)
{does}
"""


class FakeTree:
    """As much of a tree as a worker is started with."""

    side, name, python, root, caches = "base", "main (1234)", sys.executable, Path(), ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Partner]:
    """Return `start(does)`: a worker that does that, where pytest would run."""
    monkeypatch.setattr(
        module, "environment", lambda *_: {**os.environ, "PYTHONPATH": str(tmp_path)}
    )

    def run(does: str, **how: Any) -> Partner:
        (tmp_path / "pytest.py").write_text(WORKER.format(does=does))
        return Partner(Place(FakeTree(tmp_path)), [], **how)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize(
    ("does", "how"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by signal 9 (SIGKILL)"),
        ("os.kill(os.getpid(), 11)", "was killed by signal 11 (SIGSEGV)"),
        ("os._exit(3)", "exited with 3"),
    ],
)
def test_how_a_worker_died_is_told(start: Callable[..., Partner], does: str, how: str) -> None:
    """With the name of the signal, and what it had printed."""
    with start(does) as worker, pytest.raises(Died) as caught:
        worker.advance()
    expected = f"base (main (1234)): it ended in the middle of a test: it {how}"
    assert str(caught.value) == expected
    assert caught.value.how == how
    assert caught.value.output == "what it printed\n"


def test_a_part_of_a_word_is_no_message(
    start: Callable[..., Partner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was waited for is taken."""
    monkeypatch.setattr(module, "_TO_END_S", 0.1)
    with start("say(**{'is': 'ted'})\ntime.sleep(60)") as worker, pytest.raises(Died) as caught:
        worker.advance()
    assert caught.value.how == "said nothing that makes sense, and did not end"


def test_whoever_is_waited_for_is_named(
    start: Callable[..., Partner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a while, for as long as it takes; there is no limit, since a test may be long."""
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    monkeypatch.setattr(module, "_TELL_S", 0.05)
    told: list[tuple[str, float]] = []
    does = "time.sleep(0.5)\nsay(**{'is': 'tested'})\nsys.stdin.read()"
    with start(does, waits=lambda side, seconds: told.append((side, seconds))) as worker:
        assert worker.advance() == {"is": "tested"}
    assert {side for side, _ in told} == {"base"}
    assert all(0.05 <= seconds < 60 for _, seconds in told)


def test_what_a_worker_writes_by_the_way_goes_with_it(start: Callable[..., Partner]) -> None:
    """Its folder is there while it runs."""
    does = "say(**{'is': 'tested', **json.loads(os.environ['PYTEST_NNSCALE_AB'])})\ntime.sleep(60)"
    with start(does) as worker:
        scratch = Path(worker.advance()["scratch"])
        assert scratch.is_dir()
    assert not scratch.exists()
