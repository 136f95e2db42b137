"""The progress of a comparison: a bar on a terminal, lines elsewhere, and on stderr."""

from __future__ import annotations

import pytest

from pytest_nnscale.ab.progress import shown_progress


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def test_a_terminal_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the name of the test as it is, brackets and all."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown_progress() as show:
        show("restart 2: t.py::test[bold]", 7, 36)
    told = capsys.readouterr()
    assert "7/36" in told.err
    assert "restart 2: t.py::test[bold]" in told.err
    assert told.out == ""


def test_elsewhere_each_restart_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A log has no use for a bar, and whoever reads it wants to know that it goes on."""
    with shown_progress() as show:
        show("restart 1: starting", 0, 0)
        show("restart 1: t.py::test[bold]", 0, 12)
        show("restart 2: starting", 2, 12)
        show("still waiting for base after 30 s; restart 2: t.py::test[bold]", 2, 0)
        show("restart 2: t.py::test_b", 3, 12)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "nnscale: restart 1",
        "nnscale: restart 2, 2 of 12 steps done",
        "nnscale: still waiting for base after 30 s; restart 2: t.py::test[bold]",
    ]
