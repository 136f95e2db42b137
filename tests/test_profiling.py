"""`profile` and `count` without pytest: closed forms, tables, JSON, and what they say no to."""

from __future__ import annotations

import json
import random
import re
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from pytest_nnscale import (
    BadOption,
    BadWorkload,
    CannotMeasure,
    Measurement,
    NnscaleError,
    count,
    profile,
)
from pytest_nnscale.errors import NothingThere
from pytest_nnscale.measurement import Metric

X = torch.ones(1, 8)


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have latency repeat a call a hundred times at most."""
    monkeypatch.setattr("pytest_nnscale.timing.sampling._MOST_SAMPLES", 100)


def mlp() -> nn.Sequential:
    """Return 8-16-4 with a ReLU: 212 parameters, 384 FLOP a row."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@torch.library.custom_op("nnscale_test_profiling::opaque", mutates_args=())
def opaque(x: torch.Tensor) -> torch.Tensor:
    """Do what no formula knows."""
    return x.clone()


class Opaque(nn.Module):
    """One operator without a formula behind a Linear that has one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.nnscale_test_profiling.opaque(self.linear(x))


class Branches(nn.Module):
    """Does what the values of its output say."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.linear(x)
        return out if out.sum() > -1e9 else -out


class Raises(nn.Module):
    """Fails in the middle of its forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("the model's own")


def scripted(model: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model)


# Model, input, then params, flops, macs, size, memory and kernels of one call under no_grad.
CLOSED_FORMS = {
    "linear": (nn.Linear(8, 4), torch.ones(2, 8), 36, 128, 64, 144, 4 * (36 + 16 + 8), 1),
    "linear without bias": (
        nn.Linear(8, 4, bias=False), torch.ones(2, 8), 32, 128, 64, 128, 4 * (32 + 16 + 8), 1,
    ),
    "conv": (
        nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8),
        112, 2 * 36 * 4 * 27, 36 * 4 * 27, 448, 4 * (112 + 192 + 144), 1,
    ),
    "grouped strided conv": (
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), torch.ones(2, 4, 8, 8),
        8 * 2 * 9 + 8, 2 * 2 * 16 * 8 * 18, 2 * 16 * 8 * 18, 4 * 152, 4 * (152 + 512 + 256), 1,
    ),
    "mlp": (mlp(), X, 212, 384, 192, 848, 4 * (212 + 8 + 16 + 16), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_exact_metrics_are_their_closed_forms(name: str) -> None:
    """Shapes alone say what a call costs, and the profile says the same."""
    model, x, *expected = CLOSED_FORMS[name]
    found = profile(model, (x,))
    assert [
        found.params, found.flops, found.macs, found.size_bytes, found.memory_bytes, found.kernels
    ] == expected  # fmt: skip
    assert found.method == "traced"
    assert found.phase == "inference"


LINEAR = 2 * 2 * 8 * 4
CONV = 2 * 36 * 4 * 27
# The first layer needs no gradient of its input, the second does.
MLP = 384 + 2 * 8 * 16 + 2 * 2 * 16 * 4


@pytest.mark.parametrize(
    ("model", "x", "flops"),
    [
        (nn.Linear(8, 4), torch.ones(2, 8), 2 * LINEAR),
        (nn.Linear(8, 4), torch.ones(2, 8, requires_grad=True), 3 * LINEAR),
        (nn.Linear(8, 4).requires_grad_(False), torch.ones(2, 8, requires_grad=True), 2 * LINEAR),
        (nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8), 2 * CONV),
        (nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8, requires_grad=True), 3 * CONV),
        (mlp(), X, MLP),
    ],
    ids=["linear", "linear, input", "frozen linear, input", "conv", "conv, input", "mlp"],
)
def test_training_is_the_forward_and_each_gradient_that_is_needed(
    model: nn.Module, x: torch.Tensor, flops: int
) -> None:
    """Each product of the forward comes again once for each operand that needs a gradient."""
    found = profile(model, (x,), phase="training")
    assert (found.phase, found.flops, found.macs) == ("training", flops, flops // 2)
    assert found.kernels > profile(model, (x,)).kernels


def test_the_rows_of_modules_add_up() -> None:
    """Each module has its own work and parameters, and the whole the sum."""
    rows = {row.path: row for row in profile(mlp(), (X,)).modules}
    assert {path: (row.own_params, row.own_flops) for path, row in rows.items()} == {
        "": (0, 0),
        "0": (144, 256),
        "1": (0, 0),
        "2": (68, 128),
    }
    assert (rows[""].total_params, rows[""].total_flops) == (212, 384)
    assert [row.type for row in rows.values()] == ["Sequential", "Linear", "ReLU", "Linear"]


def test_without_inputs_only_structure_is_measured() -> None:
    """No inputs: params and size are known, the rest is unknown, and nothing ran."""
    found = profile(mlp())
    assert (found.params, found.size_bytes) == (212, 848)
    assert (found.flops, found.macs, found.memory_bytes, found.kernels) == (None,) * 4
    assert (found.latency_s, found.energy_j) == (None, None)
    assert found.method == "state"


def test_a_model_that_cannot_run_has_structure_all_the_same() -> None:
    """Without inputs the forward is never called; with no inputs, `args=()`, it is."""
    assert profile(Raises()).params == 0
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        profile(Raises(), ())


def test_what_needs_a_run_says_so() -> None:
    """FLOPs asked for without inputs: unmeasured, with the remedy."""
    measurement = profile(mlp(), metrics=("flops",)).measurement("flops")
    assert measurement.unmeasured
    assert (measurement.reason, measurement.remedy) == (
        "nothing was run",
        "hand over inputs: profile(model, args=(x,))",
    )


def test_shapes_suffice() -> None:
    """A model on the meta device has no numbers in it, and costs the same."""
    on_meta = nn.Sequential(nn.Linear(8, 16, device="meta"), nn.Linear(16, 4, device="meta"))
    real = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    found, expected = profile(on_meta, (X.to("meta"),)), profile(real, (X,))
    for metric in ("params", "flops", "macs", "size", "memory", "kernels"):
        assert found.measurement(metric).value == expected.measurement(metric).value


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_two_profiles_in_a_row_are_equal(phase: Any) -> None:
    """A profile changes nothing that the next one would see."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    x = torch.randn(2, 3, 8, 8)
    assert profile(model, (x,), phase=phase) == profile(model, (x,), phase=phase)


def test_arguments_by_name_are_part_of_the_call() -> None:
    """`kwargs` alone make a run."""
    assert profile(mlp(), kwargs={"input": X}).flops == 384


class TestUncounted:
    """An operator without a formula is never counted as zero."""

    def test_it_is_named_and_flops_are_a_lower_bound(self) -> None:
        """The Linear counts, and above it everything is possible."""
        found = profile(Opaque(), (X,))
        assert found.uncounted == ("nnscale_test_profiling::opaque",)
        assert found.flops == 64
        for metric in ("flops", "macs"):
            measurement = found.measurement(metric)
            assert (measurement.lower, measurement.upper) == (measurement.value, None)
            assert "nnscale_test_profiling::opaque" in measurement.reason
            assert "flop_formula(torch.ops.nnscale_test_profiling.opaque)" in measurement.remedy

    def test_what_needs_no_formula_stays_exact(self) -> None:
        """Params, size, memory and kernels do not depend on formulas."""
        found = profile(Opaque(), (X,))
        for metric in ("params", "size", "memory", "kernels"):
            measurement = found.measurement(metric)
            assert measurement.lower == measurement.upper == measurement.value

    def test_the_table_says_at_least(self) -> None:
        """Nobody reads a lower bound as a count."""
        text = str(profile(Opaque(), (X,)))
        assert "flops    at least 64 FLOP: no formula for nnscale_test_profiling::opaque" in text

    def test_two_modules_with_the_same_name_it_once(self) -> None:
        """`uncounted` names operators, not their calls."""
        found = profile(nn.Sequential(Opaque(), nn.Linear(4, 8), Opaque()), (X,))
        assert found.uncounted == ("nnscale_test_profiling::opaque",)


class TestJson:
    """`to_json` keeps everything but samples, and unknown is null."""

    def test_the_measurements_come_back(self) -> None:
        """What JSON says, `Measurement.from_dict` reads."""
        found = profile(mlp(), (X,), phase="training")
        told = json.loads(found.to_json())
        assert (told["subject"], told["phase"], told["method"]) == (
            "Sequential",
            "training",
            "traced",
        )
        assert set(told["measurements"]) == {m.metric.value for m in found.measurements}
        for measurement in found.measurements:
            back = Measurement.from_dict(told["measurements"][measurement.metric.value])
            assert back == measurement.without_details()
        assert [row["path"] for row in told["modules"]] == ["", "0", "1", "2"]
        assert told["modules"][1]["own_flops"] == 512

    def test_an_unknown_upper_end_is_null(self) -> None:
        """A lower bound has a value and no upper end, and the operator is named."""
        told = json.loads(profile(Opaque(), (X,)).to_json())
        assert told["measurements"]["flops"]["value"] == 64
        assert told["measurements"]["flops"]["upper"] is None
        assert told["uncounted"] == ["nnscale_test_profiling::opaque"]

    def test_an_unmeasured_metric_is_null(self) -> None:
        """Neither value nor interval, but a reason."""
        told = json.loads(profile(mlp(), metrics=("flops", "latency")).to_json())
        for name in ("flops", "latency"):
            measurement = told["measurements"][name]
            assert [measurement[key] for key in ("value", "lower", "upper")] == [None] * 3
            assert measurement["reason"]

    @pytest.mark.parametrize(
        ("args", "metrics", "unknown"),
        [
            (None, None, "own_flops"),
            (None, None, "total_memory_bytes"),
            ((X,), ("flops",), "own_params"),
        ],
        ids=["flops without a run", "memory without a run", "params not asked for"],
    )
    def test_what_a_module_is_not_known_to_have_is_null(
        self, args: Any, metrics: Any, unknown: str
    ) -> None:
        """A Linear that nobody ran, or nobody asked the size of, is not said to have zero."""
        told = json.loads(profile(mlp(), args, metrics=metrics).to_json())
        linear = next(row for row in told["modules"] if row["path"] == "0")
        assert linear[unknown] is None


class TestText:
    """str(profile) is a table."""

    def test_every_module_and_number_is_in_it(self) -> None:
        """The numbers with their units first, then a row for each module."""
        lines = str(profile(mlp(), (X,))).splitlines()
        held = ["(weights", "848", "B,", "inputs", "32", "B,", "activations", "128", "B)"]
        assert lines[0] == "Sequential (inference, traced); 1 MAC = 2 FLOP"
        assert [line.split() for line in lines[1:7]] == [
            ["params", "212"],
            ["flops", "384", "FLOP"],
            ["macs", "192", "MAC"],
            ["size", "848", "B"],
            ["memory", "1.008", "kB", *held],
            ["kernels", "3"],
        ]
        cells = [line.split() for line in lines]
        assert ["0", "Linear", "144", "256", "FLOP", "66.7", "%", "640", "B"] in cells
        assert ["2", "Linear", "68", "128", "FLOP", "33.3", "%", "272", "B"] in cells

    def test_modules_go_by_their_names_below_their_parents(self) -> None:
        """A nested module is indented under the one that holds it, and fits 80 columns."""
        model = nn.ModuleDict({"encoder": nn.ModuleDict({"first": nn.Linear(2, 2)})})
        lines = str(profile(model)).splitlines()
        encoder, first = (
            next(line.index(name) for line in lines if name in line)
            for name in ("encoder", "first")
        )
        assert first > encoder
        assert max(map(len, lines)) <= 80

    def test_without_a_run_there_are_no_zeros(self) -> None:
        """What did not run shows no FLOPs, rather than 0."""
        assert "0 FLOP" not in str(profile(mlp()))

    @pytest.mark.parametrize("phase", ["inference", "training"])
    @pytest.mark.parametrize("model", [mlp(), Branches()], ids=["traced", "executed"])
    def test_memory_not_asked_for_is_unknown(self, model: Any, phase: Any) -> None:
        """No row, no sum and no holder says 0; all else is as with it."""
        bare = profile(model, (torch.rand(2, 8),), phase=phase, metrics="flops kernels")
        assert bare.method == ("executed" if isinstance(model, Branches) else "traced")
        assert {(row.own_memory_bytes, row.total_memory_bytes) for row in bare.modules} == {
            (None, None)
        }
        assert bare.held == ()
        assert bare.memory_bytes is None
        whole = profile(model, (torch.rand(2, 8),), phase=phase)
        assert whole.memory_bytes
        assert sum(nbytes for _, nbytes in whole.held) == whole.memory_bytes
        assert (bare.flops, bare.kernels) == (whole.flops, whole.kernels)
        assert [row.total_flops for row in bare.modules] == [
            row.total_flops for row in whole.modules
        ]

    def test_params_not_asked_for_are_not_said_to_be_zero(self) -> None:
        """A Linear never has a 0 in its params column."""
        row = next(
            line for line in str(profile(mlp(), (X,), metrics=("flops",))).splitlines()
            if line.split()[:2] == ["0", "Linear"]
        )  # fmt: skip
        assert row.split()[2] in ("256", "144")  # flops come next, or the parameters after all

    def test_an_unmeasured_number_gives_reason_and_remedy(self) -> None:
        """The table says what to do."""
        text = str(profile(mlp(), metrics=("flops",)))
        assert "flops    unmeasured: nothing was run; hand over inputs" in text


BAD = {
    "phase": ({"phase": "train"}, BadOption, "phase is 'inference' or 'training', not 'train'"),
    "no phase": ({"phase": None}, BadOption, "phase is 'inference' or 'training', not None"),
    "metric": (
        {"metrics": ("flops", "speed")},
        BadOption,
        "unknown metric 'speed'; valid are params, flops, macs, size, memory, kernels, latency, "
        "energy",
    ),
    "metrics as text": ({"metrics": "flops,speed"}, BadOption, "unknown metric 'speed'"),
    "args": ({"args": X}, BadWorkload, "args is a tuple of inputs, not Tensor: write (x,)"),
    "args as a dict": ({"args": {"input": X}}, BadWorkload, "not dict: write (x,)"),
    "kwargs": ({"args": None, "kwargs": [X]}, BadWorkload, "kwargs"),
    "model": ({"model": 3}, BadWorkload, "a workload is a model or a function, not int"),
    "device of a time": (
        {"device": "cuda", "metrics": "latency"},
        BadWorkload,
        "device='cuda', but the model and its inputs are on 'cpu'",
    ),
    "device where nothing runs": ({"device": "meta"}, BadOption, "on 'meta' nothing runs"),
    "no device": ({"device": "gpu"}, BadOption, "device='gpu' is no device of torch"),
    "no device at all": ({"device": 7.5}, BadOption, "device=7.5 is no device of torch"),
    "input elsewhere": ({"args": (X.to("meta"),)}, BadWorkload, "meta"),
    "input elsewhere, device stated": (
        {"args": (X.to("meta"),), "device": "cpu"},
        BadWorkload,
        "meta",
    ),
    "input elsewhere, and torch does not mind": (
        {"model": nn.Conv1d(1, 1, 3), "args": (X.to("meta"),), "device": "cpu"},
        BadWorkload,
        "meta",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_refused_with_a_sentence(name: str) -> None:
    """The error is one of ours, and says what was given and what is valid."""
    given, kind, sentence = BAD[name]
    given = {"model": mlp(), "args": (X,), **given}
    with pytest.raises(NnscaleError) as caught:
        profile(**given)
    assert type(caught.value) is kind
    assert sentence in str(caught.value)


def test_errors_also_are_what_python_calls_them() -> None:
    """`except ValueError` and `except TypeError` catch them, too."""
    with pytest.raises(ValueError, match="phase"):
        profile(mlp(), (X,), phase="eval")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tuple"):
        profile(mlp(), X)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver, which can do more")
class TestElsewhere:
    """`device=` is where the model takes itself to run, also where there is no such device."""

    def test_what_works_with_shapes_is_counted(self) -> None:
        """The FLOPs are the same on every path."""
        found = profile(mlp(), (X,), device="cuda")
        assert (found.method, found.flops) == ("traced", 384)
        assert found.params == profile(mlp(), (X,)).params

    def test_tensors_made_in_the_forward_go_there(self) -> None:
        """On the device of the input, which is where the model would be."""

        class Shifted(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                assert x.is_cuda
                return x + torch.arange(8.0, device=x.device)

        assert profile(Shifted(), (torch.ones(2, 8),), device="cuda").method == "traced"

    def test_a_training_step_is_refused(self) -> None:
        """torch would ask the driver for a stream."""
        with pytest.raises(CannotMeasure, match="without its driver"):
            profile(mlp(), (X,), device="cuda", phase="training")

    def test_gradients_taken_inside_end_no_process(self) -> None:
        """The model's own enable_grad makes no graph, which would ask the driver, too."""

        class Stubborn(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(8, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                with torch.enable_grad():
                    return self.inner(x)

        assert profile(Stubborn(), (torch.ones(2, 8),), device="cuda").flops == 2 * 2 * 8 * 2

    def test_what_needs_values_has_to_be_moved(self) -> None:
        """It could only be run where it is not, and the message says so."""

        class Masked(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x[x > 0]

        with pytest.raises(CannotMeasure, match="on cpu, not on cuda") as told:
            profile(Masked(), (torch.ones(2, 8),), device="cuda")
        assert told.value.remedy == "move the model and its inputs to cuda"


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_right_device_is_accepted(device: Any) -> None:
    """Stated as text or as torch's own."""
    assert profile(mlp(), (X,), device=device).flops == 384


@pytest.mark.parametrize("metrics", ["flops", "latency", "flops latency"])
def test_errors_of_the_model_pass_through(metrics: str) -> None:
    """Whatever was asked for, a model that cannot run is no profile."""
    with pytest.raises(ZeroDivisionError, match="the model's own"):
        profile(Raises(), (X,), metrics=metrics)


class TestMetrics:
    """`metrics` chooses what is measured."""

    @pytest.mark.parametrize(
        "metrics",
        [
            ("flops", "params"),
            ["flops", "params"],
            "flops,params",
            "flops, params",
            (name for name in ("flops", "params")),
        ],
        ids=["tuple", "list", "text", "spaced text", "generator"],
    )
    def test_it_is_any_iterable_of_names(self, metrics: Any) -> None:
        """Only what was asked for is there, in the order it was asked for."""
        found = profile(mlp(), (X,), metrics=metrics)
        assert [m.metric for m in found.measurements] == [Metric.FLOPS, Metric.PARAMS]
        assert (found.flops, found.params) == (384, 212)
        assert (found.macs, found.size_bytes, found.latency_s) == (None, None, None)
        with pytest.raises(KeyError, match="size"):
            found.measurement("size")

    def test_latency_is_a_measurement_with_its_interval(self) -> None:
        """A median between its ends, from samples that JSON leaves out."""
        found = profile(mlp(), (X,), metrics=("latency",))
        latency = found.latency_s
        assert latency is not None
        assert 0 < latency.lower <= latency.value <= latency.upper < 1
        assert latency.method == "wall clock"
        assert len(latency.samples) >= 8
        assert json.loads(found.to_json())["measurements"]["latency"]["samples"] == []
        assert (found.energy_j, found.flops) == (None, None)
        assert "(between " in str(found)

    def test_repeats_of_a_training_profile_run_the_backward(self) -> None:
        """What is timed is what the phase says: a backward pass for each call, or none."""
        ran = []

        class Tells(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
                return x.clone()

            @staticmethod
            def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
                ran.append(1)
                return grad

        linear = nn.Linear(8, 1)

        class Told(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = linear

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return Tells.apply(self.linear(x))

        profile(Told(), (X,), metrics=("latency",))
        assert not ran
        found = profile(Told(), (X,), phase="training", metrics=("latency",))
        assert len(ran) >= len(found.measurement("latency").samples) > 0

    def test_options_say_how_it_is_sampled(self) -> None:
        """By their ini keys; an estimate says that it is one."""
        options = {
            "nnscale_energy_source": "estimate",
            "nnscale_watts_per_core": 8,
            "nnscale_max_time": 0.3,
            "nnscale_grid_gco2_per_kwh": 400,
        }
        energy = profile(mlp(), (X,), metrics="energy", options=options).energy_j
        assert energy is not None
        assert energy.estimated
        assert (energy.value or 0) > 0
        assert energy.method == "estimate: CPU time x 8 W a core"
        assert any("g CO2e a call at 400 g/kWh" in note for note in energy.notes)
        lasted_s = energy.notes[0].partition(" calls in ")[2].split()[0]
        assert float(lasted_s) <= 0.3

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"nnscale_max_tim": 1}, "did you mean nnscale_max_time?"),
            ({"max_time": 1}, "'max_time' is no option of a profile"),
            ({"nnscale_require": "energy"}, "'nnscale_require' is no option of a profile"),
            ({"nnscale_max_time": 0}, "nnscale_max_time: '0' is not seconds above zero"),
            ({"nnscale_energy_source": "tdp"}, "'tdp' is not one of auto, nvml, rapl"),
            ({"nnscale_energy_source": "estimate"}, "needs the power of a busy core"),
        ],
    )
    def test_a_bad_option_is_refused(self, options: dict[str, object], words: str) -> None:
        """Also where nothing is sampled: it would do nothing, unseen."""
        with pytest.raises(BadOption, match=re.escape(words)):
            profile(mlp(), (X,), options=options)

    def test_energy_without_a_counter_is_unmeasured(self, monkeypatch: Any) -> None:
        """None would mean that nobody asked; zero that it is free."""

        def none_here(device: str, wanted: Any) -> Any:
            raise NothingThere("no counter", remedy="buy one")

        monkeypatch.setattr("pytest_nnscale.meters.energy.find_counters", none_here)
        energy = profile(mlp(), (X,), metrics=("energy",)).energy_j
        assert energy is not None
        assert (energy.value, energy.reason, energy.missing) == (None, "no counter", "energy")


def test_the_rows_are_in_the_order_of_the_model() -> None:
    """As `named_modules` has them, and not by the alphabet."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8))
            self.a = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(self.body(self.stem(x))) + self.body(x)

    assert [row.path for row in profile(Net(), (X,)).modules] == ["", "stem", "body", "body.0", "a"]


class TestTrainingSteps:
    """`loss` and `optimizer` make a training step of what was given."""

    @pytest.mark.parametrize(
        ("make", "states"),
        [
            (lambda p: torch.optim.SGD(p, lr=0.1), 0),
            (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1),
            (lambda p: torch.optim.RMSprop(p, foreach=False), 1),
            (lambda p: torch.optim.Adam(p, foreach=False), 2),
            (lambda p: torch.optim.AdamW(p, fused=True), 2),
        ],
        ids=["SGD", "momentum", "RMSprop", "Adam", "fused AdamW"],
    )
    def test_an_optimiser_holds_its_state_and_does_no_contraction(
        self, make: Any, states: int
    ) -> None:
        """Weights, gradients, and as many tensors of the same size as it keeps for each."""
        model, x = nn.Linear(256, 256, bias=False), torch.ones(1, 256)
        weights = 256 * 256 * 4
        plain = profile(model, (x,), phase="training")
        stepped = profile(model, (x,), phase="training", optimizer=make)
        assert stepped.flops == plain.flops
        assert stepped.kernels > plain.kernels
        # Up to three more tensors of that size pass through a step.
        assert (2 + states) * weights <= stepped.memory_bytes < (5 + states) * weights

    def test_a_loss_is_part_of_the_work(self) -> None:
        """Its contractions count, forward and backward."""
        metric = torch.ones(4, 4)
        model = nn.Linear(8, 4, bias=False)
        plain = profile(model, (X,), phase="training", loss=lambda y: y.sum())
        weighed = profile(model, (X,), phase="training", loss=lambda y: ((y @ metric) * y).sum())
        n = X.shape[0]
        assert plain.flops == profile(model, (X,), phase="training").flops
        assert weighed.flops == plain.flops + 2 * (2 * n * 4 * 4)

    @pytest.mark.parametrize("metrics", [None, "latency"])
    def test_a_step_leaves_the_model_as_it_was(self, metrics: Any, monkeypatch: Any) -> None:
        """Its weights above all, and no gradient stays."""
        monkeypatch.setattr("pytest_nnscale.timing.sampling._MOST_SAMPLES", 100)
        model = mlp()
        before = [(p.detach().clone(), p._version) for p in model.parameters()]
        profile(
            model,
            (X,),
            phase="training",
            metrics=metrics,
            optimizer=lambda p: torch.optim.Adam(p, lr=1.0),
        )
        for parameter, (values, version) in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter, values)
            assert (parameter._version, parameter.grad) == (version, None)

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"phase": "inference", "loss": torch.sum}, "belong to phase='training'"),
            ({"loss": 3}, "loss= is a function, not 3"),
            ({"optimizer": "adam"}, "optimizer= is a function, not 'adam'"),
            ({"model": torch.sin, "optimizer": torch.optim.SGD}, "hand over the model itself"),
        ],
    )
    def test_a_bad_step_is_refused(self, given: dict[str, Any], sentence: str) -> None:
        """With the fix in the sentence."""
        given = {"model": mlp(), "phase": "training", **given}
        with pytest.raises(NnscaleError, match=sentence):
            profile(given.pop("model"), (X,), **given)


class TestFunctions:
    """A function is a workload as well."""

    def test_its_work_is_counted(self) -> None:
        """Operators count whoever calls them."""
        found = profile(lambda x: x @ x, (torch.ones(2, 2),))
        assert (found.subject, found.flops) == ("<lambda>", 16)
        assert found.params is None
        assert "no torch.nn.Module was called" in found.measurement("params").reason

    def test_the_modules_that_it_calls_are_never_said_to_have_no_parameters(self) -> None:
        """Their parameters are measured, or they are unknown."""
        model = mlp()
        found = profile(lambda x: model(x), (X,))
        rows = {row.path: row for row in found.modules}
        assert rows["0"].own_params in (144, None)
        assert found.params == 212 or "no torch.nn.Module was called" not in str(found)

    def test_a_method_of_a_model_has_its_rows(self) -> None:
        """Each module once: its parameters and its work in one row."""
        found = profile(mlp().forward, (X,))
        assert (found.subject, found.params, found.flops) == ("Sequential", 212, 384)
        assert {row.path: (row.own_params, row.own_flops) for row in found.modules} == {
            "": (0, 0),
            "0": (144, 256),
            "1": (0, 0),
            "2": (68, 128),
        }


class TestCompiledAndScripted:
    """Compiled and scripted models cost what their eager selves cost."""

    @pytest.mark.parametrize("phase", ["inference", "training"])
    @pytest.mark.parametrize("wrap", ["compiled", "compiled in place", "scripted"])
    def test_the_numbers_are_the_same(self, wrap: str, phase: Any) -> None:
        """Every exact metric is that of the model before it was wrapped."""
        expected = profile(mlp(), (X,), phase=phase)
        model = mlp()
        if wrap == "compiled":
            model = torch.compile(model, backend="eager", fullgraph=True)
        elif wrap == "compiled in place":
            model.compile(backend="eager", fullgraph=True)
        else:
            model = scripted(model)
        found = profile(model, (X,), phase=phase)
        for metric in ("params", "flops", "macs", "size", "kernels"):
            assert found.measurement(metric).value == expected.measurement(metric).value, metric
        if phase == "inference" and wrap != "scripted":
            assert found.memory_bytes == expected.memory_bytes

    def test_a_compiled_model_has_the_rows_of_its_eager_self(self) -> None:
        """The shell that torch.compile puts around a model is no module of its own."""
        compiled = torch.compile(mlp(), backend="eager")
        assert profile(compiled, (X,)).modules == profile(mlp(), (X,)).modules

    def test_a_scripted_model_goes_by_the_class_it_was_scripted_from(self) -> None:
        """Nobody has written a RecursiveScriptModule."""
        found = profile(scripted(mlp()), (X,))
        assert found.subject == "Sequential"
        assert [row.type for row in found.modules][:2] == ["Sequential", "Linear"]


class TestCount:
    """`count` counts a block that runs for real."""

    def test_the_block_runs_and_is_counted(self) -> None:
        """The output is real, and the profile has every exact metric."""
        model = mlp()
        with count() as counting:
            output = model(X)
        assert torch.equal(output, model(X))
        found = counting.profile
        assert (found.subject, found.phase) == ("counted block", "inference")
        assert (found.flops, found.params, found.kernels) == (384, 212, 3)
        assert {row.path for row in found.modules} == {"", "0", "1", "2"}

    def test_a_backward_makes_it_training(self) -> None:
        """Forward and backward add up, and the gradients are there afterwards."""
        model = mlp()
        with count() as counting:
            model(X).sum().backward()
        assert (counting.profile.phase, counting.profile.flops) == ("training", MLP)
        assert all(p.grad is not None for p in model.parameters())

    def test_nested_blocks_both_count(self) -> None:
        """The inner block is part of the outer one, and no more than it did."""
        model = mlp()
        with count() as outer:
            model(X)
            with count() as inner:
                model(X)
            assert inner.profile.flops == 384
            model(X)
        assert (inner.profile.flops, outer.profile.flops) == (384, 3 * 384)
        assert outer.profile.params == 212

    def test_an_error_passes_through_and_leaves_no_profile(self) -> None:
        """The block's own error is the one to be seen."""
        block = count()
        with pytest.raises(ZeroDivisionError, match="the model's own"), block as counting:
            Raises()(X)
        with pytest.raises(CannotMeasure):
            _ = counting.profile

    def test_an_error_inside_is_not_the_end_of_the_outer_block(self) -> None:
        """The outer block goes on counting, and sees what the inner one did before it raised."""
        model, fails = mlp(), nn.Sequential(nn.Linear(8, 4), Raises())
        with count() as outer:
            with pytest.raises(ZeroDivisionError), count():
                fails(X)
            model(X)
        assert outer.profile.flops == 64 + 384

    def test_there_is_no_profile_before_the_end(self) -> None:
        """It says when there will be one."""
        with count() as counting, pytest.raises(CannotMeasure, match="has not ended") as caught:
            _ = counting.profile
        assert caught.value.remedy == "read .profile after the with block"
        assert counting.profile.flops is None  # the block ran nothing

    def test_nothing_of_it_stays_active(self) -> None:
        """After the block, also after one that raised, torch dispatches as before."""
        with pytest.raises(ZeroDivisionError), count():
            raise ZeroDivisionError
        assert torch._C._len_torch_dispatch_stack() == 0
        with count() as counting:
            pass
        mlp()(X)
        assert counting.profile.flops is None

    def test_without_a_module_there_are_no_params_to_speak_of(self) -> None:
        """Operators alone: params and size are not in the profile at all."""
        with count() as counting:
            torch.ones(2, 2) @ torch.ones(2, 2)
        assert (counting.profile.flops, counting.profile.params) == (16, None)
        assert "params" not in json.loads(counting.profile.to_json())["measurements"]

    def test_no_random_number_is_drawn(self) -> None:
        """Counting takes none from any generator."""
        model = mlp()
        before = torch.get_rng_state(), random.getstate()
        with count():
            model(X)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
