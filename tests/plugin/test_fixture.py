"""The nnscale fixture: one real call, judged by itself."""

from __future__ import annotations

from typing import Any

import pytest

# Linear(8, 16), ReLU, Linear(16, 4) on one row: the closed form of every exact metric.
WEIGHTS = 8 * 16 + 16 + 16 * 4 + 4
FLOPS = 2 * (8 * 16 + 16 * 4)
MODEL = (
    "\nmodel = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))\nx = torch.ones(1, 8)\n"
)

EXACT = {
    "max_params": WEIGHTS,
    "max_flops": FLOPS,
    "max_macs": FLOPS // 2,
    "max_size_mb": f"{4 * WEIGHTS} B",
    # Weights, input, and the outputs of the first layer and of its activation, all alive at once.
    "max_memory_mb": f"{4 * (WEIGHTS + 8 + 16 + 16)} B",
    "max_kernels": 3,
}


def _one_less(limit: int | str) -> int | str:
    if isinstance(limit, int):
        return limit - 1
    return f"{int(limit.split()[0]) - 1} B"


@pytest.mark.parametrize("mark", EXACT)
def test_exactly_at_the_limit_passes_and_one_below_fails(mark: str, suite: Any) -> None:
    """Every exact metric equals its closed form."""
    result = suite(
        MODEL
        + f"""
with torch.no_grad():
    pass

@pytest.mark.{mark}({EXACT[mark]!r})
def test_at(nnscale):
    with torch.no_grad():
        assert nnscale(model, x).shape == (1, 4)

@pytest.mark.{mark}({_one_less(EXACT[mark])!r})
def test_below(nnscale):
    with torch.no_grad():
        nnscale(model, x)
"""
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    assert "2 budgets: 1 within, 1 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_the_output_is_the_models_own(suite: Any) -> None:
    """Existing asserts keep working, and the model is called exactly once."""
    result = suite("""
    calls = []
    def model(x):
        calls.append(x)
        return x @ x
    @pytest.mark.max_flops(16)
    def test_it(nnscale):
        x = torch.eye(2)
        assert torch.equal(nnscale(model, x), x)
        assert len(calls) == 1
    """)
    assert result.ret == 0
    result.assert_outcomes(passed=1)


def test_a_failure_names_numbers_overrun_and_modules(suite: Any) -> None:
    """Two numbers, the overrun in absolute terms and per cent, the modules that hold it."""
    result = suite(
        MODEL
        + """
@pytest.mark.max_flops(256)
def test_it(nnscale):
    nnscale(model, x)
"""
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "max_flops: Sequential needs 384 FLOP, budget 256 FLOP (+128 FLOP, +50.0 %)" in text
    assert "  0  256 FLOP   66.7 %  Linear" in text
    assert "  2  128 FLOP   33.3 %  Linear" in text


def test_each_call_is_judged_by_itself(suite: Any) -> None:
    """Two calls within the budget do not add up; the one that is over is named."""
    result = suite(
        MODEL
        + """
@pytest.mark.max_flops(400)
def test_it(nnscale):
    nnscale(model, x)
    nnscale(model, torch.ones(2, 8))
"""
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "Sequential (call 2) needs 768 FLOP" in result.stdout.str()
    assert "2 budgets: 1 within, 1 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_all_budgets_fail_in_one_message(suite: Any) -> None:
    """The first budget that is over does not hide the second."""
    result = suite(
        MODEL
        + """
@pytest.mark.max_params(1)
@pytest.mark.max_flops(1)
@pytest.mark.max_kernels(100)
def test_it(nnscale):
    nnscale(model, x)
"""
    )
    text = result.stdout.str()
    assert "max_params: Sequential needs 212, budget 1" in text
    assert "max_flops: Sequential needs 384 FLOP, budget 1 FLOP" in text
    assert "max_kernels:" not in text
    assert "3 budgets: 1 within, 2 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_the_tests_own_failure_is_not_replaced(suite: Any) -> None:
    """A test that fails by itself shows its own error, and its budget did not run."""
    result = suite(
        MODEL
        + """
@pytest.mark.max_flops(1)
def test_it(nnscale):
    assert nnscale(model, x).sum() is None, "mine"
"""
    )
    assert "AssertionError: mine" in result.stdout.str()
    assert "needs" not in result.stdout.str()
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 0 unmeasured, 1 not run" in result.outlines


def test_a_models_error_is_shown_in_the_model(suite: Any) -> None:
    """No frame of ours stands between the call in the test and the line that failed."""
    result = suite(
        """
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 4))

        @pytest.mark.max_flops(10)
        def test_it(nnscale):
            nnscale(model, torch.ones(1, 3))
        """
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["test_it.py:*", "*nn/modules/linear.py:*", "E *cannot be multi*"])
    result.stdout.no_fnmatch_line("*pytest_nnscale/*.py:*")


def test_a_model_without_inputs_has_params_and_size(suite: Any) -> None:
    """nnscale.profile(model) judges what needs no run; what does is red."""
    result = suite(
        MODEL
        + """
@pytest.mark.max_params(212)
@pytest.mark.max_size_mb(1)
def test_structure(nnscale):
    assert nnscale.profile(model).params == 212

@pytest.mark.max_flops("1 GFLOP")
def test_run(nnscale):
    nnscale.profile(model)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "no call of nnscale measured it" in result.stdout.str()


def test_training_adds_the_backward_pass(suite: Any) -> None:
    """Forward, both gradients of the second layer, and the weight gradient of the first."""
    training = FLOPS + 2 * (8 * 16) + 2 * 2 * (16 * 4)
    result = suite(
        MODEL
        + f"""
@pytest.mark.max_flops({training}, phase="training")
@pytest.mark.max_flops({FLOPS})
def test_at(nnscale):
    nnscale(model, x)
    assert all(p.grad is None for p in model.parameters())

@pytest.mark.max_flops({training - 1}, phase="training")
def test_below(nnscale):
    nnscale(model, x)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "max_flops (training): Sequential needs" in result.stdout.str()


def test_gradients_taken_in_a_call_are_part_of_it(suite: Any) -> None:
    """A function that differentiates costs its backward, too, and trains if asked as training."""
    result = suite("""
    model = nn.Linear(8, 8, bias=False)
    x = torch.ones(2, 8, requires_grad=True)
    forces = torch.func.grad(lambda x: model(x).sum())

    def train():
        model(x).sum().backward()

    @pytest.mark.max_flops(512)
    def test_at(nnscale):
        nnscale(forces, x)

    @pytest.mark.max_flops(511)
    def test_below(nnscale):
        nnscale(forces, x)

    @pytest.mark.max_flops(768, phase="training")
    @pytest.mark.max_flops(768)
    def test_step(nnscale):
        nnscale(train)

    @pytest.mark.max_flops(767, phase="training")
    def test_step_below(nnscale):
        nnscale(train)
    """)
    result.assert_outcomes(passed=2, failed=2)
    assert "needs 512 FLOP, budget 511 FLOP" in result.stdout.str()
    assert "needs 768 FLOP, budget 767 FLOP" in result.stdout.str()


def test_only_trainable_parameters_count_where_asked(suite: Any) -> None:
    """A frozen layer is no part of a trainable budget, and both budgets stand side by side."""
    result = suite(
        MODEL
        + """
model[0].requires_grad_(False)

@pytest.mark.max_params(68, trainable=True)
@pytest.mark.max_params(212)
def test_at(nnscale):
    nnscale(model, x)

@pytest.mark.max_params(67, trainable=True)
@pytest.mark.max_params(212)
def test_below(nnscale):
    nnscale(model, x)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "max_params (trainable): Sequential needs 68, budget 67" in result.stdout.str()


def test_two_quantiles_live_side_by_side(suite: Any) -> None:
    """p50 and p95 are different numbers, each judged."""
    result = suite(
        MODEL
        + """
@pytest.mark.max_latency_ms(10_000)
@pytest.mark.max_latency_ms(10_000, quantile=0.95)
def test_it(nnscale):
    nnscale(model, x)
""",
        "--nnscale-max-time=0.5",
    )
    assert result.ret == 0
    assert "max_latency_ms (p95)" in result.stdout.str()
    assert "2 budgets: 2 within, 0 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_a_slow_model_is_over_its_latency(suite: Any) -> None:
    """A call that sleeps 20 ms is surely over 1 ms."""
    result = suite(
        """
    import time
    class Slow(nn.Linear):
        def forward(self, x):
            time.sleep(0.02)
            return super().forward(x)
    @pytest.mark.max_latency_ms(1)
    def test_it(nnscale):
        nnscale(Slow(2, 2), torch.ones(1, 2))
    """,
        "--nnscale-max-time=1",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "max_latency_ms: Slow needs 2" in result.stdout.str()
    assert "1 budget: 0 within, 1 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_too_little_time_is_red_and_says_how_long_it_takes(suite: Any) -> None:
    """A quantile that cannot be reached is unmeasured, not passed."""
    result = suite(
        """
    import time
    @pytest.mark.max_latency_ms(1_000)
    def test_it(nnscale):
        nnscale(lambda x: time.sleep(0.02) or x + x, torch.ones(1))
    """,
        "--nnscale-max-time=0.05",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "p50 at 99 % needs 12 calls" in text
    assert "--nnscale-max-time=" in text
