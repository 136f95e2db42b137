"""The rules of what nearly every model calls: what they answer, leave to torch, and never answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pytest_nnscale.counting import shapes
from pytest_nnscale.counting.shape_rules import rule_for
from pytest_nnscale.counting.shape_rules.strides import channels_last, layout_of
from pytest_nnscale.counting.specs import contiguous, spec, spec_of
from pytest_nnscale.counting.traced import NeedsValues

aten = torch.ops.aten
CPU = torch.device("cpu")
r = torch.rand


def last(*size: int) -> Tensor:
    form = torch.channels_last if len(size) == 4 else torch.channels_last_3d
    return r(size).to(memory_format=form)


def half(*size: int) -> Tensor:
    return r(size, dtype=torch.bfloat16)


def laid(size: Sequence[int], stride: Sequence[int]) -> Tensor:
    return torch.empty_strided(size, stride).fill_(0.5)


Make = Callable[[], tuple[Any, ...]]  # the arguments of a call; a dict at their end is by keyword
Table = dict[str, list[Make]]

ANY_LAYOUT: list[Make] = [
    lambda: (r(3, 4),),
    lambda: (r(()),),
    lambda: (r(2, 3, 4, 5),),
    lambda: (r(2, 4, 1, 1),),
    lambda: (last(2, 3, 4, 5),),
    lambda: (last(1, 3, 4, 1),),
    lambda: (last(2, 3, 4, 5, 2),),
    lambda: (r(6, 4)[2:5],),
    lambda: (r(0, 4),),
    lambda: (r(2, 0, 3, 3),),
    lambda: (half(3, 4),),
    lambda: (r(3, 4).half(),),
    lambda: (r(3, 4).double(),),
]
OTHER_LAYOUTS: list[Make] = [
    lambda: (r(3, 4).t(),),
    lambda: (r(2, 3, 4).permute(1, 2, 0),),
    lambda: (r(3, 8)[:, ::2],),
    lambda: (last(2, 8, 4, 4)[:, ::2],),
    lambda: (laid((2, 4, 1, 1), (4, 1, 4, 4)),),  # contiguous as well
    lambda: (laid((2, 1, 3, 3), (9, 1, 3, 1)),),
    lambda: (laid((1, 4), (0, 1)),),
]
EXPANDED: list[Make] = [lambda: (r(1, 4).expand(3, 4),), lambda: (r(1).expand(3),)]
NOWHERE: list[Make] = [lambda: (r(1, 0).expand(3, 0),)]  # expanded, but of no elements
IN_TWO: list[Make] = [
    lambda: (r(3, 4), r(3, 4)),
    lambda: (r(2, 3, 4), r(3, 4)),
    lambda: (r(2, 3, 4), r(4)),
    lambda: (r(2, 3, 4), r(2, 1, 4)),
    lambda: (r(2, 3, 4), r(1)),
    lambda: (r(2, 4, 1, 1), r(4, 1, 1)),
    lambda: (r(1, 4, 1), r(1, 1, 1, 1)[0]),
    lambda: (half(3, 4), half(4)),
    lambda: (r(3, 4).double(), r(4).double()),
    lambda: (r(0, 4), r(0, 4)),
    lambda: (last(2, 3, 4, 5), last(2, 3, 4, 5)),
    lambda: (last(1, 3, 4, 5, 2), last(1, 3, 4, 5, 2)),
    lambda: (r(6, 4)[2:4], r(2, 4)),
    lambda: (r(3, 4), 2),
    lambda: (half(3, 4), 0.5),
    lambda: (last(2, 3, 4, 5), 0.5),
]
# In place it does not matter how the other one lies.
INTO_THE_FIRST: list[Make] = [
    *IN_TWO,
    lambda: (r(3, 4), r(4, 3).t()),
    lambda: (r(3, 4), r(1, 4).expand(3, 4)),
    lambda: (last(2, 3, 4, 5), r(2, 3, 1, 1)),
    lambda: (r(0, 4), r(4)),
    lambda: (r(0, 4), 2),
]
OTHER_PAIRS: list[Make] = [
    lambda: (r(3, 1), r(1, 4)),  # the size of neither
    lambda: (r(4, 3).t(), r(4, 3).t()),
    lambda: (r(3, 4), r(4, 3).t()),
    lambda: (last(2, 3, 4, 5), r(2, 3, 4, 5)),
    lambda: (last(2, 3, 4, 5), r(3, 1, 1)),
    lambda: (r(3, 4), r(4).double()),
    lambda: (r(3, 4), half(3, 4)),
    lambda: (r(3, 4), r(())),
    lambda: (r(()), r(())),
    lambda: (r(()), 2),
    lambda: (r(3, 4), torch.ones(4, dtype=torch.long)),
    lambda: (torch.ones(4, dtype=torch.long), torch.ones(4, dtype=torch.long)),
    lambda: (r(3), 1j),
    lambda: (r(0, 1), r(1, 1)),  # with strides of zero
    lambda: (r(1, 0, 1, 4), 2),
]
INTO_ANOTHER: list[Make] = [
    lambda: (r(4, 3).t(), r(3, 4)),
    lambda: (r(3, 4), r(4).double()),
    lambda: (r(3), r(())),
    lambda: (r(()), 2),
]
UNEQUAL: list[Make] = [lambda: (r(3, 4), r(3)), lambda: (r(2, 3), r(2, 4)), lambda: (r(3), r(0))]

UNEQUAL_IN_PLACE: list[Make] = [
    *UNEQUAL,
    lambda: (r(3), r(2, 3)),  # would grow
    lambda: (r(1), r(3)),
    lambda: (torch.ones(3, dtype=torch.long), r(3)),
    lambda: (r(3), torch.complex(r(3), r(3))),
]
EXPANDED_FIRST: list[Make] = [lambda: (r(1, 4).expand(3, 4), 2), lambda: (r(1).expand(3), r(3))]


def and_(makes: Iterable[Make], *more: Any) -> list[Make]:
    """Give each of some calls further arguments."""
    return [lambda make=make: (*make(), *more) for make in makes]  # type: ignore[misc]


def turned(makes: Iterable[Make]) -> list[Make]:
    return [lambda make=make: make()[::-1] for make in makes if isinstance(make()[1], Tensor)]  # type: ignore[misc]


EACH = [
    *["relu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu"],
    *["relu_", "silu_", "sigmoid_", "tanh_", "hardswish_", "hardsigmoid_", "hardtanh_"],
    *["leaky_relu_", "elu", "elu_", "mish", "mish_", "gelu", "softplus"],
    *["neg", "exp", "sqrt", "rsqrt", "abs"],
]
IN_PLACE = [name for name in EACH if name.endswith("_")]
TWO = ["add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor"]
TWO_IN_PLACE = ["add_.Tensor", "sub_.Tensor", "mul_.Tensor", "div_.Tensor"]
WHOLE = torch.ones(2, 3, dtype=torch.long)

# What rules answer, without torch.
ANSWERED: Table = {
    **dict.fromkeys(EACH, ANY_LAYOUT),
    "add.Tensor": [*IN_TWO, *turned(IN_TWO), *and_(IN_TWO, {"alpha": 2})],
    "sub.Tensor": [*IN_TWO, *turned(IN_TWO), *and_(IN_TWO, {"alpha": 0.5})],
    "mul.Tensor": [*IN_TWO, *turned(IN_TWO)],
    "div.Tensor": [*IN_TWO, *turned(IN_TWO)],
    **dict.fromkeys(TWO_IN_PLACE, INTO_THE_FIRST),
    "clamp": [*and_(ANY_LAYOUT, 0), *and_(ANY_LAYOUT, None, 0.5), *and_(ANY_LAYOUT, 0, 6)],
    "_softmax": [
        *and_([*ANY_LAYOUT, *OTHER_LAYOUTS], -1, False),
        *and_(OTHER_LAYOUTS, 1, False),
    ],
    "_log_softmax": [
        *and_([*ANY_LAYOUT, *OTHER_LAYOUTS], -1, False),
        *and_(OTHER_LAYOUTS, 1, False),
    ],
    "mean.dim": [
        lambda: (r(2, 3, 4, 5), [2, 3]),
        lambda: (r(2, 3, 4, 5), [-1, -2], True),
        lambda: (r(3, 4), [0]),
        lambda: (r(3, 4), [0, 1]),
        lambda: (r(2, 1, 4), [1], True),
        lambda: (half(2, 3, 4), [1]),
        lambda: (r(2, 3).double(), [-1]),
        lambda: (r(0, 4), [1]),
        lambda: (r(0, 4), [0]),
    ],
    "cat": [
        lambda: ([r(2, 3), r(4, 3)],),
        lambda: ([r(2, 3), r(2, 1), r(2, 5)], 1),
        lambda: ([r(2, 3, 4), r(2, 3, 1)], -1),
        lambda: ([r(3)],),
        lambda: ([r(2, 3, 4, 5), r(2, 1, 4, 5)], 1),
        lambda: ([last(2, 3, 4, 5), last(2, 2, 4, 5)], 1),
        lambda: ([last(2, 3, 4, 5, 2), last(1, 3, 4, 5, 2)],),
        lambda: ([half(2, 3), half(2, 3)],),
        lambda: ([r(2, 3).double(), r(2, 3).double()],),
        lambda: ([torch.ones(2, dtype=torch.long), torch.ones(3, dtype=torch.long)],),
        lambda: ([r(2, 3), r(0, 3)],),
        lambda: ([r(6, 4)[2:4], r(2, 4)],),
    ],
    "mm": [
        lambda: (r(2, 3), r(3, 4)),
        lambda: (r(2, 3), r(4, 3).t()),
        lambda: (r(3, 2).t(), r(4, 3).t()),
        lambda: (r(2, 6)[:, ::2], r(1, 4).expand(3, 4)),
        lambda: (half(2, 3), half(3, 4)),
        lambda: (r(2, 3).double(), r(3, 4).double()),
        lambda: (r(2, 0), r(0, 4)),
        lambda: (r(0, 3), r(3, 1)),
    ],
    "bmm": [
        lambda: (r(2, 3, 4), r(2, 4, 5)),
        lambda: (r(2, 4, 3).mT, r(2, 5, 4).mT),
        lambda: (r(3, 2, 4).transpose(0, 1), r(2, 4, 5)),
        lambda: (half(2, 3, 4), half(2, 4, 5)),
        lambda: (r(2, 3, 4).double(), r(2, 4, 5).double()),
        lambda: (r(0, 3, 4), r(0, 4, 5)),
        lambda: (r(2, 3, 0), r(2, 0, 5)),
    ],
    "addmm": [
        lambda: (r(4), r(2, 3), r(3, 4)),
        lambda: (r(4), r(2, 3), r(4, 3).t()),
        lambda: (r(2, 4), r(3, 2).t(), r(4, 3).t()),
        lambda: (r(2, 1), r(2, 3), r(3, 4), {"beta": 0.5, "alpha": 2}),
        lambda: (r(4, 2).t(), r(2, 3), r(3, 4)),
        lambda: (half(4), half(2, 3), half(4, 3).t()),
        lambda: (r(4).double(), r(2, 3).double(), r(3, 4).double()),
        lambda: (r(4), r(0, 3), r(3, 4)),
        lambda: (r(4), r(2, 0), r(0, 4)),
    ],
    "baddbmm": [
        lambda: (r(2, 3, 5), r(2, 3, 4), r(2, 4, 5)),
        lambda: (r(5), r(2, 3, 4), r(2, 5, 4).mT, {"beta": 2}),
        lambda: (r(1, 3, 1), r(2, 4, 3).mT, r(2, 4, 5)),
        lambda: (half(3, 5), half(2, 3, 4), half(2, 4, 5)),
        lambda: (r(5), r(0, 3, 4), r(0, 4, 5)),
    ],
    "max_pool2d_with_indices": [
        lambda: (r(2, 3, 7, 8), [2]),
        lambda: (r(2, 3, 7, 8), [3, 2], [2], [1]),
        lambda: (r(2, 3, 7, 8), [3, 3], [2, 1], [1, 0], [1, 2]),
        lambda: (r(2, 3, 7, 7), [3], [2], [0], [1], True),
        lambda: (r(2, 3, 6, 5), [2], [2], [1], [1], True),
        lambda: (r(2, 3, 4, 4), [1], [3], [0], [1], True),
        lambda: (last(2, 3, 7, 8), [3], [2], [1]),
        lambda: (last(2, 3, 2, 2), [2]),
        lambda: (half(2, 3, 7, 8), [2]),
        lambda: (r(2, 3, 7, 8).double(), [2]),
    ],
    "avg_pool2d": [
        lambda: (r(2, 3, 7, 8), [2]),
        lambda: (r(2, 3, 7, 8), [3, 2], [2], [1]),
        lambda: (r(2, 3, 7, 8), [3, 3], [2, 1], [1, 0], False, False),
        lambda: (r(2, 3, 7, 7), [2], [], [0], True),
        lambda: (r(2, 3, 6, 5), [2], [2], [1], True),
        lambda: (r(2, 3, 4, 4), [1], [3], [0], True),
        lambda: (last(2, 3, 7, 8), [3], [2], [1]),
        lambda: (last(2, 3, 2, 2), [2]),
        lambda: (half(2, 3, 7, 8), [2]),
        lambda: (r(2, 3, 7, 8).double(), [2]),
    ],
    "_adaptive_avg_pool2d": [
        lambda: (r(2, 3, 7, 8), [2, 3]),
        lambda: (r(2, 3, 7, 8), [9, 9]),
        lambda: (last(2, 3, 7, 8), [2, 3]),
        lambda: (last(2, 3, 7, 8), [1, 2]),
        lambda: (half(2, 3, 7, 8), [2, 3]),
        lambda: (r(2, 3, 7, 8).double(), [2, 3]),
    ],
}
ANSWERED["sum.dim_IntList"] = ANSWERED["mean.dim"]
ANSWERED["hardtanh"] = [*ANY_LAYOUT, *and_(ANY_LAYOUT, 0, 6.0)]
ANSWERED["hardtanh_"] = ANSWERED["hardtanh"]
ANSWERED["leaky_relu"] = [*ANY_LAYOUT, *and_(ANY_LAYOUT, 0.1)]
ANSWERED["elu"] = [*ANY_LAYOUT, *and_(ANY_LAYOUT, 2, 1.5, 1)]
ANSWERED["softplus"] = [*ANY_LAYOUT, *and_(ANY_LAYOUT, 2, 10)]
ANSWERED["gelu"] = [*ANY_LAYOUT, *and_(ANY_LAYOUT, {"approximate": "tanh"})]

# What a CPU takes, and rules leave to torch.
LEFT: Table = {
    **{name: OTHER_LAYOUTS + (NOWHERE if name in IN_PLACE else EXPANDED) for name in EACH},
    **dict.fromkeys(TWO, OTHER_PAIRS),
    **dict.fromkeys(TWO_IN_PLACE, INTO_ANOTHER),
    "clamp": [*and_(OTHER_LAYOUTS, 0), lambda: (WHOLE, 0), lambda: (WHOLE, 0.5)],
    "mean.dim": [
        lambda: (r(3, 4).t(), [0]),
        lambda: (last(2, 3, 4, 5), [2, 3]),
        lambda: (r(3, 4), None),
        lambda: (r(3, 4), []),
        lambda: (r(3, 4), [0], {"dtype": torch.float64}),
    ],
    "cat": [
        lambda: ([r(3, 2).t(), r(3, 2).t()],),
        lambda: ([r(2, 3), r(3, 2).t()],),
        lambda: ([r(2, 3, 4, 5), last(2, 3, 4, 5)],),
        lambda: ([r(2, 3), r(2, 3).double()],),
        lambda: ([r(2, 3), r(0)],),
        lambda: ([r(0), r(2, 3)], 1),
        lambda: ([r(0), r(3)],),
        lambda: ([laid((2, 4, 1, 1), (4, 1, 4, 4))] * 2,),
    ],
    "addmm": [lambda: (r(()), r(2, 3), r(3, 4)), lambda: (WHOLE[0], WHOLE, WHOLE.t() @ WHOLE)],
    "mm": [lambda: (WHOLE, WHOLE.t())],
    "max_pool2d_with_indices": [
        lambda: (r(3, 7, 8), [2]),
        lambda: (r(2, 3, 8, 7).mT, [2]),
        lambda: (r(0, 3, 7, 8), [2]),
        lambda: (laid((2, 1, 3, 3), (9, 1, 3, 1)), [2]),
    ],
    "avg_pool2d": [
        lambda: (r(3, 7, 8), [2]),
        lambda: (r(2, 3, 8, 7).mT, [2]),
        lambda: (r(2, 3, 7, 8), [2], [2], [0], False, True, 3),
    ],
    "_adaptive_avg_pool2d": [
        lambda: (r(3, 7, 8), [2, 2]),
        lambda: (r(2, 3, 8, 7).mT, [2, 2]),
    ],
}
LEFT["sum.dim_IntList"] = [*LEFT["mean.dim"], lambda: (WHOLE, [0])]

# What torch refuses.
WRONG: Table = {
    **dict.fromkeys(TWO, UNEQUAL),
    **dict.fromkeys(TWO_IN_PLACE, UNEQUAL_IN_PLACE),
    "add.Tensor": [*UNEQUAL, lambda: (r(3), r(3), {"alpha": 1j})],
    "gelu": [lambda: (WHOLE,), lambda: (r(3), {"approximate": "erf"})],
    "clamp": [lambda: (r(3),), lambda: (r(3), None, None), lambda: (r(3), 1j)],
    "mean.dim": [lambda: (r(3, 4), [2]), lambda: (r(3, 4), [0, 0]), lambda: (WHOLE, [0])],
    "sum.dim_IntList": [lambda: (r(3, 4), [-3]), lambda: (r(3, 4), [0, -2])],
    "_softmax": [
        lambda: (r(3, 4), 2, False),
        lambda: (r(3, 4), 0, True),
        lambda: (WHOLE, 0, False),
    ],
    "_log_softmax": [lambda: (r(3, 4), -3, False), lambda: (WHOLE, 0, False)],
    "cat": [
        lambda: ([],),
        lambda: ([r(2, 3), r(2, 4)],),
        lambda: ([r(2, 3), r(2, 3, 1)],),
        lambda: ([r(3), r(())],),
        lambda: ([r(2, 3), r(2, 3)], 2),
        lambda: ([r(2, 3), r(2, 3)], -3),
    ],
    "mm": [
        lambda: (r(2, 3), r(4, 3)),
        lambda: (r(2, 3), r(3, 4).double()),
        lambda: (r(2, 3, 4), r(2, 4, 3)),
        lambda: (r(3), r(3, 4)),
    ],
    "bmm": [
        lambda: (r(2, 3, 4), r(2, 3, 4)),
        lambda: (r(2, 3, 4), r(1, 4, 5)),
        lambda: (r(2, 3, 4), r(2, 4, 5).double()),
        lambda: (r(3, 4), r(4, 5)),
    ],
    "addmm": [
        lambda: (r(5), r(2, 3), r(3, 4)),
        lambda: (r(3, 4), r(2, 3), r(3, 4)),
        lambda: (r(4), r(2, 3), r(4, 3)),
        lambda: (r(4).double(), r(2, 3), r(3, 4)),
        lambda: (r(4), r(2, 3), r(3, 4).double()),
        lambda: (r(1, 2, 4), r(2, 3), r(3, 4)),
        lambda: (r(4), r(1, 2, 3), r(1, 3, 4)),
        lambda: (r(4), r(2, 3), r(3, 4), {"alpha": 1j}),
    ],
    "baddbmm": [
        lambda: (r(4), r(2, 3, 4), r(2, 4, 5)),
        lambda: (r(5), r(2, 3, 4), r(1, 4, 5)),
        lambda: (r(5), r(2, 3, 4), r(2, 4, 5).double()),
        lambda: (r(5), r(3, 4), r(4, 5)),
    ],
    "max_pool2d_with_indices": [
        lambda: (r(2, 3, 4, 4), [5]),
        lambda: (r(2, 3, 4, 4), [2], [2], [2]),
        lambda: (r(2, 3, 4, 4), [2, 2, 2]),
        lambda: (r(2, 3, 4, 4), [2], [0]),
        lambda: (r(2, 3, 4, 4), [2], [2], [0], [0]),
        lambda: (r(2, 3, 4, 4), [2], [2], [-1]),
        lambda: (r(4, 4), [2]),
        lambda: (r(2, 3, 4, 4) > 0, [2]),
    ],
    "avg_pool2d": [
        lambda: (r(2, 3, 4, 4), [5]),
        lambda: (r(2, 3, 4, 4), [2], [2], [2]),
        lambda: (r(2, 3, 4, 4), [0]),
        lambda: (r(2, 3, 4, 4), [2], [2], [0], False, True, 0),
    ],
    "_adaptive_avg_pool2d": [
        lambda: (r(2, 3, 4, 4), [2]),
        lambda: (r(2, 3, 4, 4), [-1, 2]),
        lambda: (r(4, 4), [2, 2]),
    ],
}


def calls(
    name: str, makes: Iterable[Make]
) -> Iterable[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(aten, packet), overload or "default")
    for make in makes:
        *args, kwargs = made if isinstance((made := make())[-1], dict) else (*made, {})
        yield operator, tuple(args), kwargs


@pytest.fixture
def rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch answer nothing where a rule does not."""

    def refuse(*_: Any) -> None:
        raise NeedsValues("left to torch")

    monkeypatch.setattr(shapes, "_by_meta_kernel", refuse)


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.usefixtures("rules_alone")
def test_a_rule_alone_foretells_what_a_cpu_gives(set_beside: Any, name: str) -> None:
    """Of operators that nearly every model calls, to the strides of axes of length one."""
    for operator, args, kwargs in calls(name, ANSWERED[name]):
        with torch.no_grad(), set_beside() as beside:
            out = operator(*args, **kwargs)
        assert not beside.wrong, "\n".join(beside.wrong)
        assert not beside.refused, shapes._specs(args)
        outputs = shapes.outcome_of(operator, args, kwargs, CPU).outputs
        for each, output in zip(out if isinstance(out, tuple) else [out], outputs, strict=True):
            if isinstance(output, shapes.New):
                assert output.spec is spec_of(each), shapes._specs(args)


@pytest.mark.parametrize("name", LEFT)
def test_what_a_rule_leaves_to_torch_comes_as_foretold(
    set_beside: Any, request: pytest.FixtureRequest, name: str
) -> None:
    """Of layouts, precisions and options that a rule does not know."""
    for operator, args, kwargs in calls(name, LEFT[name]):
        with torch.no_grad(), set_beside() as beside:
            operator(*args, **kwargs)
        assert not beside.wrong, "\n".join(beside.wrong)
        assert not beside.refused, shapes._specs(args)
    request.getfixturevalue("rules_alone")
    for operator, args, kwargs in calls(name, LEFT[name]):
        with pytest.raises(NeedsValues, match="left to torch"):
            shapes.outcome_of(operator, args, kwargs, CPU)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("rules_alone")
def test_a_rule_has_no_answer_where_torch_refuses(name: str) -> None:
    """Nor an error of its own: torch finds the words."""
    for operator, args, kwargs in calls(name, WRONG[name]):
        with pytest.raises((RuntimeError, IndexError, ValueError)), torch.no_grad():
            operator(*args, **kwargs)
        with pytest.raises(NeedsValues):
            shapes.outcome_of(operator, args, kwargs, CPU)


# What torch refuses as well, though its meta kernels answer.
TAKEN_ON_META: Table = {
    "mm": [lambda: (r(2, 3), r(3, 4).double())],
    "bmm": [lambda: (r(2, 3, 4), half(2, 4, 5))],
    "addmm": [
        lambda: (r(4).double(), r(2, 3), r(3, 4)),
        lambda: (r(4), r(2, 3), half(3, 4)),
        lambda: (r(1, 2, 4), r(2, 3), r(3, 4)),
    ],
    "baddbmm": [lambda: (half(5), r(2, 3, 4), r(2, 4, 5))],
    "_softmax": [lambda: (r(3, 4), 2, False), lambda: (WHOLE, 0, False)],
    "_log_softmax": [lambda: (r(3, 4), -3, False), lambda: (WHOLE > 0, 0, False)],
    "gelu": [lambda: (WHOLE,)],
    **dict.fromkeys(IN_PLACE, EXPANDED),
    **dict.fromkeys(TWO_IN_PLACE, EXPANDED_FIRST),
}


@pytest.mark.parametrize("name", TAKEN_ON_META)
def test_a_rule_refuses_what_only_meta_kernels_take(name: str) -> None:
    """A model that cannot run has no numbers."""
    for operator, args, kwargs in calls(name, TAKEN_ON_META[name]):
        with pytest.raises((RuntimeError, IndexError)), torch.no_grad():
            operator(*args, **kwargs)
        with pytest.raises(NeedsValues, match="torch refuses"):
            shapes.outcome_of(operator, args, kwargs, CPU)


LAYOUTS: dict[tuple[tuple[int, ...], tuple[int, ...]], Any] = {
    ((), ()): contiguous,
    ((2, 3), (3, 1)): contiguous,
    ((2, 3), (4, 1)): None,
    ((2, 3), (1, 2)): None,
    ((0, 3), (3, 1)): contiguous,
    ((2, 3, 2, 2), (12, 4, 2, 1)): contiguous,
    ((2, 3, 2, 2), (12, 1, 6, 3)): channels_last,
    ((2, 3, 2, 2), (24, 1, 12, 6)): None,
    ((2, 3, 2, 1), (6, 1, 3, 3)): channels_last,
    ((2, 3, 2, 2, 2), (24, 1, 12, 6, 3)): channels_last,
    ((2, 3, 4), (12, 1, 3)): None,
    ((2, 3, 1, 1), (3, 1, 3, 3)): None,  # contiguous as well
    ((2, 1, 2, 2), (4, 1, 2, 1)): None,
    ((0, 3, 2, 2), (12, 1, 6, 3)): None,
}


@pytest.mark.parametrize(("size", "stride"), LAYOUTS)
def test_the_layout_of_a_tensor(size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    """Known only where it is so to the stride, and nothing else."""
    tensor = spec(size, stride, torch.float32, CPU)
    assert layout_of(tensor) is LAYOUTS[size, stride]


def test_rules_are_of_a_cpu() -> None:
    """Other devices lay out what they give in their own ways."""
    for name in ANSWERED:
        for operator, _, _ in calls(name, ANSWERED[name][:1]):
            assert rule_for(operator, "cuda") is None
