"""Numbers on disk that are known of this machine: a file of JSON each, in the user's cache.

Each is written in one step. A file that cannot be read, that says something else than it should, or
that is of another machine, is as good as none: its number is measured again. Two processes that write
the same file each leave a whole one, and the later stays.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pytest_nnscale.fingerprint import Fingerprint


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of this package in the user's cache; None for a user without a home."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    kept = environment.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    if kept and Path(kept).is_absolute():
        return Path(kept) / "pytest-nnscale"
    if home is None:
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "pytest-nnscale"


class Store:
    """Numbers above zero of one kind, such as ceilings, that are known of one machine, by name.

    `definition` is the version of what is measured: a new one makes all files before it worthless.
    """

    def __init__(
        self,
        folder: Path | None,
        fingerprint: Fingerprint,
        *,
        kind: str,
        definition: str,
    ) -> None:
        self._folder = None if folder is None else folder / kind
        self._fingerprint, self._definition = fingerprint, definition
        self.trouble = "" if folder is not None else "this user has no folder for caches"

    def recall(self, name: str) -> float | None:
        """Return what was stored under a name; None where there is nothing to rely on."""
        try:
            told = json.loads(self._file(name).read_text(encoding="utf-8"))
            same = told["identity"] == self._identity(name)
            value = told["value"]
            sound = isinstance(value, float) and math.isfinite(value) and value > 0
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return value if same and sound else None

    def remember(self, name: str, value: float) -> None:
        """Store a number under a name; `trouble` says why that could not be done."""
        told = {"identity": self._identity(name), "value": value}
        try:
            file = self._file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            # In the same folder, so that taking its place is one step.
            handle, written = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".json")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as out:
                    json.dump(told, out, allow_nan=False, indent=1)
                Path(written).replace(file)
            except BaseException:
                Path(written).unlink(missing_ok=True)
                raise
        except OSError as error:
            self.trouble = self.trouble or f"it could not be stored: {error}"

    def _identity(self, name: str) -> dict[str, object]:
        machine = {**self._fingerprint._asdict()}
        return {"definition": self._definition, "machine": machine, "name": name}

    def _file(self, name: str) -> Path:
        if self._folder is None:
            raise FileNotFoundError(self.trouble)
        text = json.dumps(self._identity(name), sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
