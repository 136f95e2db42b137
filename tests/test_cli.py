"""The nnscale command: numbers on one stream, one sentence and an exit code where it cannot."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pytest_nnscale.cli import app
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.sources import find_counters

HOUSE = '''
from torch import nn
from pytest_nnscale.errors import CannotMeasure

class Two(nn.Module):
    """Needs two inputs, and has a module three levels down."""
    def __init__(self):
        super().__init__()
        self.branch = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(8, 4))})
    def forward(self, a, b):
        return self.branch["deep"](a) + b

class Modes(nn.Module):
    """Costs something only while training."""
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)
    def forward(self, x):
        return self.linear(x) if self.training else x + 1

def conv():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

class Doubles(nn.Module):
    def forward(self, x):
        return x + x

class Settled(nn.Module):
    """Cannot be moved."""
    def to(self, device):
        raise ValueError("I stay")

class Zoo:
    conv = staticmethod(conv)

model = nn.Linear(8, 4)
number = 3

def embedding():
    return nn.Embedding(10, 4)

def shy():
    raise CannotMeasure("it is shy", remedy="look away")

def raises():
    raise ValueError("no weights here")

def raises_at_length():
    raise ValueError("no weights here\\nat all\\nanywhere")

def gives_a_number():
    return 3

def needs(width):
    return nn.Linear(width, width)

def frozen():
    return nn.Linear(8, 4).requires_grad_(False)
'''

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return `run(*words)`: `nnscale profile ...` in a folder that has the package `zoo`."""
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").write_text("")
    (tmp_path / "zoo" / "house.py").write_text(HOUSE, encoding="utf-8")
    (tmp_path / "zoo" / "broken.py").write_text("import nowhere_to_be_found\n", encoding="utf-8")
    (tmp_path / "zoo" / "garbled.py").write_text("def (:\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("pytest_nnscale.timing.sampling._MOST_SAMPLES", 100)

    def find_none(device: str, wanted: Any) -> None:
        raise CannotMeasure("no counter in this test", remedy="buy one")

    monkeypatch.setattr("pytest_nnscale.meters.energy.find_counters", find_none)
    yield lambda *words: CliRunner().invoke(app, ["profile", *words])
    for name in [name for name in sys.modules if name.partition(".")[0] == "zoo"]:
        del sys.modules[name]


CONV = "zoo.house:conv", "--input", "1,3,8,8"


def test_the_table_has_numbers_and_modules(run: Run) -> None:
    """A factory and a shape are all it takes."""
    result = run(*CONV)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "Sequential (inference, traced); 1 MAC = 2 FLOP"
    assert "  flops    7.776 kFLOP" in lines
    assert "  params   112" in lines
    assert [line.split()[:3] for line in lines[-3:]] == [
        ["(whole)", "Sequential", "112"],
        ["0", "Conv2d", "112"],
        ["1", "ReLU", "0"],
    ]


def test_options_are_given_as_pytest_takes_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By -o, as often as there are some; the whole of it is checked before anything runs."""
    monkeypatch.setattr("pytest_nnscale.meters.energy.find_counters", find_counters)
    words = "-o", "nnscale_energy_source=estimate", "-o", "nnscale_watts_per_core = 8"
    result = run(*CONV, "--metrics", "energy", *words, "-o", "nnscale_max_time=0.3")
    assert (result.exit_code, result.stderr) == (0, "")
    assert ", an estimate" in result.stdout
    for word, told in (
        ("nnscale_max_time", "--option 'nnscale_max_time' is not like nnscale_max_time=20"),
        ("nnscale_max_tim=3", "did you mean nnscale_max_time?"),
        ("nnscale_max_time=soon", "nnscale_max_time: 'soon' is not seconds above zero"),
    ):
        result = run("zoo.house:conv", "-o", word)
        assert result.exit_code == 2
        assert told in " ".join(result.stderr.split())


@pytest.mark.parametrize("target", ["zoo.house:model", "zoo.house:Two", "zoo.house:Zoo.conv"])
def test_a_target_is_a_model_or_builds_one(run: Run, target: str) -> None:
    """A module, a class, a function, also inside a class; without inputs, its structure."""
    result = run(target)
    assert result.exit_code == 0, result.output
    assert "params" in result.stdout
    assert "flops " not in result.stdout.partition("module")[0]


def test_json_is_all_there_is_on_stdout(run: Run) -> None:
    """What is printed parses, and says the same as the table."""
    result = run(*CONV, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["measurements"]["flops"]["value"] == 2 * 36 * 4 * 27
    assert told["measurements"]["params"]["value"] == 112
    assert [row["path"] for row in told["modules"]] == ["", "0", "1"]


def measured(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return {name: m["value"] for name, m in json.loads(result.stdout)["measurements"].items()}


@pytest.mark.parametrize("words", [("flops,kernels",), ("flops kernels",)])
def test_metrics_choose_what_is_measured(run: Run, words: tuple[str, ...]) -> None:
    """Only what was asked for, sampled ones on request."""
    assert measured(run(*CONV, "--json", "--metrics", *words)) == {"flops": 7776, "kernels": 2}
    assert measured(run(*CONV, "--json", "--metrics", "latency"))["latency"] > 0


def test_training_adds_the_backward_and_the_training_mode(run: Run) -> None:
    """--phase training counts the weight's gradient, and puts the model into training mode."""
    assert measured(run(*CONV, "--json", "--phase", "training"))["flops"] == 2 * 7776
    modes = "zoo.house:Modes", "--input", "1,8", "--json"
    assert measured(run(*modes))["flops"] == 0
    assert measured(run(*modes, "--phase", "training"))["flops"] == 2 * 64


def test_each_input_is_one_argument(run: Run) -> None:
    """--input twice hands over two tensors, in that order."""
    two = "zoo.house:Two", "--json", "--input"
    assert measured(run(*two, "1,8", "--input", "1,4"))["flops"] == 64
    assert run(*two, "1,4", "--input", "1,8").exit_code != 0


def test_inputs_take_a_dtype(run: Run) -> None:
    """Integers are zeros, which every embedding has."""
    told = measured(run("zoo.house:embedding", "--input", "2,3", "--dtype", "int64", "--json"))
    assert told["memory"] == 4 * (10 * 4 + 2 * 3 * 4) + 8 * 2 * 3


@pytest.mark.parametrize(
    ("depth", "deepest"), [("0", "(whole)"), ("1", "branch"), ("2", "deep"), ("3", "0")]
)
def test_depth_limits_the_table(run: Run, depth: str, deepest: str) -> None:
    """The table ends at the depth asked for; the numbers above it stay those of the whole."""
    result = run("zoo.house:Two", "--input", "1,8", "--input", "1,4", "--depth", depth)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].split()[0] == deepest
    assert "flops    64 FLOP" in result.stdout


def test_params_not_asked_for_are_not_printed_as_zero(run: Run) -> None:
    """The table of a run for FLOPs alone does not say that a convolution has no parameters."""
    last = run(*CONV, "--metrics", "flops").stdout.splitlines()[-2].split()
    assert last[:2] == ["0", "Conv2d"]
    assert last[2] != "0"


def test_what_is_missing_from_what_was_asked_is_an_exit_code(run: Run) -> None:
    """The rest is printed; what says why names nothing that only pytest has."""
    result = run(*CONV, "--metrics", "flops,energy")
    assert (result.exit_code, result.stderr) == (2, "")
    lines = result.stdout.splitlines()
    assert "  flops    7.776 kFLOP" in lines
    assert "  energy   unmeasured: no counter in this test; buy one" in lines
    result = run(*CONV, "--metrics", "flops,energy", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["measurements"]["energy"]["value"] is None
    result = run(*CONV, "--metrics", "energy")
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == "nnscale: no counter in this test; buy one\n"


def test_a_scalar_is_an_empty_shape(run: Run) -> None:
    """An input without sizes can be said as well."""
    assert measured(run("zoo.house:Doubles", "--input", "", "--json"))["memory"] == 8


# Words, and what the one sentence has to say.
BAD = {
    "no colon": (["zoo.house"], "'zoo.house' is not like pkg.module:factory"),
    "no name": (["zoo.house:"], "'zoo.house:' is not like pkg.module:factory"),
    "no module name": ([":conv"], "':conv' is not like pkg.module:factory"),
    "no such module": (["nowhere:conv"], "'nowhere:conv' cannot be loaded: No module named"),
    "no such submodule": (["zoo.attic:conv"], "No module named 'zoo.attic'"),
    "module that cannot import": (["zoo.broken:conv"], "No module named 'nowhere_to_be_found'"),
    "module that cannot compile": (["zoo.garbled:conv"], "SyntaxError"),
    "no such attribute": (["zoo.house:palace"], "has no attribute 'palace'"),
    "not callable": (
        ["zoo.house:number"],
        "nnscale: 'zoo.house:number' is 3, neither a torch.nn.Module nor a factory",
    ),
    "factory raises": (["zoo.house:raises"], "ValueError: no weights here"),
    "factory raises at length": (
        ["zoo.house:raises_at_length"],
        "zoo.house:raises_at_length raised ValueError: no weights here at all anywhere",
    ),
    "factory needs an argument": (["zoo.house:needs"], "missing 1 required positional argument"),
    "factory gives no module": (
        ["zoo.house:gives_a_number"],
        "'zoo.house:gives_a_number' gave 3, not a torch.nn.Module",
    ),
    "shape of letters": (
        ["zoo.house:conv", "--input", "1,3,x"],
        "--input '1,3,x' is not a shape such as 1,3,224,224",
    ),
    "shape by x": (["zoo.house:conv", "--input", "1x3x8x8"], "is not a shape such as 1,3,224,224"),
    "shape with a gap": (["zoo.house:model", "--input", "1,,8"], "'1,,8' is not a shape"),
    "shape with an open end": (["zoo.house:model", "--input", "8,"], "'8,' is not a shape"),
    "shape of a giant": (
        ["zoo.house:model", "--input", "1000000,1000000,1000000"],
        "nnscale: --input '1000000,1000000,1000000' cannot be made: RuntimeError",
    ),
    "dtype of no random numbers": (
        ["zoo.house:model", "--input", "8", "--dtype", "float8_e4m3fn"],
        "nnscale: --input '8' cannot be made: NotImplementedError",
    ),
    "fractional shape": (["zoo.house:model", "--input", "1.5,8"], "'1.5,8' is not a shape"),
    "negative size": (["zoo.house:model", "--input=-1,8"], "--input '-1,8' has a negative size"),
    "wrong shape": (["zoo.house:conv", "--input", "1,5,8,8"], "got 5 channels"),
    "wrong shape, timed": (
        ["zoo.house:conv", "--input", "1,5,8,8", "--metrics", "latency"],
        "got 5 channels",
    ),
    "too few inputs": (["zoo.house:Two", "--input", "1,8"], "missing 1 required positional"),
    "metric": (
        [*CONV, "--metrics", "flops,speed"],
        "unknown metric 'speed'; valid are params, flops, macs, size, memory, kernels, latency, "
        "energy",
    ),
    "phase": ([*CONV, "--phase", "eval"], "'eval' is not one of 'inference', 'training'"),
    "depth": ([*CONV, "--depth", "-1"], "--depth"),
    "dtype": ([*CONV, "--dtype", "floaty"], "--dtype 'floaty' is not a dtype of torch"),
    "device": (
        ["zoo.house:conv", "--device", "abacus"],
        "nnscale: --device 'abacus' cannot be used: RuntimeError",
    ),
    "device that the model refuses": (
        ["zoo.house:Settled"],
        "nnscale: the model cannot be put on 'cpu': ValueError: I stay",
    ),
    "flops of no run": (
        ["zoo.house:conv", "--metrics", "params,flops"],
        "nnscale: flops takes a run of the model: give --input SHAPE",
    ),
    "metric of no run": (["zoo.house:conv", "--metrics", "speed"], "unknown metric 'speed'"),
    "nothing to measure with": (
        [*CONV, "--metrics", "energy"],
        "nnscale: no counter in this test; buy one",
    ),
    "cannot be measured": (["zoo.house:shy"], "nnscale: it is shy; look away"),
    "nothing to train": (
        ["zoo.house:frozen", "--input", "1,8", "--phase", "training"],
        "no output of the model needs a gradient, so there is nothing to train",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_ends_in_one_sentence(run: Run, name: str) -> None:
    """The exit code is not zero, stdout is empty, and stderr has a sentence, no traceback."""
    words, sentence = BAD[name]
    result = run(*words)
    assert result.exit_code != 0
    assert result.stdout == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    if "Usage:" not in result.stderr:  # what the command line itself refuses, in typer's own box
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert result.stderr.startswith("nnscale: ")


def test_the_path_is_as_before(run: Run) -> None:
    """The current folder is importable while the target loads, and no longer."""
    before = list(sys.path)
    run(*CONV)
    run("zoo.broken:conv")
    assert sys.path == before


def test_the_command_is_installed(run: Run) -> None:
    """The script `nnscale` is this application."""
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="nnscale")
    assert command.load() is app


def test_a_process_of_its_own(run: Run) -> None:
    """From a shell, the table is on stdout, and the exit code is zero."""
    command = [sys.executable, "-c", "from pytest_nnscale.cli import app; app()", "profile"]
    done = subprocess.run([*command, *CONV], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "flops    7.776 kFLOP" in done.stdout


def test_as_a_module(run: Run) -> None:
    """`python -m pytest_nnscale` is the command, with its exit code."""
    command = [sys.executable, "-m", "pytest_nnscale", "profile"]
    done = subprocess.run([*command, *CONV], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "flops    7.776 kFLOP" in done.stdout
    words = [*command, "zoo.house:palace"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no attribute 'palace'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("run")
def test_crosscheck_shows_every_counter() -> None:
    """Ours and torch's own agree on a convolution, and the table says so."""
    result = CliRunner().invoke(app, ["crosscheck", *CONV])
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["nnscale", "7,776"] in rows
    assert ["FlopCounterMode", "7,776", "equal"] in rows


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("zoo.house:nothing", "--input", "1"), "cannot be loaded"),
        (("zoo.house:conv", "--input", "1,,8"), "is not a shape"),
        (("zoo.house:conv", "--input", "1,5,8,8"), "zoo.house:conv raised RuntimeError"),
        (("zoo.house:conv",), "Missing option '--input'"),
    ],
)
def test_crosscheck_refuses_what_profile_refuses(words: tuple[str, ...], sentence: str) -> None:
    """With one sentence and no traceback."""
    result = CliRunner().invoke(app, ["crosscheck", *words])
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
