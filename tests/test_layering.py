"""Who imports whom, and what loading the plugin leaves out."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_nnscale

PACKAGE = Path(pytest_nnscale.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Room -> the rooms that it may import from at its top. A folder is one room; imports for type
# checkers alone, and inside functions, are free except where FORBIDDEN says otherwise.
ROOMS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "units": {"errors"},
    "measurement": {"units"},
    "budget": {"measurement", "units"},
    "naming": set(),
    "tree": {"naming"},
    "garbage": set(),
    "workload": {"errors", "budget", "naming"},
    "observation": {"workload", "measurement", "errors", "budget"},
    "preservation": {"workload", "errors", "naming"},
    "student": set(),
    "power": {"errors", "exits", "measurement", "student", "units"},
    "counting": {
        "workload", "measurement", "errors", "budget", "naming", "units", "preservation", "garbage",
        "tree",
    },
    "timing": {
        "workload", "measurement", "errors", "budget", "units", "power", "preservation", "garbage",
    },
    "fingerprint": set(),
    "store": {"fingerprint"},
    "ceiling": {"errors", "fingerprint", "store", "timing"},
    "meters": {
        "budget", "ceiling", "counting", "errors", "garbage", "measurement", "naming", "observation",
        "power", "preservation", "timing", "tree", "units", "workload",
    },
    "observing": {"budget", "errors", "observation", "preservation", "workload"},
    "profiles": {"budget", "errors", "measurement", "meters", "naming", "observation"},
    "profiling": {
        "budget", "errors", "garbage", "measurement", "observation", "observing", "options",
        "profiles", "workload",
    },
    "judging": {
        "budget", "comparing", "errors", "measurement", "meters", "observation", "workload",
    },
    "marks": {"budget", "units", "errors", "measurement"},
    "grammar": {"budget", "units", "errors", "marks", "measurement", "naming"},
    "rules": {"budget", "errors", "grammar", "marks"},
    "decorators": {"budget", "errors", "marks"},
    "options": {"errors", "marks", "rules"},
    "tally": {"budget", "keys", "measurement", "units"},
    "report": {"ab", "budget", "keys", "measurement", "units", "marks", "tally", "errors"},
    "ab": {"budget", "measurement", "units", "errors", "exits", "keys", "student"},
    "exits": set(),
    "__main__": {"cli"},
    "peers": set(),
    "cli": {"ab", "errors", "exits", "budget", "measurement", "power", "units"},
    "keys": {"budget", "calling", "options", "tally"},
    "failure": {"errors"},
    "collecting": {"keys", "budget", "errors", "grammar", "marks", "measurement", "rules"},
    "relevance": set(),
    "body": {"naming", "observation", "errors"},
    "target": {"body", "naming", "observation"},
    "benchmark_info": {"measurement"},
    "benchmark_timing": {"errors", "judging", "measurement", "meters", "target"},
    "benchmarked": {
        "body", "collecting", "errors", "keys", "measurement", "report", "taking_turns", "target",
        "verdicts",
    },
    "verdicts": {"budget", "keys", "measurement", "relevance", "report"},
    "taking_turns": {"keys", "marks", "measurement", "report", "verdicts"},
    "listening": {"errors", "keys", "report", "tally"},
    "enforcing": {"budget", "failure", "keys", "options", "report", "verdicts"},
    "calling": {"budget", "errors"},
    "called": {"errors", "observation"},
    "comparing": {"budget", "errors", "measurement", "workload"},
    "references": {"budget", "comparing", "errors", "keys", "measurement", "naming", "workload"},
    "noise": {"budget", "fingerprint", "measurement", "store", "student", "units"},
    "fixtures": {"keys"},
    "plugin": {"errors", "fixtures", "keys", "marks", "options"},
}  # fmt: skip

# The only files that may import pytest when they run.
WITH_PYTEST = {
    "ab/timer", "ab/worker", "benchmarked", "body", "collecting", "decorators", "enforcing",
    "failure", "fixtures", "keys", "listening", "plugin", "report/progress", "taking_turns",
    "target", "verdicts",
}  # fmt: skip
# Where a heavy module may be imported at the top: files that are themselves imported in functions.
AT_HOME: dict[str, tuple[str, ...]] = {
    "torch": ("counting/",),
    "typer": ("cli", "ab/command", "ab/calibrate", "ab/ending", "ab/output", "power/command"),
}
WITHOUT_TORCH_AT_ALL = ("report/", "ab/", "units", "measurement", "budget", "marks", "options", "tally")  # fmt: skip
HEAVY = ("torch", "pynvml", "plotly", "asv", "zeus", "numpy", "rich", "typer")


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").as_posix()


def room_of(name: str) -> str:
    return name.split("/")[0]


def imports(tree: ast.AST, *, everywhere: bool = False) -> Iterator[str]:
    """Yield the modules a file imports at its top, or anywhere, type checking apart."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # from pytest_nnscale import keys: the room is the name
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, everywhere=everywhere)


def wrong_imports(name: str, source: str) -> list[str]:
    """Return what a file imports and may not, by the tables above."""
    tree = ast.parse(source)
    wrong = []
    for module in imports(tree):
        top, _, rest = module.partition(".")
        if top == "pytest_nnscale":
            room = rest.split(".")[0]
            if room != room_of(name) and room not in ROOMS[room_of(name)]:
                wrong.append(f"{name} imports {module}")
        elif top in HEAVY and not name.startswith(AT_HOME.get(top, ())):
            wrong.append(f"{name} imports {module} at its top")
    for module in imports(tree, everywhere=True):
        top = module.partition(".")[0]
        if top in ("pytest", "_pytest") and name not in WITH_PYTEST:
            wrong.append(f"{name} imports {module}")
        if top == "torch" and name.startswith(WITHOUT_TORCH_AT_ALL):
            wrong.append(f"{name} imports {module}")
    return wrong


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_room_imports_only_from_the_rooms_before_it(file: Path) -> None:
    """Data flows one way; pytest and torch stay where they belong."""
    assert room_of(name_of(file)) in ROOMS, "a new room: say in ROOMS what it may import"
    assert wrong_imports(name_of(file), file.read_text(encoding="utf-8")) == []


def test_the_tables_name_only_what_is_there() -> None:
    """A room that is gone would let anybody import what takes its name."""
    names = {name_of(file) for file in FILES}
    rooms = {room_of(name) for name in names}
    assert set(ROOMS) | set().union(*ROOMS.values()) <= rooms
    assert names >= WITH_PYTEST


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("units", "from pytest_nnscale.measurement import Metric"),
        ("units", "from pytest_nnscale import budget"),
        ("marks", "import torch"),
        ("meters/params", "import torch.nn as nn"),
        ("meters/params", "try:\n    from torch import nn\nexcept ImportError: pass"),
        ("meters/params", "class Meter:\n    import torch"),
        ("profiling", "def profile():\n    import pytest"),
        ("profiling", "from _pytest.mark import Mark"),
        ("report/table", "def table():\n    import torch"),
        ("report/table", "import rich"),
        ("plugin", "from pytest_nnscale.counting.counter import Counter"),
    ],
)
def test_a_wrong_import_is_found(name: str, source: str) -> None:
    """The walk above can fail."""
    assert wrong_imports(name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("counting/counter", "import torch"),
        ("meters/params", "def measure():\n    import torch"),
        ("meters/params", "if TYPE_CHECKING:\n    import torch"),
        ("report/progress", "import pytest"),
        ("meters/params", "from pytest_nnscale.meters.pruned import masks_of"),
    ],
)
def test_a_right_import_is_let_through(name: str, source: str) -> None:
    """In functions, for type checkers, and inside a room."""
    assert wrong_imports(name, source) == []


def loaded_by_a_bare_run(folder: Path, names: list[str]) -> list[str]:
    """Return which of some modules are loaded at the end of a pytest run with our plugin alone."""
    report = f"""
        import sys

        def pytest_unconfigure(config):
            assert config.pluginmanager.hasplugin("pytest_nnscale.plugin")
            with open("loaded.txt", "w") as out:
                out.write(" ".join(name for name in {names!r} if name in sys.modules))
        """
    (folder / "reporter.py").write_text(textwrap.dedent(report))
    (folder / "test_it.py").write_text("def test_it(): pass\n")
    words = ["-p", "pytest_nnscale.plugin", "-p", "reporter", "-p", "no:cacheprovider", "-q"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": f"{folder}:{PACKAGE.parent}",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return (folder / "loaded.txt").read_text().split()


def test_a_suite_that_does_not_use_the_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    """The plugin is loaded in every pytest run of the environment: that must cost nothing."""
    assert loaded_by_a_bare_run(tmp_path, [*HEAVY, "pytest_nnscale.profiling"]) == []


def test_what_the_run_loads_would_be_seen(tmp_path: Path) -> None:
    """The test above can fail: a module that a conftest imports is reported."""
    (tmp_path / "torchlike.py").write_text("")
    (tmp_path / "conftest.py").write_text("import torchlike\n")
    assert loaded_by_a_bare_run(tmp_path, ["torchlike", "torch"]) == ["torchlike"]
