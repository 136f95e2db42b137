"""What cannot be measured is never a pass."""

from __future__ import annotations

from typing import Any

import pytest

NO_COUNTER = """
    import pytest
    from pytest_nnscale.errors import NothingThere
    from pytest_nnscale.meters import energy

    @pytest.fixture(autouse=True)
    def no_counter(monkeypatch):
        def find(device, wanted):
            raise NothingThere("no counter in this test", remedy="buy one")
        monkeypatch.setattr(energy, "find_counters", find)
    """


def test_an_operator_without_a_formula_is_red_with_its_fix(suite: Any) -> None:
    """It names the operator, the module and the line to write."""
    result = suite("""
    class Exponential(nn.Module):
        def forward(self, x):
            return x + torch.linalg.matrix_exp(x[:4]).sum()
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.exp = Exponential()
        def forward(self, x):
            return self.head(self.exp(x))
    @pytest.mark.max_flops("1 GFLOP")
    def test_it(nnscale):
        nnscale(Tagger(), torch.zeros(5, 4))
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "in exp (Exponential), called once" in text
    assert "no formula for aten::" in text
    assert "@pytest_nnscale.flop_formula(torch.ops.aten." in text
    assert "counted so far 80 FLOP" in text
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 1 unmeasured" in result.outlines


def test_a_lower_bound_over_the_limit_is_over_whatever_is_unknown(suite: Any) -> None:
    """What was counted is enough to know."""
    result = suite("""
    class Exponential(nn.Module):
        def forward(self, x):
            return x + torch.linalg.matrix_exp(x[:4]).sum()
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.exp, self.head = Exponential(), nn.Linear(4, 2)
        def forward(self, x):
            return self.head(self.exp(x))
    @pytest.mark.max_flops(79)
    def test_it(nnscale):
        nnscale(Tagger(), torch.zeros(5, 4))
    """)
    assert "needs at least 80 FLOP, budget 79 FLOP" in result.stdout.str()
    assert "1 budget: 0 within, 1 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_a_registered_formula_makes_it_measured(suite: Any) -> None:
    """The fix that the message names works."""
    result = suite("""
    import pytest_nnscale
    @torch.library.custom_op("nnscale_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x
    @pytest.mark.max_flops(3)
    def test_unknown(nnscale):
        nnscale(twice, torch.ones(3))
    def test_register():
        pytest_nnscale.flop_formula(torch.ops.nnscale_tests.twice)(lambda x, **_: x[0])
    @pytest.mark.max_flops(3)
    def test_known(nnscale):
        nnscale(twice, torch.ones(3))
    """)
    result.assert_outcomes(passed=2, failed=1)
    assert "no formula for nnscale_tests::twice outside any module" in result.stdout.str()


def test_energy_without_a_counter_skips_with_reason_and_remedy(suite: Any) -> None:
    """There was nothing else to judge, and a skip is no pass."""
    source = "@pytest.mark.max_energy_j(1)\ndef test_it(nnscale):\n    nnscale(nn.Linear(2, 2), torch.ones(1, 2))\n"
    result = suite(source, "-rs", conftest=NO_COUNTER)
    result.assert_outcomes(skipped=1)
    text = result.stdout.str()
    assert "could not be measured, budget 1.00 J: no counter in this test; buy one" in text
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 1 unmeasured" in result.outlines


def test_energy_without_a_counter_beside_other_budgets_is_counted(suite: Any) -> None:
    """The others are judged, and the closing line tells."""
    result = suite(
        """
    @pytest.mark.max_energy_j(1)
    @pytest.mark.max_flops(8)
    def test_within(nnscale):
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    @pytest.mark.max_energy_j(1)
    @pytest.mark.max_flops(7)
    def test_over(nnscale):
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    """,
        conftest=NO_COUNTER,
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "4 budgets: 1 within, 1 over, 0 inconclusive, 2 unmeasured" in result.outlines


@pytest.mark.parametrize(
    ("args", "ini"),
    [(("--nnscale-require=energy",), ""), ((), "nnscale_require = energy")],
    ids=["flag", "ini"],
)
def test_required_energy_is_red(suite: Any, args: Any, ini: str) -> None:
    """Where the machine must have a counter, its absence fails."""
    result = suite(
        """
    @pytest.mark.max_energy_j(1)
    @pytest.mark.max_flops(8)
    def test_it(nnscale):
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    """,
        *args,
        ini=ini,
        conftest=NO_COUNTER,
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "no counter in this test" in result.stdout.str()


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="for machines without CUDA")
def test_a_budget_for_a_device_that_is_not_there(suite: Any) -> None:
    """Alone it skips, required it is red, beside one that applies it is only said."""
    alone = """
    @pytest.mark.max_flops(8, device="cuda")
    def test_it(nnscale):
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    """
    suite(alone).assert_outcomes(skipped=1)
    required = suite(alone, "--nnscale-require=cuda")
    required.assert_outcomes(failed=1)
    assert "this machine has no cuda device" in required.stdout.str()
    both = """
    @pytest.mark.max_flops(8, device="cuda")
    @pytest.mark.max_flops(8, device="cpu")
    def test_it(nnscale):
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    """
    beside = suite(both)
    beside.assert_outcomes(passed=1)
    assert "2 budgets: 1 within, 0 over, 0 inconclusive, 1 unmeasured" in beside.outlines
    suite(both, "--nnscale-require=cuda").assert_outcomes(failed=1)


def test_a_budget_for_a_device_that_is_there_steps_aside_for_the_one_that_applies(
    suite: Any,
) -> None:
    """The same test measures it when it runs on that device."""
    result = suite("""
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    @pytest.mark.max_flops(8, device="cpu")
    @pytest.mark.max_flops(16, device="meta")
    def test_it(nnscale, device):
        nnscale(nn.Linear(2, 2, device=device), torch.ones(1, 2, device=device))
    """)
    result.assert_outcomes(passed=2)
    assert "2 budgets: 2 within, 0 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_a_model_elsewhere_than_its_budget_is_red(suite: Any) -> None:
    """A budget for the CPU says nothing of a model on meta, and must not pass."""
    result = suite("""
    @pytest.mark.max_flops(8, device="meta")
    def test_it(nnscale):
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "the model ran on cpu, this budget is for meta" in result.stdout.str()


@pytest.mark.parametrize("warnings", [(), ("-Werror",)], ids=["", "warnings are errors"])
@pytest.mark.parametrize("policy", ["warn", "fail"])
def test_an_inconclusive_budget_warns_or_fails_as_asked(
    suite: Any, policy: str, warnings: Any
) -> None:
    """It passes with a warning by default, and is counted as what it is."""
    result = suite(
        """
    from pytest_nnscale import meters, Measurement, Metric
    from pytest_nnscale.meters import latency
    @pytest.mark.max_latency_ms(10)
    def test_it(nnscale, monkeypatch):
        found = Measurement(Metric.LATENCY, 0.010, 0.009, 0.011)
        monkeypatch.setattr(latency, "measure_latency", lambda call, **_: found)
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    """,
        f"--nnscale-inconclusive={policy}",
        *warnings,
    )
    text = result.stdout.str()
    assert result.ret == (1 if policy == "fail" else 0)
    if policy == "fail" or not warnings:
        assert "takes between 9.00 ms and 11.0 ms, budget 10.0 ms: inconclusive" in text
    else:
        assert "inconclusive" in text
    assert "1 budget: 0 within, 0 over, 1 inconclusive, 0 unmeasured" in result.outlines


@pytest.mark.parametrize("mark", ["max_flops(8)", "max_kernels(8)", "max_latency_ms(1000)"])
@pytest.mark.parametrize(
    "model",
    ["lambda: 3", "generates", "awaits", "lambda: subprocess.run([sys.executable, '-c', ''])"],
)
def test_a_call_that_runs_no_operator_is_red(suite: Any, mark: str, model: str) -> None:
    """What a generator yields, a coroutine awaits or another process computes was not measured."""
    result = suite(f"""
    import subprocess, sys
    def generates():
        yield torch.ones(2, 2) @ torch.ones(2, 2)
    async def awaits():
        return torch.ones(2, 2) @ torch.ones(2, 2)

    @pytest.mark.filterwarnings("ignore:coroutine")
    @pytest.mark.{mark}
    def test_it(nnscale):
        nnscale({model})
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "could not be measured" in result.stdout.str()


def test_a_body_without_a_contraction_is_red_by_its_own_mark_on_flops(suite: Any) -> None:
    """The model ran in a fixture: a sum over its output is not what was meant."""
    source = """
    @pytest.fixture
    def output():
        return nn.Linear(2, 2)(torch.ones(1, 2))

    MARK
    class TestIt:
        OWN
        def test_sum(self, output):
            output.sum()

        def test_model(self):
            nn.Linear(2, 2)(torch.ones(1, 2))
    """
    mark = "@pytest.mark.max_flops(8)"
    own = suite(source.replace("MARK", "").replace("OWN", mark))
    own.assert_outcomes(failed=1, passed=1)
    assert "the test body did no contraction" in own.stdout.str()
    inherited = suite(source.replace("MARK", mark).replace("OWN", ""))
    inherited.assert_outcomes(passed=2)
    assert "1 budget: 1 within, 0 over, 0 inconclusive, 0 unmeasured" in inherited.outlines


def test_an_elementwise_model_handed_to_the_fixture_has_no_flops(suite: Any) -> None:
    """Zero is then what was counted, and within every budget."""
    suite("""
    @pytest.mark.max_flops(1)
    def test_it(nnscale):
        nnscale(nn.ReLU(), torch.ones(2))
    """).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("imports", "body"),
    [
        ("from hypothesis import given, strategies as st", "@given(st.integers(1, 3))"),
        ("", "def test_it(subtests):\n    with subtests.test():\n        model(x)"),
        ("", "def test_it(tmp_path):\n    (tmp_path / 'd').mkdir()\n    model(x)"),
    ],
    ids=["hypothesis", "subtests", "files"],
)
@pytest.mark.parametrize("where", ["own", "inherited"])
def test_a_body_that_cannot_be_repeated_is_red(
    suite: Any, imports: str, body: str, where: str
) -> None:
    """Also where the budget was inherited: the test has a model in sight."""
    mark = "pytest.mark.max_flops(8)"
    if body.startswith("@given"):
        body += "\ndef test_it(n):\n    model(torch.ones(n, 2))"
    head = f"pytestmark = {mark}\n" if where == "inherited" else f"@{mark}\n"
    result = suite(f"{imports}\nmodel = nn.Linear(2, 2)\nx = torch.ones(1, 2)\n{head}{body}\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "use the fixture: def test_...(nnscale)" in result.stdout.str()


def test_an_inherited_budget_sees_through_a_fixture_that_was_not_called(suite: Any) -> None:
    """The nnscale fixture in sight, as an autouse one is, does not turn the budget off."""
    result = suite("""
    pytestmark = pytest.mark.max_flops(8)
    model = nn.Linear(2, 2)

    @pytest.fixture(autouse=True)
    def everywhere(nnscale): pass

    def test_within():
        model(torch.ones(1, 2))

    def test_over():
        model(torch.ones(2, 2))

    def test_swallows(nnscale):
        with pytest.raises(RuntimeError):
            nnscale(model, torch.ones(1, 3))
    """)
    result.assert_outcomes(passed=1, failed=2)
    assert "max_flops: Linear needs 16 FLOP, budget 8 FLOP" in result.stdout.str()
    assert "the model raised in every call, and the test went on" in result.stdout.str()


def test_a_model_on_meta_has_no_latency(suite: Any) -> None:
    """What would be timed is Python."""
    result = suite("""
    @pytest.mark.max_latency_ms(1000)
    def test_it(nnscale):
        nnscale(nn.Linear(2, 2, device="meta"), torch.ones(1, 2, device="meta"))
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "on the meta device, where nothing is computed" in result.stdout.str()


@pytest.mark.parametrize("spelling", ["flag", "ini", "overload"])
def test_an_operator_can_be_declared_free(suite: Any, spelling: str) -> None:
    """For a session: the project's word that it does no contraction work."""
    source = """
    @torch.library.custom_op("nnscale_declared::shuffle", mutates_args=())
    def shuffle(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @pytest.mark.max_flops(8)
    def test_it(nnscale):
        nnscale(lambda x: nn.Linear(2, 2)(torch.ops.nnscale_declared.shuffle(x)), torch.ones(1, 2))
    """
    unknown = suite(source)
    assert unknown.ret == pytest.ExitCode.TESTS_FAILED
    assert "no formula for nnscale_declared::shuffle" in unknown.stdout.str()
    assert "nnscale_free_operators = nnscale_declared::shuffle" in unknown.stdout.str()
    name = "nnscale_declared::shuffle" + (".default" if spelling == "overload" else "")
    free = (
        suite(source, ini=f"nnscale_free_operators = {name}")
        if spelling == "ini"
        else suite(source, f"--nnscale-free-operators={name}")
    )
    free.assert_outcomes(passed=1)
    suite(source, ini="").assert_outcomes(failed=1)
