"""What came of a comparison: values that survive JSON.

The JSON of `nnscale ab --json`, times in seconds, shares as fractions; what is not known is null::

    format        1, raised when something here changes its meaning
    base, head    name, commit (of the working tree the one it was edited from), versions, threads,
                  dirty (whether its files differ from the commit)
    threshold, confidence, restarts, took_s
    comparisons   one for each call of each test:
        test, call, phase, subject, file    which it is; call 0 is the test's body
        change        slower, faster, same, inconclusive, only in base, only in head, skipped, unmeasured
        ratio         value, low, high: head's time by base's
        base_s, head_s                      medians over the restarts
        log_ratios, seconds                 of each restart: the logarithm of its ratio; base's and head's
        exact         base, head: what was counted, by metric, as a profile has it
        causes        what of it differs: metric, base, head, and the modules that make the difference
        reason, remedy, output              why there is no verdict, what to do, what was printed
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from pytest_nnscale.ab.cause import find_causes
from pytest_nnscale.ab.ratio import Change, Ratio
from pytest_nnscale.budget import Phase
from pytest_nnscale.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Timing:
    """What the restarts of one call gave: the ratio, and the logarithm of each restart's.

    `base_s` and `head_s` are medians over the restarts, `seconds` has those of each restart.
    """

    ratio: Ratio
    base_s: float
    head_s: float
    logs: tuple[float, ...]
    seconds: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One call of one test in both trees.

    `call` numbers the calls of a test that makes several through the fixture; 0 is its body. `base`
    and `head` are what was counted of it. `reason` says why nothing was compared, or what else to know
    of it, `remedy` what to do. `output` is what was printed where it ended badly. `file` is where the
    test stands, from where the command was started.
    """

    test: str
    change: Change
    call: int = 0
    phase: Phase = "inference"
    subject: str = ""
    timing: Timing | None = None
    base: tuple[Measurement, ...] = ()
    head: tuple[Measurement, ...] = ()
    reason: str = ""
    remedy: str = ""
    output: str = ""
    file: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON types: see the top of this file."""
        timing = self.timing
        exact = {
            side: {m.metric.value: m.without_details().to_dict() for m in found}
            for side, found in (("base", self.base), ("head", self.head))
        }
        return {
            "test": self.test,
            "call": self.call,
            "phase": self.phase,
            "subject": self.subject,
            "change": self.change.value,
            "ratio": None if timing is None else _finite(timing.ratio),
            "base_s": None if timing is None else timing.base_s,
            "head_s": None if timing is None else timing.head_s,
            "log_ratios": [] if timing is None else list(timing.logs),
            "seconds": [] if timing is None else [list(each) for each in timing.seconds],
            "exact": exact,
            "causes": [
                {
                    "metric": cause.metric.value,
                    "base": cause.base,
                    "head": cause.head,
                    "modules": [part._asdict() for part in cause.parts],
                }
                for cause in find_causes(self.base, self.head)
            ],
            "reason": self.reason,
            "remedy": self.remedy,
            "output": self.output,
            "file": self.file,
        }


@dataclass(frozen=True, slots=True)
class Side:
    """What one side was: its tree, and the versions that it ran with.

    A tree is `dirty` whose files differ from the commit.
    """

    name: str
    commit: str
    versions: dict[str, str]
    threads: int | None = None
    dirty: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """All comparisons of one command, and what they were made with."""

    base: Side
    head: Side
    threshold: float
    confidence: float
    comparisons: tuple[Comparison, ...]
    restarts: int = 0
    took_s: float = 0.0

    @property
    def counts(self) -> dict[Change, int]:
        """How many comparisons came to each change, in the order of the changes."""
        found = Counter(comparison.change for comparison in self.comparisons)
        return {change: found[change] for change in Change if found[change]}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return {
            "format": 1,
            "base": asdict(self.base),
            "head": asdict(self.head),
            "threshold": self.threshold,
            "confidence": self.confidence,
            "restarts": self.restarts,
            "took_s": self.took_s,
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
        }


def _finite(ratio: Ratio) -> dict[str, float | None]:
    return {name: None if end == float("inf") else end for name, end in ratio._asdict().items()}
