"""The README's example: it passes as written, and fails as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"
ARGS = ("--nnscale-max-time=1", "-p", "no:cacheprovider")


def block(after: str) -> str:
    """Return the first fenced block of the README below a text."""
    below = README.read_text(encoding="utf-8").partition(after)[2]
    found = re.search(r"```\w*\n(.*?)```", below, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_the_readmes_example_passes_and_its_wider_model_fails_as_shown(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exact budgets hold; doubled in width, the message is the README's, line by line."""
    pytest.importorskip("torchvision")
    monkeypatch.setenv("COLUMNS", "160")
    source = block("turns a test red")
    # The time is this machine's, now: only the exact marks are asked to hold.
    exact = re.sub(r"@pytest.mark.max_latency_ms.*\n", "", source)
    assert exact != source
    assert "max_flops" in exact
    path = pytester.makepyfile(exact)
    result: Any = pytester.runpytest_subprocess(*ARGS)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    path.write_text(exact.replace("resnet50()", "resnet50(width_per_group=128)"))
    result = pytester.runpytest_subprocess(*ARGS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    shown = block("Double the width").splitlines()
    start = result.outlines.index(shown[0])
    assert result.outlines[start : start + len(shown)] == shown
