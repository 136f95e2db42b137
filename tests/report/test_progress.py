"""The passing line: shown while a sampled budget takes its seconds, on a terminal, and only then."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_nnscale.budget import Budget
from pytest_nnscale.measurement import Metric
from pytest_nnscale.report.progress import announcer, teller

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
            return contextlib.nullcontext(SimpleNamespace(update=texts.append))

    monkeypatch.setattr("rich.console.Console", Console)
    return texts


def config_of(*, isatty: bool = True, verbosity: int = 0, **plugins: object) -> Any:
    reporter = SimpleNamespace(isatty=isatty, verbosity=verbosity)
    capture = SimpleNamespace(global_and_fixture_disabled=contextlib.nullcontext)
    known = {"terminalreporter": reporter, "capturemanager": capture, **plugins}
    return SimpleNamespace(
        pluginmanager=SimpleNamespace(get_plugin=known.get),
        stash=pytest.Stash(),
        get_verbosity=lambda: verbosity,
    )


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


def test_the_spinner_says_for_whom_it_waits(shown: list[str]) -> None:
    """And then again what is measured."""
    config = config_of()
    tell = teller(config)
    with announcer(config)([LATENCY], "ResNet"):
        tell("waiting for test_b (gw1, process 123)")
        tell("")
    measuring = "measuring latency of ResNet"
    assert shown == [
        measuring, f"{measuring}: waiting for test_b (gw1, process 123)", measuring
    ]  # fmt: skip


@pytest.mark.parametrize("plugins", [{}, {"terminalreporter": None, "capturemanager": None}])
def test_without_a_spinner_a_line_says_it(
    plugins: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """On workers and where nobody looks on, too; once, and not with -q."""
    tell = teller(config_of(isatty=False, **plugins))
    tell("waiting for test_b")
    tell("")
    teller(config_of(verbosity=-1))("waiting for test_c")
    assert capsys.readouterr().err == "\nnnscale: waiting for test_b\n"
