"""A hold: what goes on here that others have to wait for, and which of it bears each other."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, unquote

from pytest_nnscale.timing.processes import namespace

TEST = "test"
ALONE = "alone"
_CUDA = "cuda-"
_LONGEST_WHAT = 140  # the name of a file has 255 bytes


class Hold(NamedTuple):
    """What goes on: a test, or a measurement on the CPU (`ALONE`) or on one GPU (`cuda-<uuid>`)."""

    file_name: str

    @classmethod
    def is_meant(cls, file_name: str) -> bool:
        """Tell whether the name of a file is that of a hold."""
        return file_name.startswith("hold,") and file_name.count(",") == 5

    @classmethod
    def new(cls, kind: str, what: str) -> Hold:
        """Name a hold of this process, as no other is named."""
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        who = f"{worker}, process {os.getpid()}" if worker else f"process {os.getpid()}"
        told = quote(what, safe="")[-_LONGEST_WHAT:]
        token = uuid.uuid4().hex[:16]
        return cls(f"hold,{quote(kind, safe='')},{token},{namespace()},{quote(who)},{told}")

    @property
    def kind(self) -> str:
        """What it is: `TEST`, `ALONE`, or the GPU that is measured."""
        return unquote(self.file_name.split(",")[1])

    @property
    def token(self) -> str:
        """What no other hold has."""
        return self.file_name.split(",")[2]

    @property
    def pid(self) -> int | None:
        """The id of its process; None where that is told in a container, and means another here."""
        where, who = self.file_name.split(",")[3:5]
        told = unquote(who).rpartition("process ")[2]
        return int(told) if where == namespace() and told.isdigit() else None

    def bears(self, other: Hold) -> bool:
        """Tell whether two may go on at once: two tests, or measurements on two GPUs."""
        if self.kind == other.kind:
            return self.kind == TEST
        return self.kind.startswith(_CUDA) and other.kind.startswith(_CUDA)

    def __str__(self) -> str:
        """Say what a message can say of it."""
        who, what = self.file_name.split(",")[4:]
        return f"{unquote(what)} ({unquote(who)})"


def kind_of(device: str) -> str:
    """Return the kind of a measurement on a device.

    A GPU goes by its UUID, since "cuda:0" may be another one in the next process.
    """
    if device.partition(":")[0] == "cuda":
        import torch

        # A GPU of which torch knows no UUID is measured as a CPU is: all others wait.
        with suppress(Exception):
            return f"{_CUDA}{torch.cuda.get_device_properties(torch.device(device)).uuid}"
    return ALONE
