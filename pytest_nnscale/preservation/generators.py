"""The random number generators of the process, and the grad mode."""

from __future__ import annotations

import random
import sys
from typing import Any


class Generators:
    """The state of every random number generator in use, and the grad mode."""

    def __init__(self) -> None:
        import torch

        self._torch = torch.get_rng_state()
        # Asking for the state of a device that nobody uses would initialise it.
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy: Any = numpy.random.get_state() if numpy is not None else None
        self._gradients = torch.is_grad_enabled()

    def restore(self) -> None:
        """Put them back."""
        import torch

        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        torch.set_grad_enabled(self._gradients)
