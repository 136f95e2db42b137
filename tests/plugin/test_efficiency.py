"""min_efficiency: a least that has to be reached, in a session of pytest."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

# Ceilings and times that tests set, in every process: real ones would be this machine's, now.
CONFTEST = """
    from pytest_nnscale.ceiling import roofline
    from pytest_nnscale.measurement import Measurement, Metric
    from pytest_nnscale.meters import latency

    def product_rate(*_, **__):
        with open({log!r}, "a") as log:
            log.write("x")
        return {flops_per_s}

    def measure_latency(call, **_):
        call()
        return Measurement(Metric.LATENCY, 1e-3, 0.9e-3, 1.2e-3)

    roofline.product_rate = product_rate
    roofline.move_rate = lambda nbytes, **_: 100e9
    latency.measure_latency = measure_latency
    """
# 8.39 MFLOP, in the millisecond that every call takes here.
MODEL = """
LAYER, X = nn.Linear(256, 256), torch.rand(64, 256)
"""
WORKERS = pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one process", "two workers"])


@pytest.fixture
def run(suite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return `run(source, *args, flops_per_s=)`: a session on a machine of that ceiling.

    `run.measured()` says how often it was measured; it is kept from one session to the next.
    """
    from pytest_nnscale.ceiling import roofline
    from pytest_nnscale.meters import latency

    # What the conftest of an inner run sets in this process is put back.
    monkeypatch.setattr(roofline, "product_rate", roofline.product_rate)
    monkeypatch.setattr(roofline, "move_rate", roofline.move_rate)
    monkeypatch.setattr(latency, "measure_latency", latency.measure_latency)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = tmp_path / "measured"

    def run(source: str, *args: str, flops_per_s: float = 10e9, **more: Any) -> pytest.RunResult:
        conftest = CONFTEST.format(flops_per_s=flops_per_s, log=str(log))
        result: pytest.RunResult = suite(
            MODEL + textwrap.dedent(source), *args, conftest=conftest, **more
        )
        return result

    run.measured = lambda: len(log.read_text()) if log.exists() else 0  # type: ignore[attr-defined]
    return run


TEST = """
    @pytest.mark.min_efficiency({limit})
    def test_it(nnscale):
        nnscale(LAYER, X)
    """


@WORKERS
def test_what_is_reached_passes(run: Any, workers: tuple[str, ...]) -> None:
    """Above the least, in one process and in two."""
    result = run(TEST.format(limit=0.4), *workers)
    assert result.ret == 0
    assert "83.9 / 40.0 %  min_efficiency  test_it.py::test_it" in result.stdout.str()
    assert "1 budget: 1 within, 0 over" in result.stdout.str()


@WORKERS
def test_what_is_not_reached_fails_with_both_numbers(run: Any, workers: tuple[str, ...]) -> None:
    """The share, the least, both times and what to do."""
    result = run(TEST.format(limit="'40 %'"), *workers, flops_per_s=100e9)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for sentence in (
        "min_efficiency: Linear reaches 8.39 % (between 6.99 % and 9.32 %), budget at least 40.0 %",
        "  note: it takes 1.00 ms, at best 83.9 us for 8.39 MFLOP at 100 GFLOP/s "
        "(3.94 us for 394 kB at 100 GB/s)",
        "  find what holds it up, such as many small operators, or lower the budget",
        "1 budget: 0 within, 1 over, 0 inconclusive, 0 unmeasured",
    ):
        assert sentence in result.outlines


def test_a_limit_inside_the_interval_passes_with_a_warning(run: Any) -> None:
    """From 69.9 % to 93.2 % it may be either; `fail` makes it red."""
    source = TEST.format(limit=0.8)
    told = "Linear reaches between 69.9 % and 93.2 %, budget at least 80.0 %: inconclusive"
    result = run(source)
    assert result.ret == 0
    assert told in result.stdout.str()
    result = run(source, "--nnscale-inconclusive=fail")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert told in result.stdout.str()


@pytest.mark.parametrize(
    ("limit", "workers", "code"),
    [("0.4", (), 0), ("40%", (), 0), ("95 %", (), 1), ("40 %", ("-n2",), 0)],
)
def test_a_rule_in_the_ini_states_it_as_well(
    run: Any, limit: str, workers: tuple[str, ...], code: int
) -> None:
    """For tests by their node id, in per cent or as a share."""
    source = "def test_it(nnscale):\n    nnscale(LAYER, X)\n"
    result = run(source, *workers, ini=f"nnscale_budgets = *::test_it: min_efficiency={limit}")
    assert result.ret == code
    origin = "the budget comes from nnscale_budgets '*::test_it'"
    assert (origin in result.stdout.str()) is bool(code)


def test_the_body_of_a_test_is_judged_without_the_fixture(run: Any) -> None:
    """As by every other mark."""
    source = """
        @pytest.mark.min_efficiency(0.4)
        def test_it():
            LAYER(X)
        """
    result = run(source)
    assert result.ret == 0
    assert "83.9 / 40.0 %" in result.stdout.str()


def test_a_ceiling_is_kept_for_the_next_session(run: Any) -> None:
    """It costs a second, once."""
    for _ in range(2):
        assert run(TEST.format(limit=0.4)).ret == 0
    assert run.measured() == 1


def test_a_ceiling_that_is_beaten_is_measured_again(run: Any) -> None:
    """It was too low then, and the efficiency too high."""
    assert run(TEST.format(limit=0.4), flops_per_s=1e9).ret == 0
    assert run.measured() == 2
    result = run(TEST.format(limit=0.4), flops_per_s=100e9)
    assert run.measured() == 3
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "Linear reaches 8.39 %" in result.stdout.str()


def test_it_stands_beside_a_latency_on_one_test(run: Any) -> None:
    """Two budgets, two verdicts."""
    result = run("    @pytest.mark.max_latency_ms(2)" + TEST.format(limit=0.4))
    assert result.ret == 0
    assert "2 budgets: 2 within" in result.stdout.str()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            "nnscale(lambda x: x @ x, torch.ones(8, 8, dtype=torch.int64))",
            "there is no ceiling for products of int64",
        ),
        (
            "nnscale(lambda: torch.ones(8).add_(1).shape)",
            "the call does no contraction, and moves no bytes that could be told",
        ),
        (
            "nnscale(lambda x: torch.ops.plugin_efficiency.twist(LAYER(x)), X)",
            "no formula for plugin_efficiency::twist",
        ),
    ],
)
def test_what_has_no_ceiling_is_red(run: Any, call: str, sentence: str) -> None:
    """Unknown work is no work that was done fast."""
    with torch.library._scoped_library("plugin_efficiency", "FRAGMENT") as lib:
        lib.define("twist(Tensor x) -> Tensor")
        lib.impl("twist", lambda x: x.clone(), "CPU")
        mark = "@pytest.mark.min_efficiency(0.4)"
        result = run(f"{mark}\ndef test_it(nnscale):\n    {call}\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert sentence in result.stdout.str()
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 1 unmeasured" in result.stdout.str()


def test_the_phase_of_training_counts_the_whole_step(run: Any) -> None:
    """Forward and backward, against the same ceiling."""
    result = run("""
        @pytest.mark.min_efficiency(0.9, phase="training")
        def test_it(nnscale):
            nnscale(LAYER, X)
        """, flops_per_s=100e9)  # fmt: skip
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "at best 168 us for 16.8 MFLOP at 100 GFLOP/s" in result.stdout.str()
