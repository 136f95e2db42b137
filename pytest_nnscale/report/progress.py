"""Passing lines while a sampled budget takes its seconds, and while one waits for others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget

if TYPE_CHECKING:
    from rich.status import Status

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
        console = Console(stderr=True)
        with capture.global_and_fixture_disabled(), console.status(text) as status:
            config.stash[keys.SPINNER] = status, text
            try:
                yield
            finally:
                del config.stash[keys.SPINNER]

    return announce


def teller(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows for whom one waits: beside the spinner, else in a line on stderr."""

    def tell(waiting: str) -> None:
        spinner: tuple[Status, str] | None = config.stash.get(keys.SPINNER, None)
        if spinner is not None:
            status, text = spinner
            status.update(f"{text}: {waiting}" if waiting else text)
        elif waiting and config.get_verbosity() >= 0:
            capture = config.pluginmanager.get_plugin("capturemanager")
            with capture.global_and_fixture_disabled() if capture else nullcontext():
                sys.stderr.write(f"\nnnscale: {waiting}\n")
                sys.stderr.flush()

    return tell
