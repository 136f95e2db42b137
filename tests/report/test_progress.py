"""The passing line: shown while a sampled budget takes its seconds, on a terminal, and only then."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_nnscale.budget import Budget
from pytest_nnscale.measurement import Metric
from pytest_nnscale.report.progress import announcer

FLOPS, LATENCY = Budget(Metric.FLOPS, 8), Budget(Metric.LATENCY, 1.0)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the texts that rich was asked to show."""
    texts: list[str] = []

    class Console:
        def __init__(self, **how: object) -> None:
            assert how == {"stderr": True}  # stdout may be piped into a file

        def status(self, text: str) -> Any:
            texts.append(text)
            return contextlib.nullcontext()

    monkeypatch.setattr("rich.console.Console", Console)
    return texts


def config_of(*, isatty: bool = True, verbosity: int = 0, **plugins: object) -> Any:
    reporter = SimpleNamespace(isatty=isatty, verbosity=verbosity)
    capture = SimpleNamespace(global_and_fixture_disabled=contextlib.nullcontext)
    known = {"terminalreporter": reporter, "capturemanager": capture, **plugins}
    return SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=known.get))


def test_a_terminal_shows_what_is_sampled(shown: list[str]) -> None:
    """The metric and the model."""
    with announcer(config_of())([FLOPS, LATENCY], "ResNet"):
        assert shown == ["measuring latency of ResNet"]


@pytest.mark.parametrize(
    ("config", "budgets"),
    [
        (config_of(), [FLOPS]),
        (config_of(isatty=False), [LATENCY]),
        (config_of(verbosity=-1), [LATENCY]),
        (config_of(terminalreporter=None), [LATENCY]),
        (config_of(capturemanager=None), [LATENCY]),
    ],
    ids=["exact budgets", "no terminal", "-q", "-p no:terminal", "-p no:capture"],
)
def test_nothing_is_shown_elsewhere(config: Any, budgets: list[Budget], shown: list[str]) -> None:
    """The measurement runs all the same."""
    with announcer(config)(budgets, "ResNet"):
        assert shown == []
