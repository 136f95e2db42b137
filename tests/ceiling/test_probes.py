"""The short runs that find a ceiling: the best counts, and what is no product is refused."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from pytest_nnscale.ceiling import probes
from pytest_nnscale.ceiling.probes import convolution_rate, move_rate, product_rate
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.clock import WallClock
from pytest_nnscale.timing.conditions import Watch


class ScriptedClock:
    """A clock by which each new call takes the next of some times, at best.

    The first batch of a call, which finds it cold, and all but one of the later ones take longer.
    """

    resolution_s, method = 1e-9, "script"

    def __init__(self, best_s: Iterable[float]) -> None:
        self._script = iter(best_s)
        self._call: Callable[[], object] | None = None
        self._best_s, self._rounds = 0.0, 0
        self.time_s = 0.0
        self.results: list[Any] = []
        self.batches: list[tuple[int, int]] = []

    def now_s(self) -> float:
        return self.time_s

    def times_s(self, call: Callable[[], object], *, calls: int, batches: int) -> list[float]:
        if call is not self._call:
            self._call, self._best_s, self._rounds = call, next(self._script), 0
            self.results.append(call())
        self._rounds += 1
        self.batches.append((calls, batches))
        times_s = [2 * self._best_s] * batches
        if self._rounds == 3:
            times_s[-1] = self._best_s
        self.time_s += sum(times_s) * calls
        return times_s


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody hold up these tests' batches, as another process might."""
    monkeypatch.setattr(probes, "held_up", lambda: 0)


def test_the_rate_is_that_of_the_fastest_size() -> None:
    """Two FLOP for each of n^3 products, at the best time: here at 512."""
    clock = ScriptedClock([1e-3, 1.9e-3, 0.03])
    assert product_rate("float32", device="cpu", clock=clock) == 2 * 512**3 / 1.9e-3


def test_sizes_grow_until_a_product_takes_long() -> None:
    """A slow machine, or a slow dtype, is not kept busy for a minute."""
    clock = ScriptedClock([0.0021])
    assert product_rate("float64", device="cpu", clock=clock) == 2 * 256**3 / 0.0021
    (first,) = clock.results
    assert first.shape == (256, 256)
    assert first.dtype == torch.float64


def test_short_calls_are_timed_in_batches_and_for_a_moment_only() -> None:
    """Long enough for the clock, short enough to be seldom interrupted, a fifth of a second in all."""
    clock = ScriptedClock([1e-6] * 2)
    move_rate(1 << 20, device="cpu", clock=clock)
    assert {*clock.batches} == {(1, 3), (26, 1)}
    assert clock.time_s == pytest.approx(0.4, rel=0.01)


def test_long_calls_are_timed_three_times() -> None:
    """However long they take: one of them may be held up."""
    clock = ScriptedClock([5.0])
    product_rate("float32", device="cpu", clock=clock)
    assert clock.batches == [(1, 3)] + [(1, 1)] * 3


def test_of_a_gpu_batches_are_asked_for_together() -> None:
    """Or each would wait for its launch, and the ceiling be too low; meta stands for it here."""
    clock = ScriptedClock([0.01])
    product_rate("float32", device="meta", clock=clock)
    assert set(clock.batches) == {(1, 3), (1, 5)}


def test_a_machine_that_is_busy_all_the_time_has_no_ceiling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ceiling that is too low would have any efficiency pass."""
    monkeypatch.setattr(probes, "held_up", itertools.count().__next__)
    clock = ScriptedClock([0.01])
    with pytest.raises(CannotMeasure) as caught:
        product_rate("float32", device="cpu", clock=clock)
    assert caught.value.reason.startswith("the machine was too busy to find out what it can do: ")
    assert "nothing else runs" in caught.value.remedy
    assert 3 <= clock.time_s < 3.2


def test_a_machine_that_is_busy_at_first_is_tried_until_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One batch that nobody held up is enough."""
    clock = ScriptedClock([0.01])
    monkeypatch.setattr(probes, "held_up", lambda: min(clock.time_s, 2.0))
    assert product_rate("float32", device="cpu", clock=clock) == 2 * 256**3 / 0.01
    assert 2 <= clock.time_s < 2.2


class Gpu(Watch):
    """A GPU that throttles until some moment of a clock; meta stands for it, and computes nothing."""

    remedy = "let it cool down"

    def __init__(self, clock: ScriptedClock, until_s: float) -> None:
        self._clock, self._until_s = clock, until_s

    def look(self) -> str:
        return "the GPU throttled (power cap)" if self._clock.time_s < self._until_s else ""


def test_a_gpu_that_throttles_at_first_is_tried_until_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One batch at full clocks is enough, of which neither end was throttled."""
    clock = ScriptedClock([0.01])
    monkeypatch.setattr(probes, "conditions", lambda _device: nullcontext(Gpu(clock, 2.0)))
    assert product_rate("float32", device="meta", clock=clock) == 2 * 256**3 / 0.01
    assert 2.0 < clock.time_s < 2.5


def test_a_gpu_that_throttles_all_the_time_has_no_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found then would be kept, and be too low for good."""
    clock = ScriptedClock([0.01])
    monkeypatch.setattr(probes, "conditions", lambda _device: nullcontext(Gpu(clock, 60.0)))
    with pytest.raises(CannotMeasure) as caught:
        product_rate("float32", device="meta", clock=clock)
    assert caught.value.reason == (
        "the GPU throttled (power cap) whenever it was to show what it can do"
    )
    assert caught.value.remedy == "let it cool down"


@pytest.mark.skipif(sys.platform == "win32", reason="nobody counts there")
def test_being_put_aside_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on one core put each other aside, many times a second."""
    monkeypatch.undo()
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to a core")
    cores = os.sched_getaffinity(0)
    rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for process in (0, rival.pid):
            os.sched_setaffinity(process, {min(cores)})
        before, end_s = probes.held_up(), time.perf_counter() + 1
        while time.perf_counter() < end_s:
            pass
        assert probes.held_up() > before
    finally:
        os.sched_setaffinity(0, cores)
        rival.kill()
        rival.wait()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_each_dtype_is_multiplied_as_itself(dtype: str) -> None:
    """And right: the numbers are those of the product."""
    clock = ScriptedClock([0.03])
    product_rate(dtype, device="cpu", clock=clock)
    (result, *_) = clock.results
    assert str(result.dtype) == f"torch.{dtype}"
    assert 40 < float(result.double().mean()) < 90  # of 256 products of two numbers of [0, 1)


def test_a_convolution_by_single_pixels_is_as_much_work_as_a_product() -> None:
    """n^2 weights for each of n pixels."""
    clock = ScriptedClock([0.03])
    rate = convolution_rate("float32", device="cpu", clock=clock)
    (result, *_) = clock.results
    pixels = result.numel() // 256
    assert 2 * 256 * 256 * pixels == 2 * 256**3
    assert rate == 2 * 256**3 / 0.03


def test_a_dtype_without_products_is_refused() -> None:
    """With torch's own words."""
    with pytest.raises(CannotMeasure) as caught:
        product_rate("float8_e8m0fnu", device="cpu", clock=ScriptedClock([0.03]))
    assert caught.value.reason.startswith("no product of float8_e8m0fnu runs on cpu: ")
    assert caught.value.remedy == "measure its latency instead: max_latency_ms"


def test_a_size_that_does_not_fit_ends_the_growth() -> None:
    """What was found before it counts."""

    class Full(ScriptedClock):
        def times_s(self, call: Callable[[], object], *, calls: int, batches: int) -> list[float]:
            result: Any = call()
            if result.shape[0] > 256:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().times_s(call, calls=calls, batches=batches)

    rate = product_rate("float32", device="cpu", clock=Full([1e-3]))
    assert rate == 2 * 256**3 / 1e-3


def test_the_faster_of_copying_and_reading_counts() -> None:
    """What one moves in a second is below the ceiling."""
    assert move_rate(1 << 20, device="cpu", clock=ScriptedClock([1e-3, 2e-3])) == (1 << 20) / 1e-3
    assert move_rate(1 << 20, device="cpu", clock=ScriptedClock([2e-3, 1e-3])) == (1 << 20) / 1e-3


def test_as_many_bytes_are_moved_as_are_counted() -> None:
    """A copy reads one half and writes the other; a sum reads all."""
    clock = ScriptedClock([1e-3, 1e-3])
    move_rate(1 << 20, device="cpu", clock=clock)
    copied, total = clock.results
    assert 2 * copied.nbytes == 1 << 20
    assert 4 * float(total) == 1 << 20


def test_random_numbers_and_grad_mode_are_left_alone() -> None:
    """A ceiling is measured in the midst of a user's test."""
    before = torch.random.get_rng_state()
    product_rate("float32", device="cpu", clock=ScriptedClock([0.03]))
    move_rate(1 << 20, device="cpu", clock=ScriptedClock([1e-3, 1e-3]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_a_real_machine_has_plausible_ceilings() -> None:
    """Somewhere between a watch and a data centre, and moving needs no less time than it takes."""
    clock = WallClock()
    assert 1e8 < product_rate("float32", device="cpu", clock=clock) < 1e15
    assert 1e8 < move_rate(1 << 22, device="cpu", clock=clock) < 1e13


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_gpu_is_faster_in_half_precision() -> None:
    """On every one with tensor cores; and its memory moves at more than a CPU's."""
    from pytest_nnscale.timing.devices import clock_for

    clock = clock_for("cuda")
    full, half = (product_rate(t, device="cuda", clock=clock) for t in ("float32", "bfloat16"))
    assert half > full
    assert move_rate(1 << 28, device="cuda", clock=clock) > 5e10
