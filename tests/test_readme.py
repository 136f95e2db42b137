"""The README: its example passes as written and fails as shown, and its table has every option."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pytest_nnscale.marks import MARKS
from pytest_nnscale.options import OPTIONS, REQUIRABLE, Option, Options

README = Path(__file__).parents[1] / "README.md"
ARGS = ("--nnscale-max-time=1", "-p", "no:cacheprovider")


def block(after: str) -> str:
    """Return the first fenced block of the README below a text."""
    below = README.read_text(encoding="utf-8").partition(after)[2]
    found = re.search(r"```\w*\n(.*?)```", below, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_the_table_has_every_option(option: Option) -> None:
    """With its flag, its ini key and its default."""
    (row,) = (line for line in table("## Options") if f"`{option.flag} " in line)
    assert f"| `{option.key}`" in row
    default = getattr(Options(), option.name)
    shown = "no" if default is False else f"{default:g}" if isinstance(default, float) else default
    shown = option.metavar if default is None else shown
    assert option.repeats or f"`{option.flag} {shown}`" in row
    if option.name == "require":
        assert all(f"`{name}`" in row for name in REQUIRABLE)


def test_the_table_has_no_other_option() -> None:
    """One that is gone is not promised."""
    assert len(table("## Options")) == len(OPTIONS) + 2


def test_the_table_of_marks_has_every_mark() -> None:
    """And no other."""
    rows = [re.match(r"\| `(\w+)`", line) for line in table("## Marks")]
    assert [row[1] for row in rows if row] == [spec.name for spec in MARKS]


def table(heading: str) -> list[str]:
    """Return the lines of the first table below a heading."""
    below = README.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return [line for line in below.splitlines() if line.startswith("|")]


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
