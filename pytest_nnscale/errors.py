"""The errors of this package.

::

    NnscaleError
    ├── BadQuantity        a number or text that is no amount of the asked dimension   (ValueError)
    ├── BadBudget          a mark, ini line or keyword that states no budget           (ValueError)
    ├── BadOption          an option value that is not among the valid ones            (ValueError)
    ├── BadWorkload        what was handed over cannot be run as a workload            (TypeError)
    ├── CannotMeasure      a meter cannot measure here: the reason and the remedy
    │   └── NothingThere   this machine lacks what it takes
    └── CannotCompare      two trees cannot be compared: the reason, and what a process printed
"""

import re
from collections.abc import Sequence


class NnscaleError(Exception):
    """Any error that this package raises by itself."""


class BadQuantity(NnscaleError, ValueError):
    """A number or text that is no amount of the asked dimension."""


class BadBudget(NnscaleError, ValueError):
    """A mark, ini line or keyword that states no budget."""


class BadOption(NnscaleError, ValueError):
    """An option value that is not among the valid ones."""


class BadWorkload(NnscaleError, TypeError):
    """What was handed over cannot be run as a workload."""


class CannotMeasure(NnscaleError):
    """A meter cannot measure here; carries the reason and what the reader can do about it."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class NothingThere(CannotMeasure):
    """This machine lacks what it takes: no mistake and no fault, and another machine may have it."""


class CannotCompare(NnscaleError):
    """Two trees cannot be compared; carries what the process printed that could not go on."""

    def __init__(self, reason: str, *, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


def shown(value: object) -> str:
    """Return what an error message shows of anything a user may have written: one short line."""
    try:
        text = " ".join(repr(value).split("\n"))
    except Exception:  # an int of five thousand digits has no repr, other objects a broken one
        return f"the {type(value).__name__}"
    # An address differs between processes, and equal mistakes of two workers must read alike.
    text = re.sub(r" at 0x[0-9A-Fa-f]+", "", text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def mistakes_text(mistakes: Sequence[str]) -> str:
    """Return all mistakes as one text, a line each below the heading."""
    count = len(mistakes)
    heading = f"nnscale: {count} mistake{'s' if count > 1 else ''} in the budgets"
    return "\n  ".join([heading, *mistakes])
