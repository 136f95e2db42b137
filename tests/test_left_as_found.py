"""Whatever measures a model, by whichever way in, leaves it as it was, or as one plain call does."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import pickle
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from pytest_nnscale import count, profile

EXACT = ("params", "flops", "macs", "size", "memory", "kernels")
SAMPLED = ("latency", "energy")
METRICS = (*EXACT, *SAMPLED)
PHASES = ("inference", "training")
MARK_OF = {
    "params": "max_params",
    "flops": "max_flops",
    "macs": "max_macs",
    "size": "max_size_mb",
    "memory": "max_memory_mb",
    "kernels": "max_kernels",
    "latency": "max_latency_ms",
    "energy": "max_energy_j",
}


class Eventful(nn.Module):
    """Has all that a call can change, and changes it: statistics, counts, draws, attributes.

    It reads no number that it draws, so that two builds of it compare.
    """

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.again = nn.Linear(4, 4)
        self.again.weight = self.into.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 2).eval()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4), persistent=False)
        self.seen = 0
        self.shapes: list[tuple[int, ...]] = []
        self.fails = False
        self.norm.register_forward_hook(_note_shape)
        self.norm.register_forward_pre_hook(_note_input)
        self.into.register_full_backward_hook(_note_gradient)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen += 1
        self.shapes.append(tuple(x.shape))
        y = self.frozen(self.again(self.dropout(self.norm(self.into(x)))))
        self.mean = 0.9 * self.mean + y.detach().mean(0)
        random.random()
        numpy.random.rand()
        if self.fails:
            raise ZeroDivisionError("half way")
        return self.head(y)


def _note_shape(module: nn.Module, args: Any, output: torch.Tensor) -> None:
    module.last_shape = tuple(output.shape)


def _note_input(module: nn.Module, args: Any) -> None:
    module.times = getattr(module, "times", 0) + 1


def _note_gradient(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
    module.backwards = getattr(module, "backwards", 0) + 1


def seed() -> None:
    """Start all random numbers anew."""
    torch.manual_seed(0)
    random.seed(0)
    numpy.random.seed(0)


def build() -> tuple[Eventful, torch.Tensor]:
    """Return the same model and input each time; one weight and the input have a gradient."""
    seed()
    model = Eventful()
    x = torch.randn(3, 4, requires_grad=True)
    x.grad = torch.randn(3, 4)
    model.into.weight.grad = torch.randn(4, 4)
    return model, x


def fingerprint(model: nn.Module, *tensors: torch.Tensor) -> dict[str, str]:
    """Hash all that a model is, its inputs, and what torch and Python keep for the process.

    Two models that were built and used alike have the same fingerprint.
    """
    seen: dict[str, Any] = {f"input {i}": _state(tensor) for i, tensor in enumerate(tensors)}
    for path, part in model.named_modules():
        seen[f"{path} keys"] = list(vars(part))
        seen[f"{path} training"] = part.training
        for name, value in vars(part).items():
            if "hooks" in name:
                seen[f"{path} {name}"] = [
                    getattr(hook, "__name__", type(hook).__name__) for hook in value.values()
                ]
            elif isinstance(value, bool | int | float | str | list | tuple):
                seen[f"{path} {name}"] = repr(value)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in getattr(part, kind).items():
                seen[f"{path} {name}"] = None if tensor is None else _state(tensor)
    seen["shared"] = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    seen["torch's generator"] = torch.get_rng_state().numpy().tobytes()
    seen["Python's generator"] = random.getstate()
    seen["NumPy's generator"] = pickle.dumps(numpy.random.get_state())
    seen["process"] = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch._C._len_torch_dispatch_stack(),
        torch._C._len_torch_function_stack(),
        len(module_hooks._global_forward_hooks),
        len(module_hooks._global_forward_pre_hooks),
        len(module_hooks._global_backward_hooks),
        threading.Thread.start.__qualname__,
        gc.isenabled(),
    )
    return {key: hashlib.sha256(repr(value).encode()).hexdigest() for key, value in seen.items()}


def _state(tensor: torch.Tensor) -> list[Any]:
    grad = None if tensor.grad is None else [tensor.grad.tolist(), tensor.grad._version]
    return [
        tensor.detach().tolist(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        tensor._version,
        tensor.requires_grad,
        tensor.grad_fn is None,
        grad,
    ]


def identities(model: nn.Module, *tensors: torch.Tensor) -> list[int]:
    """Tell one object from an equal one: modules, tensors, where they lie, gradients, hooks."""
    kept = [*tensors, *model.parameters(), *model.buffers()]
    hooks = [
        id(hook)
        for part in model.modules()
        for name, value in vars(part).items()
        if "hooks" in name
        for hook in value.values()
    ]
    return [
        *map(id, model.modules()),
        *map(id, kept),
        *(tensor.data_ptr() for tensor in kept),
        *(id(tensor.grad) for tensor in kept),
        *hooks,
    ]


@contextlib.contextmanager
def unchanged(model: nn.Module, *tensors: torch.Tensor) -> Iterator[None]:
    """Fail where the block leaves a model, its inputs or the process other than it found them."""
    before, were = fingerprint(model, *tensors), identities(model, *tensors)
    yield
    assert differences(before, fingerprint(model, *tensors)) == []
    assert identities(model, *tensors) == were


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Name the parts in which two fingerprints differ."""
    return sorted(k for k in {**one, **other} if one.get(k) != other.get(k))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch from waiting for cores that a busy machine does not give it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sampled metrics repeat a call some twenty times, and energy on every machine."""
    from pytest_nnscale.meters import energy
    from pytest_nnscale.power.counter import FakeCounter
    from pytest_nnscale.timing.clock import WallClock

    measure_energy = energy.measure_energy

    def brief_energy(call: Any, **how: Any) -> Any:
        counters = (FakeCounter(10.0, WallClock().now_s),)
        return measure_energy(call, **{**how, "max_time_s": 0.3, "counters": counters})

    monkeypatch.setattr(energy, "measure_energy", brief_energy)
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # half a second in a large process
    monkeypatch.setattr("pytest_nnscale.timing.sampling._MOST_SAMPLES", 100)
    monkeypatch.setattr("pytest_nnscale.timing.sampling.WARM_UP_SHARE", 0.01)


def test_the_fingerprint_sees_a_plain_call() -> None:
    """What follows would prove nothing if a plain call left no trace."""
    model, x = build()
    before = fingerprint(model, x)
    model(x).sum().backward()
    changed = differences(before, fingerprint(model, x))
    assert {
        " calls", " mean", " seen", " shapes", "norm running_mean", "norm running_var",
        "norm num_batches_tracked", "norm keys", "into weight", "into bias", "into keys",
        "input 0", "torch's generator", "Python's generator", "NumPy's generator",
    } <= set(changed)  # fmt: skip


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("briefly")
class TestProfile:
    """`profile` leaves no trace."""

    def test_a_model_is_left_as_found(self, metric: str, phase: Any) -> None:
        """Each metric by itself, in both phases."""
        model, x = build()
        with unchanged(model, x):
            found = profile(model, (x,), phase=phase, metrics=(metric,))
        assert found.measurement(metric).value is not None

    def test_a_model_that_raises_half_way_is_left_as_found(self, metric: str, phase: Any) -> None:
        """What it changed before it raised is put back as well."""
        model, x = build()
        model.fails = True
        with unchanged(model, x), contextlib.suppress(ZeroDivisionError):
            profile(model, (x,), phase=phase, metrics=(metric,))

    def test_the_model_behind_a_function_is_left_as_found(self, metric: str, phase: Any) -> None:
        """A function that calls a model changes it no more than the model itself would."""
        model, x = build()
        with unchanged(model, x):
            found = profile(lambda x: model(x), (x,), phase=phase, metrics=(metric,))
        assert found.measurement(metric).value is not None


class Momentum(nn.Module):
    """Writes weights in its forward, as momentum encoders do (MoCo, BYOL)."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.target = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.target.weight.lerp_(self.online.weight, 0.5)
        return self.online(x) + self.target(x)


class Bounded(nn.Module):
    """Writes weights in its forward, as a bounded embedding does."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4, max_norm=0.1)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.table(x)


@pytest.mark.parametrize("metric", ["flops", "latency", "energy"])
@pytest.mark.parametrize(
    ("kind", "x"),
    [(Momentum, torch.ones(2, 4)), (Bounded, torch.tensor([0, 2]))],
    ids=["momentum encoder", "bounded embedding"],
)
@pytest.mark.usefixtures("briefly")
def test_weights_that_a_forward_writes_are_put_back(
    kind: Callable[[], nn.Module], x: torch.Tensor, metric: str
) -> None:
    """A weight is no safer from a forward than a buffer is."""
    model = kind()
    with unchanged(model, x):
        found = profile(model, (x,), metrics=(metric,))
    assert found.measurement(metric).value is not None


@pytest.mark.parametrize("metric", ["flops", "latency"])
@pytest.mark.usefixtures("briefly")
def test_a_list_handed_over_is_as_long_as_before(metric: str) -> None:
    """A cache that each call appends to does not grow by being measured."""
    cache: list[torch.Tensor] = []

    def attend(x: torch.Tensor, cache: list[torch.Tensor]) -> torch.Tensor:
        cache.append(x)
        return torch.cat(cache[-2:]) @ x.T

    profile(attend, (torch.ones(1, 4), cache), metrics=(metric,))
    assert cache == []


@pytest.mark.parametrize("wrap", ["compiled", "scripted"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.usefixtures("briefly")
def test_a_wrapped_model_is_left_as_found(wrap: str, phase: Any) -> None:
    """Statistics and gradients of compiled and scripted models are put back, too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[0].weight.grad = torch.ones(4, 4)
    x = torch.randn(3, 4)
    if wrap == "compiled":
        ready = torch.compile(model, backend="eager")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ready = torch.jit.script(model)
    ready(x)
    with unchanged(model, x):
        found = profile(ready, (x,), phase=phase, metrics=("flops", "latency"))
    assert found.measurement("latency").value is not None


class TestCount:
    """`count` runs the block for real, and adds nothing to what it does."""

    @pytest.mark.parametrize("phase", PHASES)
    @pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
    def test_it_leaves_what_the_block_leaves(self, phase: str, fails: bool) -> None:
        """A counted block and a plain one end with the same fingerprint."""

        def run() -> tuple[Eventful, torch.Tensor]:
            model, x = build()
            model.fails = fails
            with contextlib.suppress(ZeroDivisionError):
                output = model(x)
                if phase == "training":
                    output.sum().backward()
            return model, x

        plain = fingerprint(*run())
        with count():
            model, x = run()
        assert differences(plain, fingerprint(model, x)) == []


# The inner suite imports this file as `subject`.
SUBJECT = {"subject.py": Path(__file__).read_text(encoding="utf-8")}
PLAIN = """
    from subject import build, differences, fingerprint, seed
    import contextlib
    import subject
    def plain(fails=False, backward=False, calls=1):
        model, x = build()
        model.fails = fails
        with contextlib.suppress(ZeroDivisionError):
            for _ in range(calls):
                output = model(x)
                if backward:
                    output.sum().backward()
        return fingerprint(model, x)
"""


def each(metrics: tuple[str, ...], template: str, *, phase: str) -> str:
    """Return an inner suite: its beginning, and the template once for each metric."""
    texts = [
        template.replace("METRIC", metric)
        .replace("MARK", f"@pytest.mark.{MARK_OF[metric]}(10**9, phase={phase!r})")
        .replace("TRAINS", str(phase == "training"))
        for metric in metrics
    ]
    return PLAIN + "".join(texts)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("metrics", [EXACT, SAMPLED], ids=["exact", "sampled"])
@pytest.mark.usefixtures("briefly")
class TestInPytest:
    """The fixture and the body leave what one plain run leaves."""

    def test_the_fixture_leaves_one_plain_call(
        self, suite: Any, metrics: tuple[str, ...], phase: str
    ) -> None:
        """The user's call is real; nothing else that happened is to be seen."""
        template = """
    MARK
    def test_METRIC(nnscale):
        expected = plain()
        model, x = build()
        output = nnscale(model, x)
        assert differences(expected, fingerprint(model, x)) == []
        output.sum().backward()  # its graph is whole
        assert differences(plain(backward=True), fingerprint(model, x)) == []
    """
        result = suite(each(metrics, template, phase=phase), files=SUBJECT)
        n = len(metrics)
        result.assert_outcomes(passed=n)
        assert f"{n} budgets: {n} within, 0 over, 0 inconclusive, 0 unmeasured" in result.outlines

    def test_the_fixtures_profile_leaves_no_trace(
        self, suite: Any, metrics: tuple[str, ...], phase: str
    ) -> None:
        """`nnscale.profile` is no call of the user's."""
        template = f"""
    MARK
    def test_METRIC(nnscale):
        model, x = build()
        with subject.unchanged(model, x):
            nnscale.profile(model, (x,), phase={phase!r})
    """
        result = suite(each(metrics, template, phase=phase), files=SUBJECT)
        result.assert_outcomes(passed=len(metrics))

    def test_a_call_that_raises_leaves_one_plain_call(
        self, suite: Any, metrics: tuple[str, ...], phase: str
    ) -> None:
        """The test may expect the error; the model is where it would have been."""
        template = """
    MARK
    def test_METRIC(nnscale):
        expected = plain(fails=True)
        model, x = build()
        model.fails = True
        with pytest.raises(ZeroDivisionError):
            nnscale(model, x)
        assert differences(expected, fingerprint(model, x)) == []
        model.fails = False
        nnscale(model, x)
    """
        result = suite(each(metrics, template, phase=phase), files=SUBJECT)
        result.assert_outcomes(passed=len(metrics))

    def test_the_body_leaves_one_plain_run(
        self, suite: Any, metrics: tuple[str, ...], phase: str
    ) -> None:
        """The body ran many times, and the model has seen one of them."""
        template = """
    @pytest.fixture(scope="module")
    def METRIC_made():
        return build()
    MARK
    def test_METRIC(METRIC_made):
        model, x = METRIC_made
        output = model(x)
        if TRAINS:
            output.sum().backward()
    def test_after_METRIC(METRIC_made):
        found = fingerprint(*METRIC_made)
        assert differences(plain(backward=TRAINS), found) == []
    """
        result = suite(each(metrics, template, phase=phase), files=SUBJECT)
        n = len(metrics)
        result.assert_outcomes(passed=2 * n)
        assert f"{n} budgets: {n} within, 0 over, 0 inconclusive, 0 unmeasured" in result.outlines


@pytest.mark.usefixtures("briefly")
class TestInPytestByHalves:
    """Runs that end half way, and models that write their weights."""

    @pytest.mark.parametrize("metric", ["flops", "latency"])
    def test_a_body_whose_second_run_raises_leaves_one_plain_run(
        self, suite: Any, metric: str
    ) -> None:
        """What the second run did until it raised is undone."""
        suite(
            PLAIN
            + f"""
    model, x = build()
    runs = []
    def fail(module, args):
        if len(runs) > 1:
            raise ZeroDivisionError
    handle = model.head.register_forward_pre_hook(fail)
    @pytest.mark.{MARK_OF[metric]}(10**9)
    def test_it():
        runs.append(1)
        model(x)
    def test_after():
        handle.remove()
        assert len(runs) == 2
        assert differences(plain(), fingerprint(model, x)) == []
    """,
            files=SUBJECT,
        ).assert_outcomes(passed=1, failed=1)

    @pytest.mark.parametrize("metric", ["latency", "energy"])
    def test_a_call_that_fails_when_repeated_leaves_one_plain_call(
        self, suite: Any, metric: str
    ) -> None:
        """It is unmeasured, and the model has seen the first call only."""
        result = suite(
            PLAIN
            + f"""
    @pytest.mark.{MARK_OF[metric]}(10**9)
    def test_it(nnscale):
        expected = plain()
        model, x = build()
        times = []
        def fail(module, args):
            times.append(1)
            if len(times) > 2:
                raise ZeroDivisionError
        handle = model.head.register_forward_pre_hook(fail)
        nnscale(model, x)
        handle.remove()
        assert len(times) == 3
        assert differences(expected, fingerprint(model, x)) == []
    """,
            files=SUBJECT,
        )
        result.assert_outcomes(failed=1)
        assert "the call cannot be repeated: ZeroDivisionError" in result.stdout.str()

    @pytest.mark.parametrize("metric", ["flops", "latency", "energy"])
    @pytest.mark.parametrize("way", ["fixture", "fixture, function", "body"])
    def test_weights_are_written_as_often_as_in_one_plain_run(
        self, suite: Any, metric: str, way: str
    ) -> None:
        """A momentum encoder takes one step, however often it was timed."""
        call = {
            "fixture": "nnscale(model, x)",
            "fixture, function": "nnscale(lambda x: model(x), x)",
            "body": "model(x)",
        }[way]
        suite(
            PLAIN
            + f"""
    def made():
        seed()
        return subject.Momentum(), torch.ones(2, 4)
    model, x = made()
    @pytest.mark.{MARK_OF[metric]}(10**9)
    def test_it({"nnscale" if way.startswith("fixture") else ""}):
        {call}
    def test_after():
        found = fingerprint(model, x)
        other, y = made()
        other(y)
        assert differences(fingerprint(other, y), found) == []
    """,
            files=SUBJECT,
        ).assert_outcomes(passed=2)
