"""The body of a test as the workload: run again, once counted, and again to be timed."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator

import pytest

from pytest_nnscale.naming import joint_name
from pytest_nnscale.observation import Observation

_USE_THE_FIXTURE = "use the fixture: def test_...(nnscale): nnscale(model, x)"
_OWN_NUMERICS = "the whole test body was measured, its own numerics included"


def observe_body(item: pytest.Item) -> Observation:
    """Run a test's body a second time under a counter, on the fixtures it already has.

    The first run is over, and its outcome stands. `item.runtest` is called rather than the test
    function, which for an async test would only make a coroutine. Whatever the second run changes
    in tensors and modules is put back.
    """
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.preservation import preserved

    counter = Counter(preserve=True)
    failure: BaseException | None = None
    with preserved(()):
        try:
            with counter:
                _run_again(item)
        except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
            failure = error
        finally:
            counter.restore()
    count = counter.count()
    if failure is not None:
        return Observation(
            item.name,
            # Without a single operator there was no workload that failed.
            count=None if count.operators else count,
            reason=f"the test body cannot run twice: {type(failure).__name__}: "
            + (str(failure).strip().splitlines() or ["no message"])[0],
            remedy=_USE_THE_FIXTURE,
        )
    untimed = _why_untimed(item)
    return Observation(
        joint_name(counter.roots) or item.name,
        counter.roots,
        count,
        repeat=None if untimed else lambda: _run_again(item),
        guard=lambda: preserved(counter.roots, counter.written),
        device=next((d for d in count.devices if d not in ("cpu", "meta")), "cpu"),
        reason=untimed,
        remedy=_USE_THE_FIXTURE if untimed else "",
        notes=(_OWN_NUMERICS,),
    )


def _run_again(item: pytest.Item) -> None:
    with _quietly():
        item.runtest()
    # A unittest case keeps its failures to itself.
    excinfo = getattr(item, "_excinfo", None)
    if excinfo:
        item._excinfo = None  # type: ignore[attr-defined]
        raise excinfo[0].value


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Drop what a repeat prints and warns of: the first run has said it."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _why_untimed(item: pytest.Item) -> str:
    function = getattr(item, "obj", None)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "the body of an async test cannot be timed: its event loop would be timed with it"
    if hasattr(item, "_excinfo") and type(item).__name__ == "TestCaseFunction":
        return "the body of a unittest case cannot be timed: setUp and tearDown run with it"
    return ""
