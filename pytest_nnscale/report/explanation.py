"""A verdict in words: what happened, the two numbers, where, what next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_nnscale.budget import Budget, Outcome, Verdict
from pytest_nnscale.marks import MARK_FOR, MARK_FOR_RATIO
from pytest_nnscale.measurement import Measurement, Metric, Share
from pytest_nnscale.units import format_pair, format_percent, format_quantity

# What a number does, of which it is sure and not, and what it is held against.
_NEEDS = "needs", "takes", "budget"
_REACHES = "reaches", "reaches", "budget at least"
_NEXT = {
    False: "make the model smaller, or raise the budget",
    True: "find what holds it up, such as many small operators, or lower the budget",
}


def explain(verdicts: Sequence[Verdict], *, verbosity: int = 0, several_calls: bool = False) -> str:
    """Return one message for some verdicts of a test, a paragraph each."""
    paragraphs = (
        _paragraph(verdict, verbosity, several_calls=several_calls) for verdict in verdicts
    )
    return "\n".join("\n".join(lines) for lines in paragraphs)


def headline(verdict: Verdict, *, several_calls: bool = False) -> str:
    """Return the first line of a verdict: the fact and its numbers."""
    budget, found = verdict.budget, verdict.measurement
    call = f" (call {verdict.call})" if several_calls and verdict.call else ""
    subject = found.subject or "the test"
    return f"{title(budget)}: {subject}{call} {_fact(verdict)}{_if_estimated(found)}"


def title(budget: Budget) -> str:
    """Return a budget's name with what qualifies it: "max_latency_ms (p95)"."""
    if budget.metric is Metric.RATIO and not budget.relative_to:
        return "nnscale.compare"
    name = MARK_FOR.get(budget.metric.value, MARK_FOR_RATIO)
    return f"{name} ({budget.qualifiers})" if budget.qualifiers else name


def absence(verdict: Verdict) -> str:
    """Return why a test is skipped that this machine cannot measure, and what would make it red."""
    found = verdict.measurement
    parts = [headline(verdict), found.remedy]
    if found.missing:
        parts.append(f"--nnscale-require={found.missing} makes its absence a failure")
    return "; ".join(part for part in parts if part)


def _fact(verdict: Verdict) -> str:
    budget, found = verdict.budget, verdict.measurement
    dimension = budget.metric.dimension
    limit = format_quantity(budget.limit, dimension)
    needs, takes, asked = _NEEDS if not budget.metric.more_is_better else _REACHES
    if verdict.outcome is Outcome.OVER and found.lower is not None and needs == "needs":
        value = found.lower if found.value is None or found.upper is None else found.value
        amount, limit = format_pair(value, budget.limit, dimension)
        excess = value - budget.limit
        at_least = "at least " if found.upper is None else ""
        return (
            f"needs {at_least}{amount}{_interval(found)}, budget {limit} "
            f"(+{format_quantity(excess, dimension)}, +{format_percent(excess, budget.limit)})"
        )
    between = found.lower is not None and found.upper is not None
    if verdict.outcome is Outcome.UNMEASURED and between:
        low, high = format_pair(found.lower or 0, found.upper or 0, dimension)
        return (
            f"could not be measured, {asked} {limit}: it {takes} between {low} and {high}, too far "
            "apart to say on which side"
        )
    if verdict.outcome is Outcome.UNMEASURED:
        known = f"; counted so far {format_quantity(found.value, dimension)}" if found.value else ""
        return f"could not be measured, {asked} {limit}{known}: {found.reason}"
    if verdict.outcome is Outcome.INCONCLUSIVE and between:
        low, high = format_pair(found.lower or 0, found.upper or 0, dimension)
        why = f", since {found.disturbed}" if found.disturbed else ""
        return f"{takes} between {low} and {high}, {asked} {limit}: inconclusive{why}"
    amount, limit = format_pair(found.value or 0, budget.limit, dimension)
    return f"{needs} {amount}{_interval(found)}, {asked} {limit}"


def _if_estimated(found: Measurement) -> str:
    return ": an estimate, no measurement" if found.estimated else ""


def _interval(found: Measurement) -> str:
    if found.lower is None or found.upper is None or found.lower == found.upper:
        return ""
    dimension = found.metric.dimension
    low, high = format_pair(found.lower, found.upper, dimension)
    return f" (between {low} and {high})"


def _paragraph(verdict: Verdict, verbosity: int, *, several_calls: bool) -> Iterator[str]:
    found = verdict.measurement
    yield headline(verdict, several_calls=several_calls)
    if verdict.outcome is Outcome.OVER:
        yield from _breakdown(found, verbosity)
        if found.upper is None and found.reason:
            yield f"  a lower bound: {found.reason}"
    for note in found.notes:
        yield f"  note: {note}"
    if verdict.outcome is Outcome.OVER:
        if not verdict.budget.own:
            yield f"  the budget comes from {verdict.budget.origin}"
        hidden = len(largest(found.shares, 2)) > len(largest(found.shares, verbosity))
        more = ", or see every module with: pytest -vv" if hidden else ""
        yield f"  {_next(verdict.budget)}{more}"
    elif found.remedy:
        yield f"  {found.remedy}"
    elif verdict.outcome is Outcome.WITHIN and found.estimated:
        # It is red all the same: --nnscale-require has asked for more.
        yield (
            f"  --nnscale-require={found.metric.value} takes a measurement: drop "
            "nnscale_energy_source=estimate, and see nnscale energy for what this machine can count"
        )
    elif verdict.outcome is Outcome.UNMEASURED and found.upper is not None:
        yield "  give it longer, --nnscale-max-time=SECONDS, on a machine that does nothing else"


def _next(budget: Budget) -> str:
    if budget.metric is Metric.RATIO and not budget.relative_to:
        return "make the first call faster, or raise max_ratio="
    return _NEXT[budget.metric.more_is_better]


def _breakdown(found: Measurement, verbosity: int) -> Iterator[str]:
    rows = largest(found.shares, verbosity)
    if not rows:
        return
    dimension = found.metric.dimension
    whole = next((share.total for share in found.shares if not share.path), found.value or 0)
    paths = [share.path or "(itself)" for share in rows]
    amounts = [format_quantity(share.total, dimension) for share in rows]
    wide, broad = max(map(len, paths)), max(map(len, amounts))
    for share, path, amount in zip(rows, paths, amounts, strict=True):
        percent = format_percent(share.total, whole)
        yield f"  {path:<{wide}}  {amount:>{broad}}  {percent:>7}  {share.type}".rstrip()


def largest(shares: Sequence[Share], verbosity: int = 0) -> list[Share]:
    """Choose the modules that hold most of a measurement, largest first.

    By default at most five that do not contain one another, found by opening the largest until
    there are three; up to ten with `-v`; every module with `-vv`.
    """
    by_path = {share.path: share for share in shares}
    if verbosity >= 2:
        return sorted((s for s in shares if s.path and s.total), key=lambda s: -s.total)
    few, most = (3, 5) if verbosity <= 0 else (8, 10)
    rows = _opened(by_path[""], shares) if "" in by_path else list(shares)
    while len(rows) < few:
        openable = [
            row
            for row in rows
            if (row.path and len(_opened(row, shares)) > 1) or _single(row, shares)
        ]
        if not openable:
            break
        row = max(openable, key=lambda share: share.total)
        rows.remove(row)
        rows += _opened(row, shares)
    return sorted(rows, key=lambda share: -share.total)[:most]


def _single(row: Share, shares: Sequence[Share]) -> bool:
    return bool(row.path) and len(_opened(row, shares)) == 1 and _opened(row, shares)[0] != row


def _opened(share: Share, shares: Sequence[Share]) -> list[Share]:
    """Return the direct children of a module that hold anything, and what it holds by itself."""
    prefix = f"{share.path}." if share.path else ""
    children = [
        other
        for other in shares
        if other.total
        and other.path
        and other.path.startswith(prefix)
        and "." not in other.path[len(prefix) :]
    ]
    if not children:
        return [share]
    if share.own:
        children.append(Share(share.path, share.type, share.own, share.own))
    return children
