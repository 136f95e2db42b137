"""The session's verdicts, gathered where its reports arrive, and what they come to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_nnscale.budget import Outcome, Verdict
from pytest_nnscale.keys import IDLE, NOT_RUN, VERDICT


@dataclass
class Tally:
    """What became of every budget of a session.

    `covered` counts the tests that each inherited origin was collected for; None while no process
    has told.
    """

    verdicts: dict[str, tuple[Verdict, ...]] = field(default_factory=dict)
    not_run: dict[str, int] = field(default_factory=dict)
    idle: dict[str, tuple[str, ...]] = field(default_factory=dict)
    covered: dict[str, int] = field(default_factory=dict)
    mistakes: tuple[str, ...] = ()
    idle_rules: tuple[str, ...] = ()

    def add(self, nodeid: str, properties: Iterable[tuple[str, Any]], *, xfailed: bool) -> None:
        """Take in the properties of one test's report; a later run of the test replaces it."""
        verdicts, not_run, idle = [], 0, []
        for name, value in properties:
            if name == VERDICT:
                verdicts.append(Verdict.from_dict(json.loads(value)))
            elif name == NOT_RUN:
                not_run += int(value)
            elif name == IDLE:
                idle.append(str(value))
        if xfailed:
            verdicts, not_run = [], not_run + len(verdicts)
        self.verdicts[nodeid] = tuple(verdicts)
        self.not_run[nodeid] = not_run
        self.idle[nodeid] = tuple(idle)

    def learn(self, told: Mapping[str, Any]) -> None:
        """Take in what a process found when it collected; every worker says the same."""
        self.covered = dict(told["covered"])
        self.mistakes = tuple(dict.fromkeys((*self.mistakes, *told["mistakes"])))
        self.idle_rules = tuple(told["idle_rules"])

    @property
    def all_verdicts(self) -> list[tuple[str, Verdict]]:
        """Every verdict with the id of its test."""
        return [(nodeid, v) for nodeid, some in self.verdicts.items() for v in some]

    @property
    def empty(self) -> bool:
        """Whether the session had no budget at all."""
        return not (self.all_verdicts or any(self.not_run.values()) or self.idle_origins)

    @property
    def idle_origins(self) -> dict[str, int]:
        """Inherited origins that judged nothing, with the number of tests that ran under each."""
        judged = {v.budget.origin for _, v in self.all_verdicts}
        ran = Counter(origin for some in self.idle.values() for origin in some)
        return {origin: tests for origin, tests in ran.items() if origin not in judged}

    @property
    def vain_origins(self) -> list[str]:
        """Inherited origins of which every test ran and none measured anything: those are red."""
        return [o for o, tests in self.idle_origins.items() if tests >= self.covered.get(o, 0)]

    @property
    def closing_line(self) -> str:
        """The line that says what every budget came to."""
        outcomes = Counter(verdict.outcome for _, verdict in self.all_verdicts)
        not_run = sum(self.not_run.values())
        total = sum(outcomes.values()) + not_run
        parts = [
            f"{outcomes[outcome]} {outcome.value}"
            for outcome in (
                Outcome.WITHIN,
                Outcome.OVER,
                Outcome.INCONCLUSIVE,
                Outcome.UNMEASURED,
            )
        ]
        if not_run:
            parts.append(f"{not_run} not run")
        return f"{total} budget{'' if total == 1 else 's'}: {', '.join(parts)}"
