"""What the plugin costs a suite that does not use it: whole pytest processes, timed in pairs.

    python benchmarks/peers/plugin_load.py [--pairs 20]

Each pair runs one tiny suite with the plugin blocked and with it loaded, the order alternating, so
that a drift of the machine falls on both. All other plugins are blocked in both: the share is that
of a bare pytest, the worst case. The exit code is 1 where the median difference is above 15 ms and
above 5 % at once.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import entry_points
from pathlib import Path

LIMIT_S = 0.015
LIMIT_SHARE = 0.05

SUITE = {
    "pytest.ini": "[pytest]\n",
    "test_tiny.py": "def test_adds():\n    assert 1 + 1 == 2\n",
}
# A plugin of the suite says at the end what the run has imported. It is not part of the timed runs.
WITNESS = """
import sys

def pytest_unconfigure(config):
    for name in ("pytest_nnscale.plugin", "torch"):
        print(f"{name} {name in sys.modules}")
"""


def pytest_command(*, loaded: bool, plugins: list[str], extra: tuple[str, ...] = ()) -> list[str]:
    """The command line of one run, in which at most this plugin is loaded."""
    blocked = [name for name in plugins if not (loaded and name == "nnscale")]
    flags = [flag for name in blocked for flag in ("-p", f"no:{name}")]
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags, *extra]


def run_seconds(command: list[str], suite: Path, env: dict[str, str]) -> float:
    """Seconds that one whole process takes; it has to pass."""
    start = time.perf_counter()
    subprocess.run(command, cwd=suite, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def imported_at_exit(plugins: list[str], suite: Path, env: dict[str, str]) -> dict[str, bool]:
    """Which modules of interest a run with the plugin has imported."""
    (suite / "witness.py").write_text(WITNESS)
    command = pytest_command(loaded=True, plugins=plugins, extra=("-p", "witness", "-s"))
    seen = {**env, "PYTHONPATH": os.pathsep.join((str(suite), env.get("PYTHONPATH", "")))}
    done = subprocess.run(command, cwd=suite, env=seen, check=True, capture_output=True, text=True)
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[0]: row[1] == "True" for row in rows if row and row[-1] in ("True", "False")}


def main() -> int:
    """Time the pairs, print the figures, and say by the exit code whether they are too high."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20, metavar="N", help="pairs of runs (20)")
    pairs = parser.parse_args().pairs
    if pairs < 2:
        parser.error("--pairs: a spread needs at least 2")

    plugins = sorted({entry.name for entry in entry_points(group="pytest11")})
    if "nnscale" not in plugins:
        parser.error("the plugin is not installed here: python -m pip install -e .")
    env = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
    env.pop("PYTEST_DISABLE_PLUGIN_AUTOLOAD", None)

    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder)
        for name, text in SUITE.items():
            (suite / name).write_text(text)
        imported = imported_at_exit(plugins, suite, env)
        commands = {loaded: pytest_command(loaded=loaded, plugins=plugins) for loaded in (0, 1)}
        for loaded in (0, 1, 0, 1):  # byte code and file caches
            run_seconds(commands[loaded], suite, env)
        seconds: dict[int, list[float]] = {0: [], 1: []}
        for pair in range(pairs):
            for loaded in (pair % 2, 1 - pair % 2):
                seconds[loaded].append(run_seconds(commands[loaded], suite, env))

    if not imported.get("pytest_nnscale.plugin"):
        print("the plugin was not loaded: nothing was compared")
        return 2
    differences = [after - before for before, after in zip(*seconds.values(), strict=True)]
    low, median, high = statistics.quantiles(differences, n=4)
    bare = statistics.median(seconds[0])
    share = median / bare
    print(f"bare pytest      {bare * 1e3:7.1f} ms   median of {pairs}")
    print(f"plugin loaded    {statistics.median(seconds[1]) * 1e3:7.1f} ms")
    print(
        f"difference       {median * 1e3:+7.1f} ms   median of pairs,"
        f" quartiles {low * 1e3:+.1f} to {high * 1e3:+.1f} ms, {share:+.1%}"
    )
    print(f"torch imported   {'yes' if imported['torch'] else 'no'}")
    over = median > LIMIT_S and share > LIMIT_SHARE
    print(
        f"limit            {LIMIT_S * 1e3:.0f} ms or {LIMIT_SHARE:.0%}: {'over' if over else 'within'}"
    )
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
