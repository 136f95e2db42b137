"""The body of a test as the workload: run again, once counted, and again to be timed."""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.naming import joint_name
from pytest_nnscale.observation import Observation

if TYPE_CHECKING:
    from torch import nn

    from pytest_nnscale.counting.counter import Counter

_USE_THE_FIXTURE = "use the fixture: def test_...(nnscale): nnscale(model, x)"
_BENCHMARK_UNSEEN = (
    "what it benchmarks was not seen: the test was marked, or asked for benchmark, while it ran, "
    "or pytest-benchmark works in a way that is not known here"
)
_SHOW_THE_BENCHMARK = "write the mark on the test, and take benchmark as one of its arguments"
# What runs a test, and what runs async ones alone.
_LETS_BE = ("_pytest.", "anyio.", "pytest_asyncio.")
_OWN_NUMERICS = "the whole test body was measured, its own numerics included"


def observe_body(item: pytest.Item) -> Observation:
    """Run a test's body a second time under a counter, on the fixtures it already has.

    The first run is over, and its outcome stands. `item.runtest` is called rather than the test
    function, which for an async test would only make a coroutine. Whatever the second run changes
    in tensors and modules is put back. No count says that it could not run twice, and why.
    """
    unrepeatable = _why_unrepeatable(item)
    if unrepeatable:
        return Observation(item.name, reason=unrepeatable, remedy=_USE_THE_FIXTURE)
    if _has_benchmarked(item):
        return Observation(item.name, reason=_BENCHMARK_UNSEEN, remedy=_SHOW_THE_BENCHMARK)
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.observing import ran_on
    from pytest_nnscale.preservation.keepsake import preserved

    counter = Counter(preserve=True)
    failure: BaseException | None = None
    with preserved(modules_in(getattr(item, "funcargs", {}))):
        try:
            with counter:
                _run_again(item)
        except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
            failure = error
        finally:
            counter.restore()
    if failure is not None:
        first, *_ = str(failure).strip().splitlines() or ["no message"]
        return Observation(
            item.name,
            reason=f"the test body cannot run twice: {type(failure).__name__}: {first}",
            remedy=_USE_THE_FIXTURE,
        )
    count, untimed = counter.count(), _why_untimed(item)
    return Observation(
        joint_name(counter.roots) or item.name,
        counter.roots,
        count,
        repeat=None if untimed else _repeat_of(item),
        guard=partial(_repeating, item, counter),
        device=ran_on(counter, "cpu"),
        reason=untimed,
        remedy=_USE_THE_FIXTURE if untimed else "",
        notes=(_OWN_NUMERICS,),
        elsewhere=counter.parameters_elsewhere,
        written=counter.written,
        time_notes=(_OWN_NUMERICS,),
        empty=None if untimed else _empty_of(item),
    )


def _repeat_of(item: pytest.Item) -> Callable[[], object]:
    """Return what runs a body once more, with as little of pytest around it as can be."""
    if not _is_plain(item):
        return item.runtest
    function: Any = item
    arguments = {name: function.funcargs[name] for name in function._fixtureinfo.argnames}
    return partial(function.obj, **arguments)


def _is_plain(item: pytest.Item) -> bool:
    """Tell whether to run a test is to call its function: no plugin that might do more is asked."""
    if not isinstance(item, pytest.Function) or type(item).runtest is not pytest.Function.runtest:
        return False
    asked = item.ihook.pytest_pyfunc_call.get_hookimpls()
    # They leave a function that is not async to pytest.
    return all(each.function.__module__.startswith(_LETS_BE) for each in asked)


def _empty_of(item: pytest.Item) -> Callable[[], object] | None:
    """Return what does all that a repeat does beside the body, where that is more than a call."""
    if _is_plain(item) or not isinstance(item, pytest.Function):
        return None
    return partial(_run_empty, item)


def _run_empty(item: pytest.Item) -> None:
    """Run a test as a repeat does, with an empty body."""
    function: Any = item
    body = function.obj
    function.obj = _nothing
    try:
        function.runtest()
    finally:
        function.obj = body


def _nothing(**_fixtures: object) -> None:
    """Take no time."""


@contextlib.contextmanager
def _repeating(item: pytest.Item, counter: Counter) -> Iterator[None]:
    """Stand around all repeats of a body: in each of them it would be timed with it."""
    from pytest_nnscale.preservation.keepsake import preserved

    told = len(item.user_properties)
    try:
        with preserved(counter.roots, counter.written), _quietly(item):
            yield
    except (pytest.fail.Exception, pytest.skip.Exception) as error:
        first, *_ = str(error).strip().splitlines() or ["no message"]
        raise CannotMeasure(
            f"the test body ended otherwise when it was repeated: {first}", remedy=_USE_THE_FIXTURE
        ) from error
    finally:
        del item.user_properties[told:]


def modules_in(values: dict[str, Any]) -> list[nn.Module]:
    """Return the models among fixtures: a test may change them before it calls them."""
    from torch import nn
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(values) if isinstance(leaf, nn.Module)]


def _run_again(item: pytest.Item) -> None:
    told = len(item.user_properties)
    try:
        with _quietly(item), _without_subtests(item) as failed:
            item.runtest()
    finally:
        del item.user_properties[told:]
    # A unittest case keeps its failures to itself.
    excinfo = getattr(item, "_excinfo", None)
    if excinfo:
        item._excinfo = None  # type: ignore[attr-defined]
        raise excinfo[0].value
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _quietly(item: pytest.Item) -> Iterator[None]:
    """Drop what a repeat prints and warns of: the first run has said it."""
    capture = item.config.pluginmanager.get_plugin("capturemanager")
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        if (
            capture is not None and capture.is_globally_capturing()
        ):  # also what is written past sys.stdout
            capture.resume_global_capture()
            stack.callback(capture.read_global_capture)
            stack.callback(capture.suspend_global_capture, in_=False)
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


@contextlib.contextmanager
def _without_subtests(item: Any) -> Iterator[list[BaseException]]:
    """Keep subtests of a unittest case from being reported again; yield what they raise."""
    failed: list[BaseException] = []
    if not hasattr(item, "addSubTest"):
        yield failed
        return
    item.addSubTest = lambda _case, _test, info: failed.append(info[1]) if info else None
    try:
        yield failed
    finally:
        del item.addSubTest


def _why_unrepeatable(item: pytest.Item) -> str:
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        return "hypothesis runs the body many times, on inputs that it draws"
    if "subtests" in getattr(item, "funcargs", {}):
        return "a second run would report the subtests of the body again"
    return ""


def _has_benchmarked(item: pytest.Item) -> bool:
    """Tell whether pytest-benchmark's fixture, which allows one use, has had it."""
    fixtures = getattr(getattr(item, "_request", None), "_fixture_defs", {})
    made = getattr(fixtures.get("benchmark"), "cached_result", None)
    fixture: Any = made[0] if made else None
    return type(fixture).__module__ == "pytest_benchmark.fixture" and bool(fixture._mode)


def _why_untimed(item: pytest.Item) -> str:
    function = getattr(item, "obj", None)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "the body of an async test cannot be timed: its event loop would be timed with it"
    if hasattr(item, "_excinfo") and type(item).__name__ == "TestCaseFunction":
        return "the body of a unittest case cannot be timed: setUp and tearDown run with it"
    return ""
