"""A passing line on the terminal while a sampled budget takes its seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest

from pytest_nnscale.budget import Budget

Announcer = Callable[[Sequence[Budget], str], AbstractContextManager[None]]


def announcer(config: pytest.Config) -> Announcer:
    """Return what shows a spinner around sampled measurements, where the terminal is one."""

    @contextmanager
    def announce(budgets: Sequence[Budget], subject: str) -> Iterator[None]:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        sampled = [budget.metric.value for budget in budgets if budget.metric.sampled]
        if not sampled or reporter is None or not reporter.isatty or reporter.verbosity < 0:
            yield
            return
        from rich.console import Console

        capture = config.pluginmanager.get_plugin("capturemanager")
        # Captured output would swallow the spinner; what the model prints meanwhile stays ours
        # to drop, since the test's own call has printed it already.
        text = f"measuring {' and '.join(dict.fromkeys(sampled))} of {subject}"
        if capture is None:
            yield
            return
        with capture.global_and_fixture_disabled(), Console(stderr=True).status(text):
            yield

    return announce
