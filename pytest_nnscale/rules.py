"""Budgets for tests by node-id glob: a line of `nnscale_budgets` made into a rule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pytest_nnscale.budget import Budget
from pytest_nnscale.errors import BadBudget, BadOption
from pytest_nnscale.grammar import parse_mark
from pytest_nnscale.marks import MARK_OF

_RULE = re.compile(r"(?P<glob>.*?\S)\s*:\s+(?P<budgets>\w+\s*=.*)", re.DOTALL)
# Asked second: without a space only a mark's name tells the colon from those inside node ids.
_TIGHT_RULE = re.compile(r"(?P<glob>.*?[^\s:])\s*:(?P<budgets>(?:max|min)_\w+\s*=.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """Budgets for every test whose node id matches a glob."""

    glob: str
    budgets: tuple[Budget, ...]

    def matches(self, nodeid: str) -> bool:
        """Tell whether a node id is meant; `*` crosses folders, as in fnmatch.

        A node id means itself, although the brackets of its parametrisation are a set to fnmatch.
        """
        return nodeid == self.glob or fnmatchcase(nodeid, self.glob)


def parse_rule(line: str) -> Rule:
    """Read `tests/models/*: max_params=100M, max_flops=20 GFLOP`."""
    match = _RULE.fullmatch(line.strip()) or _TIGHT_RULE.fullmatch(line.strip())
    if match is None:
        raise BadOption(
            f"nnscale_budgets: {line.strip()!r} is not GLOB: max_...=LIMIT, ...; "
            "for example  tests/models/*: max_params=100M, max_flops=20 GFLOP"
        )
    budgets: dict[str, Budget] = {}
    # A comma followed by name= starts the next budget; any other groups digits.
    for part in re.split(r",\s*(?=[A-Za-z_]\w*\s*=)", match["budgets"]):
        name, _, limit = (piece.strip() for piece in part.partition("="))
        spec = MARK_OF.get(name)
        if spec is None:
            raise BadOption(
                f"nnscale_budgets: unknown mark {name!r} in {line.strip()!r}; "
                f"valid are {', '.join(MARK_OF)}"
            )
        if name in budgets:
            raise BadOption(f"nnscale_budgets: {name} twice in {line.strip()!r}; keep one")
        try:
            budgets[name] = parse_mark(
                spec,
                (limit.rstrip(", "),),
                {},
                parametrisation=None,
                origin=f"nnscale_budgets {match['glob']!r}",
                own=False,
            )
        except BadBudget as error:
            raise BadOption(f"nnscale_budgets: {name} in {line.strip()!r}: {error}") from error
    return Rule(match["glob"], tuple(budgets.values()))
