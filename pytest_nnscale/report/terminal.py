"""The end of a session: a table of budgets, and the line that counts them."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_nnscale.budget import Outcome
from pytest_nnscale.report.table import budget_table
from pytest_nnscale.tally import Tally


def summary(tally: Tally, *, width: int, verbosity: int) -> Iterator[tuple[str, str]]:
    """Yield lines with their colour, "" for none; with `-q` the closing line alone."""
    verdicts = tally.all_verdicts
    if verdicts and verbosity >= 0:
        yield " budgets ".center(width, "="), ""
        for line in budget_table(verdicts, width=width, everything=verbosity > 0):
            yield line, ""
    for sentence in in_vain(tally):
        yield sentence, "red"
    outcomes = {verdict.outcome for _, verdict in verdicts}
    colour = "green"
    if outcomes & {Outcome.UNMEASURED, Outcome.INCONCLUSIVE} or not verdicts:
        colour = "yellow"
    if Outcome.OVER in outcomes or tally.vain_origins:
        colour = "red"
    yield tally.closing_line, colour


def in_vain(tally: Tally) -> Iterator[str]:
    """Yield a sentence for each budget that makes the session red by judging nothing at all."""
    for origin in tally.vain_origins:
        yield (
            f"{origin} judged nothing: none of its {tally.idle_origins[origin]} tests ran a tensor "
            "operator; take it off, or call a model in one of them"
        )
