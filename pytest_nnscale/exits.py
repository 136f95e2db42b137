"""The exit codes of the `nnscale` command: the same for every one of its commands."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """What a command ends with; after a signal it is 128 and the signal's number, as in a shell."""

    FINE = 0
    """What was asked for is there, and nothing is slower."""
    RED = 1
    """Something is slower, or part of what was asked for could not be measured."""
    ERROR = 2
    """It was not asked rightly, or something needed did not work: one sentence says what."""
    INCONCLUSIVE = 3
    """Something could not be decided; only with --strict."""
    NOTHING = 5
    """Nothing was measured: there was nothing to measure, or none of it could be."""
