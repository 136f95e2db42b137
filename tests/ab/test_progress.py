"""The progress of a comparison: on a terminal, on stderr, and nowhere else."""

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


def test_elsewhere_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A log has no use for a bar."""
    with shown_progress() as show:
        show("restart 2: t.py::test[bold]", 7, 36)
    assert capsys.readouterr() == ("", "")
