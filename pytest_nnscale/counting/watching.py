"""Functions of others that tell of their calls, for as long as anybody watches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]
# Where a function is kept, its name there, and what makes one from it that tells.
Place = tuple[Any, str, Callable[[Function], Function]]


class Watch:
    """Puts functions that tell in the place of others, while there are `watchers`.

    `places` is asked where, each time that the first one begins to watch: some modules are imported
    late. What tells does nothing else once nobody watches, wherever it was kept meanwhile.
    """

    def __init__(self, places: Callable[[], Iterable[Place]]) -> None:
        self._places = places
        self.watchers: list[dict[str, None]] = []
        self._replaced: list[tuple[Any, str, Function, Function]] = []

    @contextmanager
    def over(self, found: dict[str, None]) -> Iterator[None]:
        """Have the names that are told noted in `found`."""
        if not self.watchers:
            for owner, name, make in self._places():
                original = getattr(owner, name)
                telling = _telling(make, original)
                setattr(owner, name, telling)
                self._replaced.append((owner, name, original, telling))
        self.watchers.append(found)
        try:
            yield
        finally:
            self.watchers[:] = [each for each in self.watchers if each is not found]
            while self._replaced and not self.watchers:
                owner, name, original, telling = self._replaced.pop()
                if getattr(owner, name) is telling:  # else someone else's stands there by now
                    setattr(owner, name, original)

    def tell(self, name: str, watchers: Iterable[dict[str, None]] | None = None) -> None:
        """Note a name for all who watch, or for some of them who still do."""
        for found in self.watchers:
            if watchers is None or any(found is each for each in watchers):
                found.setdefault(name)


@functools.cache
def _telling(make: Callable[[Function], Function], original: Function) -> Function:
    return functools.wraps(original)(make(original))
