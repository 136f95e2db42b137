"""Everything that can be written wrong: a clear sentence, exit code 4, never an INTERNALERROR."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

USAGE_ERROR = pytest.ExitCode.USAGE_ERROR

# A mark on an ordinary test, and the sentence about it.
MARKS = {
    "list": ("max_flops([1])", "max_flops: [1] is a list; give a number or a text such as"),
    "none": ("max_flops(None)", "max_flops: None is a NoneType; give a number"),
    "bytes": ("max_flops(b'8G')", "max_flops: b'8G' is a bytes; give a number"),
    "bool": ("max_flops(True)", "max_flops: True is a bool; give a number"),
    "tensor": ("max_flops(torch.ones(2))", "max_flops: tensor([1., 1.]) is a Tensor; give"),
    "lambda": ("max_flops.with_args(lambda: 1)", "is a function; give a number"),
    "lambda_called": ("max_flops(lambda: 1)", "is a function; give a number"),
    "class": ("max_flops.with_args(nn.Linear)", "is a type; give a number"),
    "bare": ("max_flops", "max_flops: no limit; give one limit: @pytest.mark.max_flops("),
    "nothing": ("max_flops()", "max_flops: no limit; give one limit"),
    "by_keyword": ("max_flops(limit=1)", "max_flops: no limit; give one limit"),
    "two": ("max_params(1, 2)", "max_params: 2 positional values; give one limit"),
    "negative": ("max_params(-1)", "max_params: -1 is not above zero"),
    "negative_text": ("max_params('-1M')", "max_params: '-1M' is not above zero"),
    "zero": ("max_params(0)", "max_params: 0 is not above zero"),
    "nan": ("max_params(float('nan'))", "max_params: nan is not a finite amount"),
    "inf": ("max_params(float('inf'))", "max_params: inf is not a finite amount"),
    "huge": ("max_params(10 ** 5000)", "max_params: the int is beyond 10^30"),
    "no_amount": ("max_params('many')", "max_params: 'many' is no amount"),
    "empty": ("max_params('')", "max_params: '' is no amount"),
    "unknown_unit": ("max_flops('8 GFLOPS')", "unknown unit 'GFLOPS'; FLOP take"),
    "other_dimension": ("max_flops('8 GB')", "unknown unit 'GB'; FLOP take"),
    "unit_on_count": ("max_params('8 MB')", "unknown unit 'MB'; count take"),
    "unit_on_time": ("max_latency_ms('8 J')", "unknown unit 'J'; seconds take"),
    "unit_on_energy": ("max_energy_j('8 ms')", "unknown unit 'ms'; joules take"),
    "efficiency_percent": ("min_efficiency(40)", "min_efficiency: 40 is above 1; a fraction is written like 0.4 or '40 %'"),
    "efficiency_above": ("min_efficiency('101 %')", "min_efficiency: '101 %' is above 1; a fraction"),
    "efficiency_zero": ("min_efficiency(0)", "min_efficiency: 0 is not above zero"),
    "efficiency_negative": ("min_efficiency(-0.4)", "min_efficiency: -0.4 is not above zero"),
    "efficiency_unit": ("min_efficiency('0.4 FLOP')", "unknown unit 'FLOP'; fraction takes %"),
    "efficiency_none": ("min_efficiency()", "min_efficiency: no limit; give one limit: @pytest.mark.min_efficiency(0.4)"),
    "efficiency_keyword": ("min_efficiency(0.4, quantile=0.9)", "unknown keyword 'quantile'; min_efficiency takes phase, device"),
    "unknown_keyword": ("max_flops(1, unit='G')", "unknown keyword 'unit'; max_flops takes phase, device"),
    "foreign_keyword": ("max_flops(1, quantile=0.9)", "unknown keyword 'quantile'; max_flops takes"),
    "phase": ("max_flops(1, phase='eval')", "phase='eval'; it is 'inference' or 'training'"),
    "phase_type": ("max_flops(1, phase=torch.ones(2))", "phase=tensor([1., 1.]); it is 'inference'"),
    "device": ("max_flops(1, device='gpu')", "device='gpu'; it is one of cpu, cuda"),
    "device_repr": ("max_flops(1, device=NoRepr())", "device=the NoRepr; it is one of cpu, cuda"),
    "device_index": ("max_flops(1, device='cuda:first')", "device='cuda:first'; it is one of"),
    "quantile": ("max_latency_ms(1, quantile=95)", "quantile=95; it lies between 0 and 1"),
    "quantile_type": ("max_latency_ms(1, quantile='p95')", "quantile='p95'; it is a number"),
    "trainable": ("max_params(1, trainable='yes')", "trainable='yes'; it is True or False"),
    "dict": ("max_params({'small': 1})", "a dict of limits, but the test is not parametrised"),
    "contradiction": (
        "max_flops(1)\n@pytest.mark.max_flops(2)",
        "max_flops: two limits for one number; keep one",
    ),
}  # fmt: skip

# Whole pieces of a test file, with the sentences about them.
PIECES = {
    "missing_id": (
        """
        @pytest.mark.max_params({"small": 1})
        @pytest.mark.parametrize("size", ["small", "large"])
        def test_missing_id(size): pass
        """,
        "test_missing_id[large]: max_params: no limit for id 'large' in the dict; it has 'small'",
    ),
    "bad_value_in_dict": (
        """
        @pytest.mark.max_params({"small": -1, "large": 1})
        @pytest.mark.parametrize("size", ["small", "large"])
        def test_bad_value(size): pass
        """,
        "test_bad_value[small]: max_params: -1 is not above zero",
    ),
    "on_a_parametrisation": (
        """
        @pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.max_params(0))])
        def test_parametrisation(size): pass
        """,
        "test_parametrisation[1]: max_params: 0 is not above zero",
    ),
    "on_every_parametrisation": (
        """
        @pytest.mark.max_params(-1)
        @pytest.mark.parametrize("size", range(50))
        def test_every(size): pass
        """,
        "test_every[0] (and 49 more): max_params: -1 is not above zero",
    ),
    "on_a_class": (
        """
        @pytest.mark.max_macs("4 GB")
        class TestModels:
            def test_first(self): pass
            def test_second(self): pass
        """,
        "TestModels::test_first (from test_it.py::TestModels) (and 1 more): max_macs: '4 GB': unknown unit",
    ),
    "on_a_unittest_case": (
        """
        import unittest

        class CaseTest(unittest.TestCase):
            @pytest.mark.max_macs(-4)
            def test_case(self): pass
        """,
        "CaseTest::test_case: max_macs: -4 is not above zero",
    ),
    "on_an_async_test": (
        """
        @pytest.mark.asyncio
        @pytest.mark.max_macs(-5)
        async def test_async(): pass
        """,
        "test_async: max_macs: -5 is not above zero",
    ),
}


NO_REPR = """
class NoRepr:
    def __repr__(self):
        raise RuntimeError

"""


def one_test(name: str) -> str:
    return f"{NO_REPR}@pytest.mark.{MARKS[name][0]}\ndef test_{name}(): pass\n\n"


def text_of(result: pytest.RunResult) -> str:
    text = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("name", MARKS)
def test_a_bad_mark_is_a_usage_error(name: str, suite: Any) -> None:
    """The error names the test, the mark and the fix; no test runs."""
    result = suite(one_test(name))
    text = text_of(result)
    assert result.ret == USAGE_ERROR
    assert "nnscale: 1 mistake in the budgets" in text
    assert f"test_it.py::test_{name}: " in text
    assert MARKS[name][1] in text
    assert "passed" not in text


@pytest.mark.parametrize("name", PIECES)
def test_a_bad_mark_is_found_wherever_it_stands(name: str, suite: Any) -> None:
    """On parametrisations, classes, unittest cases and async tests."""
    source, sentence = PIECES[name]
    result = suite(source)
    text = text_of(result)
    assert result.ret == USAGE_ERROR
    assert sentence in text


def everything() -> str:
    pieces = "".join(textwrap.dedent(source) for source, _ in PIECES.values())
    return "".join(map(one_test, MARKS)) + pieces + "def test_good(): pass\n"


def assert_everything_is_told(result: pytest.RunResult) -> None:
    text = text_of(result)
    assert result.ret == USAGE_ERROR
    assert f"nnscale: {len(MARKS) + len(PIECES)} mistakes in the budgets" in text
    for name, (_, sentence) in MARKS.items():
        assert [
            line for line in text.splitlines() if f"::test_{name}: " in line and sentence in line
        ], name
    for _, sentence in PIECES.values():
        assert text.count(sentence) == 1
    assert "passed" not in text


def test_all_mistakes_are_told_in_one_go(suite: Any) -> None:
    """Nobody mends one mistake only to be shown the next."""
    assert_everything_is_told(suite(everything()))


def test_all_mistakes_are_told_once_under_xdist(suite: Any) -> None:
    """Raising in a worker is an INTERNALERROR: the controller says it, and says it once."""
    assert_everything_is_told(suite(everything(), "-n2"))


def test_mistakes_are_told_without_a_terminal_reporter(suite: Any) -> None:
    """`-p no:terminal` takes away the report, not the exit code."""
    result = suite(one_test("zero"), "-p", "no:terminal")
    assert result.ret == USAGE_ERROR
    assert MARKS["zero"][1] in text_of(result)


def test_a_bad_mark_on_a_module_names_the_module(suite: Any) -> None:
    """`pytestmark` is told once, with where it stands."""
    result = suite("""
        pytestmark = pytest.mark.max_params("25.6 MB")
        def test_first(): pass
        def test_second(): pass
        """)
    text = text_of(result)
    assert result.ret == USAGE_ERROR
    assert "test_it.py::test_first (from test_it.py) (and 1 more): max_params: '25.6 MB'" in text


def test_equal_marks_twice_are_no_mistake(suite: Any) -> None:
    """Nothing is contradicted, so nothing is refused; another quantile is another number."""
    result = suite("""
        @pytest.mark.max_latency_ms(1)
        @pytest.mark.max_latency_ms(1)
        @pytest.mark.max_latency_ms(2, quantile=0.95)
        @pytest.mark.max_latency_ms(3, phase="training")
        def test_it(): pass
        """, "--collect-only")  # fmt: skip
    assert result.ret == 0


def test_a_mark_on_a_fixture_is_pytests_own_error(suite: Any) -> None:
    """pytest refuses marks on fixtures by itself."""
    result = suite("""
        @pytest.mark.max_params(1)
        @pytest.fixture
        def model(): pass

        def test_it(model): pass
        """)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "Marks cannot be applied to fixtures" in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str()


def test_a_named_function_for_a_limit_is_pytests_own_error(suite: Any) -> None:
    """pytest takes the function for the one to be marked, and calls it with the test."""
    result = suite("""
        def build(): pass

        @pytest.mark.max_params(build)
        def test_it(): pass
        """)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "build() takes 0 positional arguments but 1 was given" in result.stdout.str()


def test_a_bare_decorator_is_a_mistake_beside_the_others(suite: Any) -> None:
    """It is told with the rest, in one go."""
    result = suite("""
        from pytest_nnscale import max_flops, max_params

        @max_flops
        def test_bare(): pass

        @max_params(-1)
        def test_negative(): pass
        """)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "nnscale: 2 mistakes in the budgets" in result.stderr.str()
    assert "test_it.py::test_bare: max_flops: " in result.stderr.str()
    assert "test_it.py::test_negative: max_params: -1 is not above zero" in result.stderr.str()


@pytest.mark.parametrize("use", ["@max_flops(nn.Linear)", "@max_flops(lambda: 1)"])
def test_a_decorator_without_a_limit_does_not_lose_the_test(use: str, suite: Any) -> None:
    """The typed decorator refuses at once: else the test would silently not be collected."""
    result = suite(f"from pytest_nnscale import max_flops\n\n{use}\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "is no limit; give one: @pytest.mark.max_flops(" in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str()


def test_a_misspelt_least_is_a_mistake(suite: Any) -> None:
    """As for what has a most."""
    result = suite("@pytest.mark.min_efficency(0.4)\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stderr.str() + result.stdout.str()
    assert "min_efficency: there is no such mark; did you mean min_efficiency?" in told


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one process", "two workers"])
def test_a_misspelt_mark_is_a_mistake(suite: Any, workers: Any) -> None:
    """pytest only warns of a mark that nobody knows, and the gate would be off."""
    result = suite("@pytest.mark.max_flop(1)\ndef test_it(): pass\n", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stderr.str() + result.stdout.str()
    assert "max_flop: there is no such mark; did you mean max_flops?" in told


def test_a_mark_of_someone_else_is_no_mistake(suite: Any) -> None:
    """Another plugin may register what looks like one of ours."""
    source = "@pytest.mark.max_flop(1)\ndef test_it(): pass\n"
    assert suite(source, ini="markers =\n    max_flop(n): mine").ret == pytest.ExitCode.OK
    assert suite(source.replace("max_flop", "max_retries")).ret == pytest.ExitCode.OK


def test_a_misspelt_ini_key_is_a_mistake(suite: Any) -> None:
    """pytest only warns of a key that nobody knows."""
    result = suite("def test_it(): pass", ini="nnscale_budget = *: max_params=1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = "unknown ini key 'nnscale_budget'; did you mean nnscale_budgets?"
    assert told in result.stderr.str()


def test_two_parameters_that_contradict_each_other_are_a_mistake(suite: Any) -> None:
    """Of stacked parametrisations none is closer than the other."""
    result = suite("""
        @pytest.mark.parametrize("a", [pytest.param(0, marks=pytest.mark.max_flops(1))])
        @pytest.mark.parametrize("b", [pytest.param(0, marks=pytest.mark.max_flops(2))])
        def test_it(a, b): pass
        """)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "two limits for one number; keep one" in result.stderr.str()


def test_a_call_after_the_test_is_refused(suite: Any) -> None:
    """No budget could judge what a fixture calls in its teardown."""
    result = suite("""
        @pytest.fixture
        def late(nnscale):
            yield
            nnscale(nn.Linear(2, 2), torch.ones(1, 2))

        @pytest.mark.max_flops(8)
        def test_it(late, nnscale):
            nnscale(nn.Linear(2, 2), torch.ones(1, 2))
        """)
    result.assert_outcomes(passed=1, errors=1)
    assert "nnscale was called after the test had ended" in result.stdout.str()


@pytest.mark.parametrize(
    ("args", "ini", "whole"),
    [
        ((), "", True),
        ((".",), "", True),
        (("tests",), "testpaths = tests", True),
        (("tests",), "", False),
        (("tests/test_a.py",), "testpaths = tests", False),
        (("-k", "a"), "", True),
        (("--ignore=other",), "", False),
    ],
)
def test_a_glob_without_a_test_is_a_mistake_where_all_was_collected(
    suite: Any, args: Any, ini: str, whole: bool
) -> None:
    """All is no paths, the rootdir, or what testpaths lists; of a part it is only a note."""
    files = {"tests/test_a.py": "def test_a(): pass"}
    ini += "\nnnscale_budgets = nowhere/*: max_params=1"
    result = suite(None, *args, ini=ini, files=files)
    told = result.stderr.str() + result.stdout.str()
    if whole:
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "nnscale_budgets: 'nowhere/*' matches no test" in told
    else:
        assert result.ret == pytest.ExitCode.OK
        assert "note: nnscale_budgets 'nowhere/*' matches none of the tests collected" in told


def test_a_misspelt_mark_is_pytests_own_error(suite: Any) -> None:
    """With --strict-markers, as for any mark."""
    result = suite("@pytest.mark.max_parms(1)\ndef test_it(): pass\n", "--strict-markers")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "'max_parms' not found in `markers`" in result.stdout.str()


# Flags, ini lines, and the sentence.
OPTIONS = {
    "rule": ([], "nnscale_budgets = tests 100M", "nnscale_budgets: 'tests 100M' is not GLOB"),
    "rule_mark": ([], "nnscale_budgets = *: max_parms=1", "unknown mark 'max_parms'"),
    "rule_limit": ([], "nnscale_budgets = *: max_params=-1", "'-1' is not above zero"),
    "rule_unit": ([], "nnscale_budgets = *: max_params=1 GB", "unknown unit 'GB'; count take"),
    "rule_least": ([], "nnscale_budgets = *:min_efficiency=40", "'40' is above 1; a fraction is written"),
    "rule_twice": ([], "nnscale_budgets = *: max_params=1, max_params=2", "max_params twice"),
    "rule_flag": (["--nnscale-budgets=*: 7"], "", "'*: 7' is not GLOB"),
    "require": (["--nnscale-require=coffee"], "", "--nnscale-require: 'coffee' is not one of energy"),
    "require_ini": ([], "nnscale_require = coffee", "nnscale_require: 'coffee' is not one of energy"),
    "inconclusive": (["--nnscale-inconclusive=maybe"], "", "'maybe' is not one of warn, fail"),
    "max_time": (["--nnscale-max-time=-1"], "", "--nnscale-max-time: '-1' is not seconds above zero"),
    "max_time_text": ([], "nnscale_max_time = soon", "nnscale_max_time: 'soon' is not seconds"),
    "confidence": (["--nnscale-confidence=99"], "", "'99' is not between 0.5 and 1"),
    "flush_l2": ([], "nnscale_flush_l2 = true", "nnscale_flush_l2: 'true' is not one of yes, no"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_a_bad_option_is_a_usage_error(name: str, workers: list[str], suite: Any) -> None:
    """The error names the flag or ini key, the value and what is valid; no worker starts."""
    flags, ini, sentence = OPTIONS[name]
    result = suite("def test_it(): pass", *flags, *workers, ini=ini)
    assert result.ret == USAGE_ERROR
    assert sentence in text_of(result)


GLOB = "nnscale_budgets =\n  tests/models/*: max_params=1\n  *::test_none: max_params=1\n"


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_a_glob_that_matches_nothing_is_an_error_for_the_whole_suite(
    workers: list[str], suite: Any
) -> None:
    """A renamed folder must not take its budgets away."""
    result = suite("def test_it(): pass", *workers, ini=GLOB)
    text = text_of(result)
    assert result.ret == USAGE_ERROR
    assert "nnscale: 2 mistakes in the budgets" in text
    assert text.count("nnscale_budgets: 'tests/models/*' matches no test") == 1
    assert text.count("nnscale_budgets: '*::test_none' matches no test") == 1


@pytest.mark.parametrize(
    "words",
    [["test_it.py"], ["test_it.py", "-n2"], ["--ignore=other"], ["--lf"]],
    ids=["path", "path under xdist", "ignore", "last failed"],
)
def test_a_glob_that_matches_nothing_is_a_note_for_a_part(words: list[str], suite: Any) -> None:
    """Who runs one file is not asked about the others."""
    result = suite("def test_it(): pass", *words, ini=GLOB, cache=True)
    assert result.ret == 0
    text = text_of(result)
    sentence = (
        "note: nnscale_budgets 'tests/models/*' matches none of the tests collected this time"
    )
    assert text.count(sentence) == 1


def test_a_deselected_test_still_matches_its_glob(suite: Any) -> None:
    """-k and -m choose among tests that are there."""
    result = suite(
        "def test_it(): pass\ndef test_other(): pass",
        "-k", "test_other",
        ini="nnscale_budgets = *::test_it: max_params=1",
    )  # fmt: skip
    assert result.ret == 0
    assert "matches no" not in text_of(result)


def test_a_file_that_does_not_import_hides_no_mistake_and_adds_none(suite: Any) -> None:
    """Its globs match nothing because its tests are not there: that is not the glob's fault."""
    result = suite(
        None,
        ini="nnscale_budgets = test_bad.py*: max_params=1",
        files={"test_bad.py": "import no_such_module\n", "test_good.py": "def test_it(): pass\n"},
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "No module named 'no_such_module'" in result.stdout.str()
    assert "matches no test" not in result.stdout.str()


MODELS = """
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            self.fc(x)
            raise RuntimeError("the model's own words")

    """


def test_a_model_that_raises_shows_its_own_error(suite: Any) -> None:
    """Called through the fixture or in the body: nothing is recorded, nothing replaced."""
    result = suite(MODELS + """
    @pytest.mark.max_flops(1)
    def test_fixture(nnscale):
        nnscale(Raises(), torch.ones(1, 4))

    @pytest.mark.max_flops(1)
    def test_body():
        Raises()(torch.ones(1, 4))
    """)  # fmt: skip
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert text.count("E       RuntimeError: the model's own words") == 2
    assert "needs" not in text
    assert "2 budgets: 0 within, 0 over, 0 inconclusive, 0 unmeasured, 2 not run" in text


def test_a_swallowed_error_of_the_model_is_red(suite: Any) -> None:
    """Nothing was measured, so the budget cannot pass."""
    result = suite(MODELS + """
    @pytest.mark.max_flops("1 GFLOP")
    def test_fixture(nnscale):
        with pytest.raises(RuntimeError):
            nnscale(Raises(), torch.ones(1, 4))
    """)  # fmt: skip
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "the model raised in every call, and the test went on" in text
    assert "let the error fail the test, or take the mark off" in text
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 1 unmeasured" in text


def test_a_call_that_worked_is_judged_although_another_raised(suite: Any) -> None:
    """A retry is a retry."""
    result = suite(MODELS + """
    @pytest.mark.max_params(20)
    @pytest.mark.max_flops("1 GFLOP")
    def test_fixture(nnscale):
        with pytest.raises(RuntimeError):
            nnscale(Raises(), torch.ones(1, 4))
        nnscale(nn.Linear(4, 4), torch.ones(1, 4))
    """)  # fmt: skip
    assert result.ret == 0
    assert "2 budgets: 2 within" in result.stdout.str()


def test_a_mark_on_a_test_that_runs_no_model_is_red(suite: Any) -> None:
    """A budget on a function that measured nothing has not been kept."""
    result = suite("""
        @pytest.mark.max_flops("1 GFLOP")
        def test_body():
            pass

        @pytest.mark.max_flops("1 GFLOP")
        def test_fixture(nnscale):
            pass
        """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert "the test ran no tensor operator, so there was nothing to judge" in text
    assert "the test asked for the nnscale fixture and never called it" in text


def test_inputs_on_meta_are_refused_where_torch_takes_them(suite: Any) -> None:
    """A convolution of them computes nothing, and says nothing."""
    result = suite("""
        @pytest.mark.max_flops("1 GFLOP")
        def test_it(nnscale):
            nnscale(nn.Conv1d(1, 1, 1), torch.ones(1, 1, 4, device="meta"))
        """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "an input is on meta and the model on cpu" in result.stdout.str()


def test_inputs_on_another_device_show_torchs_own_error(suite: Any) -> None:
    """No message of ours stands in for torch's, and nothing is recorded."""
    result = suite("""
        @pytest.mark.max_flops("1 GFLOP")
        def test_fixture(nnscale):
            nnscale(nn.Linear(4, 4), torch.ones(1, 4, device="meta"))
        """)
    plain = suite("""
        def test_plain():
            nn.Linear(4, 4)(torch.ones(1, 4, device="meta"))
        """)
    own = [line for line in plain.outlines if line.startswith("E  ")]
    assert own
    assert result.ret == plain.ret == pytest.ExitCode.TESTS_FAILED
    assert [line for line in result.outlines if line.startswith("E  ")] == own
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 0 unmeasured, 1 not run" in result.outlines


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("nnscale(nn.Linear(4, 4))", "missing 1 required positional argument: 'input'"),
        ("nnscale(nn.Linear(4, 4), torch.ones(1, 5))", "mat1 and mat2 shapes cannot be multiplied"),
        ("nnscale('resnet50', torch.ones(1))", "not str; call it as nnscale(model, *inputs)"),
        ("nnscale(None, torch.ones(1))", "not NoneType; call it as nnscale(model, *inputs)"),
        ("nnscale()", "missing 1 required positional argument: 'model'"),
    ],
)
def test_a_bad_call_of_the_fixture_fails_in_the_test(call: str, error: str, suite: Any) -> None:
    """What cannot be called is the test's own error, at the line that called it."""
    result = suite(f"@pytest.mark.max_flops(1)\ndef test_it(nnscale):\n    {call}\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert error in text
    assert f">       {call}" in text or f">   {call}" in text
    assert "INTERNALERROR" not in text
    assert "1 not run" in text
