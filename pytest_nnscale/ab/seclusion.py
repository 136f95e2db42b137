"""Seclusion: a worker's pytest runs its tests here, once each, and leaves no trace in the project.

What a project's `addopts` ask for is meant for its own sessions: to spread tests over processes, to
repeat those that fail, to write reports. Options have been read by the time that a plugin is told of
them and are acted upon later; a plugin that is not there does not mind.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# What would have tests run in other processes, more than once, not all of them, or not to the end.
_ALONE: dict[str, object] = {
    "dist": "no",
    "tx": [],
    "numprocesses": None,
    "reruns": 0,
    "force_reruns": 0,  # also before a mark of the test's own
    "maxfail": 0,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "stepwise": False,
    "benchmark_disable": True,
    "benchmark_only": False,
    "usepdb": False,
}
# What would overwrite the files of the project's own sessions: those of pytest itself, then those of
# pytest-reportlog, pytest-html, pytest-json-report, pytest-csv, allure-pytest, pytest-benchmark,
# pytest-split and pytest-md-report.
_SILENT: dict[str, object] = {
    "xmlpath": None,
    "pastebin": None,
    "log_file": os.devnull,
    "report_log": None,
    "htmlpath": None,
    "json_report": False,
    "csv_path": None,
    "allure_report_dir": None,
    "benchmark_json": None,
    "benchmark_autosave": False,
    "benchmark_save": None,
    "store_durations": False,
    "md_report_output": None,
}


def seclude(config: pytest.Config, scratch: str) -> None:
    """Have a session run all by itself; what it must write goes to a folder that is thrown away."""
    for name, value in {**_ALONE, **_SILENT}.items():
        setattr(config.option, name, value)
    config.option.basetemp = str(Path(scratch) / "tmp")
    # Read once and kept: there is no option for it, and an override on the command line would be an
    # unknown one where the cache is switched off.
    config._inicache["cache_dir"] = str(Path(scratch) / "cache")
