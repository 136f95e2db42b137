"""The table of marks, its decorators, and a mark read as a budget."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import pytest_nnscale
from pytest_nnscale import decorators
from pytest_nnscale.budget import Budget
from pytest_nnscale.errors import BadBudget
from pytest_nnscale.grammar import parse_mark
from pytest_nnscale.marks import (
    DEVICES,
    MARK_FOR,
    MARK_OF,
    MARKS,
    PHASES,
    MarkSpec,
    close_to,
    near_miss,
)
from pytest_nnscale.measurement import Metric

PREFIXES = ("max_", "min_")
every_mark = pytest.mark.parametrize("spec", MARKS, ids=lambda spec: spec.name)


def read(name: str, *args: Any, parametrisation: str | None = None, **kwargs: Any) -> Budget:
    return parse_mark(
        MARK_OF[name], args, kwargs, parametrisation=parametrisation, origin="here", own=True
    )


def some_limit(spec: MarkSpec) -> float:
    """Return a valid limit: seven of anything, or a share."""
    return 0.7 if spec.metric is Metric.EFFICIENCY else 7


def test_every_metric_has_one_mark() -> None:
    """The table is the registry, and it is complete: a ratio is a latency beside another one."""
    assert {spec.metric for spec in MARKS} == set(Metric) - {Metric.RATIO}
    assert len(MARKS) == len(MARK_OF) == len(MARK_FOR)


@every_mark
def test_the_help_of_a_mark_names_its_keywords_and_a_valid_example(spec: MarkSpec) -> None:
    """What `pytest --markers` prints cannot drift from what is accepted."""
    signature, _, prose = spec.help.partition(": ")
    assert (
        signature
        == f"{spec.name}({', '.join(['limit', 'phase=', 'device=', *(f'{k}=' for k in spec.keywords)])})"
    )
    assert all(keyword in prose for keyword in spec.keywords)
    assert spec.example in prose
    mark = eval(spec.example.removeprefix("@"), {"pytest": pytest}).mark
    assert read(mark.name, *mark.args, **mark.kwargs).metric is spec.metric


@every_mark
def test_the_decorator_mirrors_the_table(spec: MarkSpec) -> None:
    """One positional limit, then exactly the keywords of the table, keyword-only."""
    limit, *keywords = inspect.signature(getattr(decorators, spec.name)).parameters.values()
    assert limit.name == "limit"
    assert {p.name for p in keywords} == {"phase", "device", *spec.keywords}
    assert all(p.kind is p.KEYWORD_ONLY for p in keywords)


def test_there_is_no_decorator_beyond_the_table() -> None:
    """The names of the decorators, of the public face and of the table are the same."""
    assert {name for name in vars(decorators) if name.startswith(PREFIXES)} == set(MARK_OF)
    assert {name for name in pytest_nnscale.__all__ if name.startswith(PREFIXES)} == set(MARK_OF)


@every_mark
def test_a_decorator_states_the_budget_of_its_mark(spec: MarkSpec) -> None:
    """`@max_params(7)` and `@pytest.mark.max_params(7)` are one thing."""
    limit = some_limit(spec)
    mark = getattr(pytest_nnscale, spec.name)(limit).mark
    assert mark.name == spec.name
    assert read(spec.name, *mark.args, **mark.kwargs) == read(spec.name, limit)


@pytest.mark.parametrize("limit", [lambda: 1, int, read])
def test_a_decorator_refuses_a_callable_limit(limit: Any) -> None:
    """`@max_flops` without a limit would unmake the test silently; the sentence shows the fix."""
    with pytest.raises(BadBudget, match=r"max_flops: .* is no limit; give one: @pytest.mark"):
        decorators.max_flops(limit)


def test_a_decorator_without_a_limit_leaves_the_test_a_test() -> None:
    """Its mark has no limit, which is a mistake when it is collected, like `@pytest.mark`'s."""

    def test_it() -> None:
        pass

    marked: Any = decorators.max_flops(test_it)  # type: ignore[arg-type]
    assert marked is test_it
    (mark,) = marked.pytestmark
    assert (mark.name, mark.args) == ("max_flops", ())


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("device", [None, *DEVICES, "cuda:1"])
@every_mark
def test_every_mark_takes_every_phase_and_device(
    spec: MarkSpec, phase: str, device: str | None
) -> None:
    """The common keywords are common."""
    budget = read(spec.name, some_limit(spec), phase=phase, device=device)
    assert (budget.phase, budget.device) == (phase, device)


def test_a_device_may_be_a_torch_device() -> None:
    """People have one at hand."""
    import torch

    assert read("max_flops", 7, device=torch.device("cuda", 1)).device == "cuda:1"


def test_the_median_said_aloud_is_the_median_left_unsaid() -> None:
    """Both limit the same number, so that the closest wins."""
    assert read("max_latency_ms", 7, quantile=0.5).key == read("max_latency_ms", 7).key
    assert read("max_latency_ms", 7, quantile=0.95).key != read("max_latency_ms", 7).key


@pytest.mark.parametrize("quantile", [0.0001, 0.9999])
def test_the_rarest_quantiles_that_can_be_seen_are_taken(quantile: float) -> None:
    """The ends that the refusal names are valid."""
    assert read("max_latency_ms", 7, quantile=quantile).quantile == quantile


def test_a_dict_is_read_by_the_id_of_the_parametrisation() -> None:
    """Each parametrisation has its limit."""
    limits = {"small": "1k", "large": "1M"}
    assert read("max_params", limits, parametrisation="small").limit == 1000
    assert read("max_params", limits, parametrisation="large").limit == 1_000_000


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "sentence"),
    [
        ("max_flops", (), {}, "no limit; give one limit: @pytest.mark.max_flops"),
        ("max_flops", (), {"limit": 1}, "no limit; give one limit"),
        ("max_flops", (1, 2), {}, "2 positional values; give one limit"),
        (
            "max_flops",
            (1,),
            {"trainable": True},
            "unknown keyword 'trainable'; max_flops takes phase, device",
        ),
        (
            "max_params",
            (1,),
            {"quantile": 0.9},
            "unknown keyword 'quantile'; max_params takes phase, device, trainable",
        ),
        ("max_flops", (1,), {"phase": "eval"}, "phase='eval'; it is 'inference' or 'training'"),
        ("max_flops", (1,), {"phase": None}, "phase=None; it is"),
        ("max_flops", (1,), {"phase": ["training"]}, "phase=['training']; it is"),
        ("max_flops", (1,), {"device": "gpu"}, "device='gpu'; it is one of cpu, cuda"),
        ("max_flops", (1,), {"device": "cuda:"}, "device='cuda:'; it is one of"),
        ("max_flops", (1,), {"device": "cuda:x"}, "device='cuda:x'; it is one of"),
        ("max_flops", (1,), {"device": 0}, "device=0; it is one of"),
        ("max_latency_ms", (1,), {"quantile": 0}, "quantile=0; it lies between 0 and 1"),
        ("max_latency_ms", (1,), {"quantile": 1}, "quantile=1; it lies between 0 and 1"),
        ("max_latency_ms", (1,), {"quantile": 95}, "quantile=95; it lies between 0 and 1"),
        ("max_latency_ms", (1,), {"quantile": float("nan")}, "quantile=nan; it lies"),
        (
            "max_latency_ms",
            (1,),
            {"quantile": 0.999999},
            "quantile=0.999999; to see a call that rare takes too many calls, give 0.0001 to 0.9999",
        ),
        ("max_latency_ms", (1,), {"quantile": 1e-5}, "quantile=1e-05; to see a call that rare"),
        ("max_latency_ms", (1,), {"quantile": "p95"}, "quantile='p95'; it is a number"),
        ("max_latency_ms", (1,), {"quantile": True}, "quantile=True; it is a number"),
        ("max_params", (1,), {"trainable": "yes"}, "trainable='yes'; it is True or False"),
        ("max_params", ({"small": 1},), {}, "a dict of limits, but the test is not parametrised"),
        ("min_efficiency", (40,), {}, "40 is above 1; a fraction is written like 0.4 or '40 %'"),
        ("min_efficiency", (0.0,), {}, "0.0 is not above zero"),
        ("min_efficiency", (0.4,), {"quantile": 0.9}, "unknown keyword 'quantile'"),
    ],
)
def test_a_mistake_is_named_with_its_fix(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], sentence: str
) -> None:
    """Whatever is wrong, the sentence says what was written and what is valid."""
    with pytest.raises(BadBudget) as refused:
        read(name, *args, **kwargs)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({}, "no limit for id 'small' in the dict; it has none"),
        ({"large": 1}, "no limit for id 'small' in the dict; it has 'large'"),
        ({"small": -1}, "-1 is not above zero"),
        ({"small": {"small": 1}}, "is a dict; give a number"),
    ],
)
def test_a_dict_without_a_limit_for_the_id_is_a_mistake(
    limits: dict[str, Any], sentence: str
) -> None:
    """A parametrisation that was forgotten is not a parametrisation without a budget."""
    with pytest.raises(BadBudget) as refused:
        read("max_params", limits, parametrisation="small")
    assert sentence in str(refused.value)


def test_an_array_for_a_phase_is_a_mistake_like_any_other() -> None:
    """An array compares elementwise, which must not end in an internal error."""
    import numpy as np

    with pytest.raises(BadBudget, match=r"phase=.*; it is 'inference' or 'training'"):
        read("max_flops", 1, phase=np.array([1, 2]))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_flop", "max_flops"),
        ("max_FLOPs", "max_flops"),
        ("max_parms", "max_params"),
        ("max_mac", "max_macs"),
        ("max_size", "max_size_mb"),
        ("max_memory", "max_memory_mb"),
        ("max_kernel", "max_kernels"),
        ("max_latency_s", "max_latency_ms"),
        ("max_energy", "max_energy_j"),
        ("min_efficency", "min_efficiency"),
        ("min_efficienc", "min_efficiency"),
    ],
)
def test_a_misspelt_mark_is_known_for_what_it_was_meant_to_be(name: str, meant: str) -> None:
    """A letter missing, another unit, none."""
    assert near_miss(name) == meant


@pytest.mark.parametrize(
    "name",
    [
        *MARK_OF,
        *("max_time", "max_workers", "max_retries", "max_steps", "max_examples", "max_queries"),
        *("max_", "max", "min_", "flops", "slow", "parametrize", "min_flops"),
        *("min_version", "min_time", "min_workers", "min_size"),
    ],
)
def test_other_marks_are_no_misspelt_ones(name: str) -> None:
    """Ours themselves, and what another plugin may well call its own."""
    assert near_miss(name) is None


def test_what_names_have_in_common_does_not_make_them_close() -> None:
    """An ini key is told from another by what follows the prefix."""
    valid = ["nnscale_budgets", "nnscale_max_time"]
    assert close_to("nnscale_max_tme", valid) == "nnscale_max_time"
    assert close_to("nnscale_budget", valid) == "nnscale_budgets"
    assert close_to("nnscale_gadget", valid) is None
    assert close_to("nnscale_x", []) is None


def test_markers_prints_every_mark(suite: Any) -> None:
    """`pytest --markers` documents each, from the table."""
    result = suite("", "--markers")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"@pytest.mark.{spec.name}(limit, *" for spec in MARKS])


def test_strict_markers_accepts_every_mark(suite: Any) -> None:
    """The marks are registered."""
    marks = "\n".join(f"@pytest.mark.{spec.name}(1)" for spec in MARKS)
    result = suite(f"{marks}\ndef test_it(): pass", "--strict-markers", "--collect-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 test collected*"])
