"""The exit codes of the `nnscale` command: the same for every one of its commands."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """What a command ends with; after a signal it is 128 and the signal's number, as in a shell.

    What was asked for and could not be measured is an ERROR beside what was, as it is no result; where
    that is all there is, it is NOTHING. Whatever nobody has foreseen is an ERROR.
    """

    FINE = 0
    """What was asked for is there, and nothing is slower."""
    RED = 1
    """Something is slower."""
    ERROR = 2
    """It was not asked rightly, something needed did not work, or a part could not be measured."""
    INCONCLUSIVE = 3
    """Something could not be decided; only with --strict."""
    NOTHING = 5
    """Nothing was measured: there was nothing to measure, or none of it could be."""
