"""The clock of CUDA events: what it sees, what it does not wait for, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from itertools import cycle

import pytest
import torch

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.clock import Batch, WallClock
from pytest_nnscale.timing.cuda import CudaClock
from pytest_nnscale.timing.devices import clock_for
from pytest_nnscale.timing.events import FakeDriver, TorchDriver

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def lasting(driver: FakeDriver, durations_s: Iterable[float]) -> Callable[[], None]:
    """Return a call that asks the device for the next of some durations, over and over."""
    script = cycle(durations_s)
    return lambda: driver.launch(next(script))


def test_the_time_is_the_devices() -> None:
    """A kernel of a millisecond that is launched in four microseconds takes a millisecond."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    times_s = clock.times_s(lasting(driver, [1e-3]), calls=10, batches=5)
    assert times_s == pytest.approx([1e-3] * 5)


def test_a_launch_is_not_waited_for() -> None:
    """A hundred batches are all asked for before the host waits."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    asked_by_s: list[float] = []

    def call() -> None:
        driver.launch(1e-3)
        asked_by_s.append(driver.host_s)

    clock.times_s(call, calls=1, batches=100)
    assert asked_by_s[-1] < 1e-3 < driver.host_s
    assert driver.waits == 3  # for what there was before, for the last event, for everything


def test_where_the_host_is_slower_its_time_counts() -> None:
    """Ten launches of twenty microseconds, of kernels that take one: nobody gets it faster."""
    driver = FakeDriver(launch_s=20e-6)
    clock = CudaClock(driver=driver)
    times_s = clock.times_s(lasting(driver, [1e-6]), calls=10, batches=20)
    assert times_s == pytest.approx([20e-6] * 20, rel=0.1)


def test_the_first_batch_is_like_the_others() -> None:
    """Short calls: none of them, and none of their launches, finds the device idle."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    times_s = clock.times_s(lasting(driver, [20e-6]), calls=5, batches=1)
    assert times_s == pytest.approx([20e-6], rel=1e-3)


def test_batches_are_kept_apart() -> None:
    """Each has its own events, and what one takes is in no other."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    call = lasting(driver, [3e-3, 1e-3, 1e-3, 3e-3])  # the first is made before the first batch
    assert clock.times_s(call, calls=2, batches=4) == pytest.approx([1e-3, 3e-3, 1e-3, 3e-3])


def test_what_was_asked_for_before_is_in_no_batch() -> None:
    """The queue is empty when the first batch begins."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    driver.launch(5.0)
    assert clock.times_s(lasting(driver, [1e-3]), calls=1, batches=2) == pytest.approx(
        [1e-3] * 2, rel=0.01
    )


def test_many_batches_are_read_in_turns() -> None:
    """Each has its time, in order, and the events are used again."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    durations_s = [1e-4, 2e-4, 3e-4]
    times_s = clock.times_s(lasting(driver, durations_s), calls=1, batches=3000)
    asked_for = itertools.islice(cycle(durations_s), 3003)
    timed = [each for n, each in enumerate(asked_for) if n % 1001]  # one call before each thousand
    assert times_s == pytest.approx(timed, rel=0.01)
    assert driver.event() <= 2000


def test_reading_the_clock_waits_for_the_device() -> None:
    """For warm-up and estimates: work already asked for counts as done."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    start_s = clock.now_s()
    driver.launch(0.5)
    assert clock.now_s() - start_s == pytest.approx(0.5, rel=0.01)


def failing_at(driver: FakeDriver, number: int, error: BaseException) -> Callable[[], None]:
    made: list[None] = []

    def call() -> None:
        driver.launch(1e-3)
        made.append(None)
        if len(made) == number:
            raise error

    return call


@pytest.mark.parametrize("error", [ValueError("the model's own"), KeyboardInterrupt()])
def test_an_error_of_a_call_passes_and_leaves_no_event_unread(error: BaseException) -> None:
    """Nothing is in the queue behind it, and the clock can be used again."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    with pytest.raises(type(error)) as caught:
        clock.times_s(failing_at(driver, 7, error), calls=2, batches=10)
    assert caught.value is error
    assert driver.pending == 0
    assert driver.host_s >= driver.device_s
    assert clock.times_s(lasting(driver, [2e-3]), calls=1, batches=3) == pytest.approx(
        [2e-3] * 3, rel=0.01
    )


def test_the_error_that_broke_the_device_is_the_one_that_is_told() -> None:
    """After an illegal access every word to the driver is an error, which says nothing new."""

    class Broken(FakeDriver):
        broken = False

        def synchronize(self) -> None:
            if self.broken:
                raise RuntimeError("CUDA error")
            super().synchronize()

    driver = Broken()

    def call() -> None:
        driver.broken = True
        raise IndexError("out of range")

    with pytest.raises(IndexError, match="out of range"):
        CudaClock(driver=driver).times_s(call, calls=1, batches=1)


def test_work_in_a_stream_that_no_event_sees_is_no_time_of_the_call() -> None:
    """Its milliseconds would be missing, and the budget kept."""
    driver = FakeDriver()

    def call() -> None:
        driver.launch(1e-3)
        driver.launch(2e-3, side=True)

    with pytest.raises(CannotMeasure) as caught:
        CudaClock(driver=driver).times_s(call, calls=1, batches=10)
    assert caught.value.reason.startswith("a GPU works on after the call's own stream is done")
    assert "wait_stream" in caught.value.remedy


def test_a_last_stage_on_another_gpu_is_seen_however_long_the_series() -> None:
    """Beside all calls but the last the next one's first stage runs: one of them tells of all."""
    driver = FakeDriver()

    def call() -> None:
        driver.launch(1e-3)
        driver.side_s = max(driver.side_s, driver.device_s) + 0.9e-3  # what comes after that

    with pytest.raises(CannotMeasure, match="a GPU works on"):
        CudaClock(driver=driver).times_s(call, calls=1, batches=400)


def test_a_single_call_is_asked_for_while_the_device_has_work() -> None:
    """Or the launches of its first kernels would count, in a turn of one call each."""
    driver = FakeDriver(launch_s=50e-6)
    clock = CudaClock(driver=driver)

    def call() -> None:
        for _ in range(3):
            driver.launch(100e-6)

    assert clock.times_s(call, calls=1, batches=1) == pytest.approx([300e-6], rel=1e-3)


def test_turns_are_asked_for_in_one_queue() -> None:
    """Each call follows the other one on a device that never waits for the host."""
    driver = FakeDriver()
    clock = CudaClock(driver=driver)
    new, old = lasting(driver, [20e-6]), lasting(driver, [10e-6])
    times_s = clock.turns_s([Batch(new, 1), Batch(old, 2), Batch(old, 2), Batch(new, 1)])
    assert times_s == pytest.approx([20e-6, 10e-6, 10e-6, 20e-6], rel=1e-3)
    assert driver.waits == 3


def test_turns_with_a_cold_cache_are_kept_apart() -> None:
    """Each call is timed by itself, and told with those of its batch."""
    driver = FakeDriver()
    clock = CudaClock(flush=True, driver=driver)
    new, old = lasting(driver, [2e-3]), lasting(driver, [1e-3, 3e-3, 5e-3])
    times_s = clock.turns_s([Batch(new, 1), Batch(old, 3), Batch(new, 2)])
    assert times_s == pytest.approx([2e-3, 3e-3, 2e-3], rel=1e-3)


def test_a_side_stream_that_is_done_first_is_let_be() -> None:
    """It runs beside the call, and takes it no time."""
    driver = FakeDriver()

    def call() -> None:
        driver.launch(2e-3)
        driver.launch(1e-3, side=True)

    assert CudaClock(driver=driver).times_s(call, calls=1, batches=9) == pytest.approx(
        [2e-3] * 9, rel=0.01
    )


def test_a_host_that_is_held_up_once_is_no_work_of_the_device() -> None:
    """The batches are timed again, and then they are what they are."""

    class HeldUp(FakeDriver):
        times = 2

        def wait(self, event: int) -> None:
            super().wait(event)
            self.times -= 1
            if self.times >= 0:
                self.side_s = self.host_s + 0.05  # as if the host woke that much later

    driver = HeldUp()
    times_s = CudaClock(driver=driver).times_s(lasting(driver, [1e-3]), calls=1, batches=4)
    assert times_s == pytest.approx([1e-3] * 4, rel=0.01)


def test_a_flush_empties_the_cache_before_each_call_and_is_in_no_time() -> None:
    """Also inside a batch: or only its first call would find the cache cold."""
    driver = FakeDriver(l2_bytes=50 << 20)
    clock = CudaClock(flush=True, driver=driver)
    driver.asked.clear()
    clock.times_s(lasting(driver, [1e-3]), calls=2, batches=3)
    timed = ["wipe", "event", "work", "event"]
    assert driver.asked == timed * 6
    assert max(driver.wiped_bytes) >= 50 << 20
    times_s = clock.times_s(lasting(driver, [1e-3, 3e-3]), calls=2, batches=3)
    assert times_s == pytest.approx([2e-3] * 3)


def test_without_a_flush_nothing_is_wiped() -> None:
    """It costs time, and is not asked for."""
    driver = FakeDriver()
    CudaClock(driver=driver).times_s(lasting(driver, [1e-3]), calls=2, batches=3)
    assert "wipe" not in driver.asked


def test_a_cache_of_unknown_size_cannot_be_flushed() -> None:
    """A flush that does nothing would be worse than none."""
    with pytest.raises(CannotMeasure, match="how large the L2 cache of cuda:0 is"):
        CudaClock("cuda:0", flush=True, driver=FakeDriver(l2_bytes=0))


def test_the_fake_refuses_what_torch_refuses() -> None:
    """The time between events that were not waited for: else the tests above show nothing."""
    driver = FakeDriver()
    start, end = driver.event(), driver.event()
    driver.record(start)
    driver.launch(1.0)
    driver.record(end)
    with pytest.raises(RuntimeError, match="not ready"):
        driver.elapsed_s(start, end)
    driver.synchronize()
    assert driver.elapsed_s(start, end) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu:0"])
def test_other_devices_have_the_wall_clock(device: str) -> None:
    """Only CUDA has events of ours, and a flush says nothing elsewhere."""
    assert type(clock_for(device, flush=True)) is WallClock


@pytest.mark.gpu
@NEEDS_GPU
def test_the_real_events_agree_with_the_wall_clock() -> None:
    """Over a second of matrix products, both tell the same within a twentieth."""
    a = torch.randn(4096, 4096, device="cuda")
    for _ in range(10):
        a @ a
    clock = clock_for("cuda")
    assert type(clock) is CudaClock
    start_s = clock.now_s()
    times_s = clock.times_s(lambda: a @ a, calls=5, batches=20)
    elapsed_s = clock.now_s() - start_s
    assert 5 * sum(times_s) == pytest.approx(elapsed_s, rel=0.05)


@pytest.mark.gpu
@NEEDS_GPU
def test_a_cold_cache_makes_a_small_product_slower() -> None:
    """The flush empties the L2 cache for real: 16 MB of weights come from memory again."""
    weights = torch.randn(2048, 2048, device="cuda")
    x = torch.randn(2048, device="cuda")
    warm, cold = clock_for("cuda"), clock_for("cuda", flush=True)
    medians = []
    for clock in (warm, cold):
        clock.times_s(lambda: weights @ x, calls=10, batches=10)
        medians.append(sorted(clock.times_s(lambda: weights @ x, calls=10, batches=50))[25])
    assert medians[1] > medians[0]


@pytest.mark.gpu
@NEEDS_GPU
def test_a_real_side_stream_is_seen() -> None:
    """Work that the call does not wait for is refused, and let through once it does."""
    side = torch.cuda.Stream()
    a = torch.randn(4096, 4096, device="cuda")

    def call(joined: bool) -> None:
        with torch.cuda.stream(side):
            a @ a
        if joined:
            torch.cuda.current_stream().wait_stream(side)

    clock = clock_for("cuda")
    with pytest.raises(CannotMeasure, match="a GPU works on"):
        clock.times_s(lambda: call(False), calls=5, batches=10)
    assert min(clock.times_s(lambda: call(True), calls=5, batches=10)) > 1e-4


@pytest.mark.gpu
@NEEDS_GPU
def test_the_real_driver_knows_its_cache() -> None:
    """Else a flush would be refused on it."""
    assert TorchDriver("cuda").l2_bytes > 1 << 20
