"""A quiet machine: who waits for whom, between real processes."""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.ancestry import VARIABLE, inherited
from pytest_nnscale.timing.board import GATE, Board, Queue
from pytest_nnscale.timing.hold import ALONE, TEST, Hold, kind_of
from pytest_nnscale.timing.quiet import Quiet

SOON_S = 20.0  # by then all that is not held off has happened, also on a busy machine
A_WHILE_S = 0.3  # whoever has not answered by then is held off
IN = "in"
posix = pytest.mark.skipif(os.name == "nt", reason="needs fork, modes or signals of POSIX")


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be called the same below xdist as without."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


PROGRAM = """
import os, sys, time
from contextlib import ExitStack
from pathlib import Path
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing import quiet as room
from pytest_nnscale.timing.quiet import Quiet

if sys.argv[3] == "stranger":
    room.ancestors = frozenset
quiet = Quiet(float(sys.argv[2]), folder=Path(sys.argv[1]), kind_of=lambda device: device)
inside = []
for line in sys.stdin:
    verb, what = line.split()
    try:
        if verb == "leave":
            inside.pop().close()
        elif verb == "fork":
            if not os.fork():
                os.close(0), os.close(1), os.close(2)
                time.sleep(float(what))
                os._exit(0)
        elif verb == "come-and-go":
            print("begun", flush=True)
            while True:
                with quiet.testing("short"):
                    time.sleep(float(what))
        else:
            stack = ExitStack()
            enter = {"test": quiet.testing, "measure": quiet.measuring}[verb]
            stack.enter_context(enter(what))
            inside.append(stack)
        print("in", flush=True)
    except CannotMeasure as error:
        print(error.reason, flush=True)
"""


class Other:
    """A process that comes in and leaves as it is told, and says when it has."""

    def __init__(self, folder: Path, max_wait_s: float = 60.0, kin: str = "stranger") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(max_wait_s), kin],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line.strip())

    def told(self, verb: str, what: str = "-") -> Other:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {what}\n")
        self.process.stdin.flush()
        return self

    def answer(self, seconds: float = SOON_S) -> str | None:
        """Return what it says next; None where it says nothing for so long."""
        try:
            return self._said.get(timeout=seconds)
        except queue.Empty:
            return None

    @property
    def waits(self) -> bool:
        """Whether it has not come in after a while."""
        return self.answer(A_WHILE_S) is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "holds"


@pytest.fixture
def other(folder: Path) -> Iterator[Callable[..., Other]]:
    """Return what starts another process on the same folder."""
    with ExitStack() as stack:

        def start(max_wait_s: float = 60.0, kin: str = "stranger") -> Other:
            started = Other(folder, max_wait_s, kin)
            stack.callback(started.close)
            return started

        yield start


def inside(one: Other, *words: str) -> Other:
    """Tell a process to come in, and see that it does."""
    assert one.told(*words).answer() == IN
    return one


def who_is_first(one: Other, two: Other) -> tuple[Other, Other]:
    """Wait until one of two has come in; return it, and the other."""
    for first, second in itertools.islice(itertools.cycle([(one, two), (two, one)]), 400):
        if first.answer(SOON_S / 400) == IN:
            return first, second
    pytest.fail("neither has come in")


def quiet_in(folder: Path, max_wait_s: float = SOON_S) -> Quiet:
    return Quiet(max_wait_s, folder=folder, kind_of=lambda device: device)


Start = Callable[..., Other]


def test_tests_go_on_side_by_side(other: Start) -> None:
    """Only measurements hold anybody off."""
    one, two = other(), other()
    inside(one, "test", "a")
    inside(two, "test", "b")


def test_a_measurement_waits_for_the_tests_that_run(other: Start) -> None:
    """And begins as soon as the last has ended."""
    one, two, three = other(), other(), other()
    inside(one, "test", "a")
    inside(two, "test", "b")
    three.told("measure", ALONE)
    assert three.waits
    inside(one, "leave")
    assert three.waits
    inside(two, "leave")
    assert three.answer() == IN


def test_a_test_waits_for_the_measurement_that_goes_on(other: Start) -> None:
    """It would be noise."""
    one, two = other(), other()
    inside(one, "measure", ALONE)
    assert two.told("test", "a").waits
    inside(one, "leave")
    assert two.answer() == IN


def test_two_that_ask_at_once_take_turns(other: Start) -> None:
    """Each is inside a test, for which the other would wait for ever; each lends its own."""
    one, two = other(), other()
    inside(one, "test", "a")
    inside(two, "test", "b")
    one.told("measure", ALONE)
    two.told("measure", ALONE)
    first, second = who_is_first(one, two)
    assert second.waits
    assert first.told("leave").waits  # its test may go on only when nobody measures
    assert second.answer() == IN
    second.told("leave")
    assert {first.answer(), second.answer()} == {IN}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, pytest.fail.Exception])
def test_what_was_lent_is_taken_back(
    other: Start, folder: Path, error: type[BaseException]
) -> None:
    """Also where the measurement raised, was interrupted, or ended the test."""
    one, quiet = other(), quiet_in(folder)

    def measure() -> None:
        with quiet.measuring(ALONE):
            raise error

    with quiet.testing("a"):
        with quiet.measuring(ALONE):
            pass
        assert one.told("measure", ALONE).waits
    assert one.answer() == IN
    inside(one, "leave")
    with quiet.testing("a"):
        with pytest.raises(error):
            measure()
        assert one.told("measure", ALONE).waits
    assert one.answer() == IN


def test_who_waits_is_not_overtaken(other: Start) -> None:
    """A test that starts later queues behind the measurement, and so does another measurement."""
    one, two, three, four = other(), other(), other(), other()
    inside(one, "test", "a")
    assert two.told("measure", ALONE).waits
    assert three.told("test", "b").waits
    assert four.told("measure", ALONE).waits
    inside(one, "leave")
    assert two.answer() == IN


def test_tests_that_come_and_go_let_a_measurement_in(other: Start, folder: Path) -> None:
    """Three workers with short tests, of which one is always inside."""
    for each_s in (0.2, 0.23, 0.27):
        assert other().told("come-and-go", str(each_s)).answer() == "begun"
    with quiet_in(folder, SOON_S / 2).measuring(ALONE):
        pass


@pytest.mark.parametrize("doing", ["test", "measure"])
def test_the_hold_of_a_killed_process_goes_with_it(other: Start, doing: str) -> None:
    """SIGKILL leaves no time to clean up: the operating system drops its locks."""
    one, two, three = other(), other(), other()
    inside(one, doing, ALONE)
    assert two.told("measure", ALONE).waits
    one.kill()
    assert two.answer() == IN
    inside(two, "leave")
    inside(three, "test", "b")


def test_one_that_is_killed_while_it_waits_holds_nobody_off(other: Start) -> None:
    """It had shut the gate."""
    one, two, three = other(), other(), other()
    inside(one, "test", "a")
    assert two.told("measure", ALONE).waits
    assert three.told("test", "b").waits
    two.kill()
    assert three.answer() == IN


@posix
def test_children_that_were_forked_keep_no_hold(other: Start) -> None:
    """A data loader's workers live on for a while when their parent is killed."""
    one, two = other(), other()
    inside(one, "test", "a")
    inside(one, "fork", "60")
    one.kill()
    inside(two, "measure", ALONE)


def test_waiting_ends_and_says_what_it_waited_for(other: Start, folder: Path) -> None:
    """Which test, in which process, and what to do: never a measurement as if it were quiet."""
    one = inside(other(), "test", "test_it.py::test_long[a-b]")
    with pytest.raises(CannotMeasure) as refused, quiet_in(folder, 0.2).measuring(ALONE):
        pytest.fail("it was measured")
    assert refused.value.reason == (
        "waited 0.2 s for a quiet machine, and still there: "
        f"test_it.py::test_long[a-b] (process {one.process.pid})"
    )
    assert refused.value.remedy == "let it end first, or wait longer: --nnscale-max-wait"
    inside(one, "leave")
    with quiet_in(folder).measuring(ALONE):
        pass


def test_the_message_names_the_worker(other: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under xdist a process id says little."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    one, two = other(), other(0.2)
    inside(one, "test", "test_it.py::test_long")
    said = two.told("measure", ALONE).answer()
    assert said is not None
    assert said.endswith(f"test_it.py::test_long (gw3, process {one.process.pid})")


def test_a_name_of_any_length_and_script_can_be_told(other: Start, folder: Path) -> None:
    """A file's name has 255 bytes, and no slash."""
    names = ["ß/" * 3, "test_" + "ж" * 500, "a,b\n\0c", "%C3%", ""]
    for name in names:
        with quiet_in(folder).testing(name):
            (hold,) = Board(folder).in_the_way(Hold.new(ALONE, ""))
            shown = str(hold).rpartition(" (process ")[0]
            assert shown == name or (len(name) > 99 and shown.endswith("жжж"))


def test_who_waits_at_the_shut_gate_ends_as_well(other: Start) -> None:
    """Others wait there for one that waits longer."""
    one, two, three = other(), other(), other(0.2)
    inside(one, "test", "a")
    assert two.told("measure", ALONE).waits
    said = three.told("measure", ALONE).answer()
    assert said is not None
    assert said.startswith("waited 0.2 s for a quiet machine, and still there: ")
    assert f"a (process {one.process.pid})" in said


def test_a_test_that_waited_too_long_goes_on_and_says_so(other: Start) -> None:
    """It must run some time; what is measured meanwhile does not count."""
    one, two = other(), other(0.2)
    inside(one, "measure", ALONE)
    inside(two, "test", "test_it.py::test_b")
    assert one.told("leave").answer() == (
        "the machine was not quiet: test_it.py::test_b went on before it had ended, "
        "after waiting 0.2 s"
    )


def test_so_does_one_that_waited_at_the_gate(other: Start) -> None:
    """Somebody else keeps it shut, in vain; the next measurement is none the worse."""
    one, two, three = other(), other(), other(0.2)
    inside(one, "test", "a")
    assert two.told("measure", ALONE).waits
    inside(three, "test", "b")
    inside(one, "leave")
    assert two.waits
    inside(three, "leave")
    assert two.answer() == IN
    assert two.told("leave").answer() == IN


def test_so_does_one_that_waited_behind_another(other: Start) -> None:
    """Who waits for the measurement keeps the gate shut, where the next gives up."""
    one, two, three = other(), other(), other(0.2)
    inside(one, "measure", ALONE)
    assert two.told("measure", ALONE).waits
    inside(three, "test", "b")
    said = one.told("leave").answer()
    assert said is not None
    assert said.startswith("the machine was not quiet: b went on")


def test_one_that_takes_back_late_says_so(other: Start) -> None:
    """Its test goes on as any other would."""
    one, two, three = other(0.5), other(), other()
    inside(one, "test", "a")
    inside(one, "measure", ALONE)
    two.told("measure", ALONE)
    assert two.waits
    one.told("leave")
    assert two.answer() == IN
    assert one.answer() == IN  # after half a second
    said = two.told("leave").answer()
    assert said is not None
    assert said.startswith("the machine was not quiet: a went on")
    inside(three, "test", "c")


GPUS = ("cuda-GPU-1", "cuda-GPU-2")


@pytest.mark.parametrize(
    ("one", "two"), [*itertools.combinations_with_replacement((TEST, ALONE, *GPUS), 2)]
)
def test_who_bears_whom(one: str, two: str) -> None:
    """Tests each other, and measurements those on another GPU: nobody else, and both ways alike."""
    here, there = Hold.new(one, "a"), Hold.new(two, "b")
    assert here.bears(there) == ((one, two) in {(TEST, TEST), GPUS})
    assert here.bears(there) == there.bears(here)


def test_two_gpus_are_measured_side_by_side(other: Start) -> None:
    """The same one and the CPU are not, and a test waits for both."""
    one, two, three, four = other(), other(), other(), other()
    inside(one, "measure", GPUS[0])
    inside(two, "measure", GPUS[1])
    assert three.told("measure", GPUS[0]).waits
    inside(one, "leave")
    assert three.answer() == IN
    assert four.told("test", "a").waits
    inside(two, "leave")
    assert four.waits
    inside(three, "leave")
    assert four.answer() == IN


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda:97"])
def test_what_is_no_gpu_with_a_uuid_is_measured_alone(device: str) -> None:
    """All others wait: too quiet at worst."""
    assert kind_of(device) == ALONE


@pytest.mark.gpu
def test_a_gpu_goes_by_its_uuid() -> None:
    """With an index and without one, it is the same."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert kind_of("cuda:0").startswith("cuda-")
    assert kind_of("cuda:0") == kind_of("cuda")


def test_a_process_below_a_test_does_not_wait_for_it(other: Start, folder: Path) -> None:
    """The test waits for the process: it lends the test's hold, and gives it back."""
    foreign = other()
    with quiet_in(folder).testing("outer"):
        child = other()
        inside(child, "test", "inner")
        inside(child, "measure", ALONE)
        assert foreign.told("test", "b").waits
        inside(child, "leave")
        assert foreign.answer() == IN
        inside(foreign, "leave")
        assert foreign.told("measure", ALONE).waits
        inside(child, "leave")
        assert foreign.waits  # the outer test counts again
    assert foreign.answer() == IN


def test_a_session_below_a_test_in_its_own_process_does_not_wait_for_it(folder: Path) -> None:
    """As with pytester's runpytest_inprocess."""
    with quiet_in(folder).testing("outer"):
        inner = Quiet(SOON_S)
        with inner.testing("inner"), inner.measuring("cpu"):
            pass
        assert len(json.loads(os.environ[VARIABLE])) == 2
    assert VARIABLE not in os.environ


def test_two_tests_with_processes_below_them_take_turns(other: Start, folder: Path) -> None:
    """A stranger that measures waits for the outer test, whose child waits for the stranger."""
    stranger = inside(other(), "test", "b")
    with quiet_in(folder).testing("outer"):
        child = inside(other(), "test", "inner")
        stranger.told("measure", ALONE)
        child.told("measure", ALONE)
        first, second = who_is_first(stranger, child)
        assert second.waits
        first.told("leave")
        assert second.answer() == IN
        second.told("leave")
        assert {first.answer(), second.answer()} == {IN}


def test_tests_below_a_test_come_in_while_others_wait_for_it(other: Start, folder: Path) -> None:
    """The gate is shut for the outer test to end, which needs the inner ones to run."""
    stranger = other()
    with quiet_in(folder).testing("outer"):
        stranger.told("measure", ALONE)
        assert stranger.waits
        inside(other(), "test", "inner")
        inner = Quiet(SOON_S)
        with inner.testing("inner"):
            pass
    assert stranger.waits  # the child runs on
    assert stranger.answer(0) is None


def test_processes_below_a_test_wait_for_each_other(other: Start, folder: Path) -> None:
    """As the workers of an inner session do."""
    with quiet_in(folder).testing("outer"):
        one, two, three = other(), other(), other()
        inside(one, "test", "a")
        inside(two, "test", "b")
        assert two.told("measure", ALONE).waits
        assert three.told("test", "c").waits  # what it would come in by is lent
        inside(one, "leave")
        assert two.answer() == IN
        assert three.waits
        inside(two, "leave")
        assert three.answer() == IN


def test_what_a_killed_child_had_lent_counts_again(other: Start, folder: Path) -> None:
    """Nobody would give it back otherwise."""
    foreign = other()
    with quiet_in(folder).testing("outer"):
        child = inside(other(), "measure", ALONE)
        child.kill()
        assert foreign.told("measure", ALONE).waits
    assert foreign.answer() == IN


def test_a_measurement_in_which_another_is_made_does_not_count(folder: Path) -> None:
    """The inner one waited, and others may have come in."""
    quiet = quiet_in(folder)
    with (
        pytest.raises(CannotMeasure) as refused,
        quiet.measuring(ALONE),
        Quiet(SOON_S).measuring("cpu"),
    ):
        pass
    assert refused.value.reason == (
        "the machine was not quiet: a session below it measured for itself"
    )
    assert refused.value.remedy == "measure in one of the two, not in both"


HOLD = "hold,test,0123456789abcdef,,process%201,outer"


@pytest.mark.parametrize(
    "told",
    [
        "", "{", "3", "[3]", '"ab"', "[]", '["/tmp"]', '["/nowhere", "x"]', '["/tmp", "x"]', '["/tmp", 3]',
        json.dumps([".", HOLD]), json.dumps(["/nowhere", HOLD]), json.dumps([__file__, HOLD]),
    ],
)  # fmt: skip
def test_a_variable_that_is_not_ours_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str
) -> None:
    """Whoever has set it: locks stand where they would without, and nothing else is made."""
    monkeypatch.setenv(VARIABLE, told)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(here)
    assert Hold.is_meant(HOLD)
    assert inherited() == (None, [])
    with Quiet(SOON_S).testing("a"):
        assert {path.name for path in tmp_path.iterdir()} == {"here", Board.of_user().folder.name}
    assert not [*here.iterdir()]
    assert os.environ[VARIABLE] == told


def test_the_folder_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that changes the place for temporary files still measures where the others hold."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    here, there = Quiet(0.1), Quiet(0.1)
    with here.testing("a"):
        monkeypatch.delenv(VARIABLE)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
        with pytest.raises(CannotMeasure, match="still there: a "), there.measuring("cpu"):
            pytest.fail("it was measured")


def test_no_place_for_temporary_files_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run, and nothing is measured."""

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    quiet = Quiet()
    refused = pytest.raises(CannotMeasure, match="no folder for locks: No usable")
    with quiet.testing("a"), refused, quiet.measuring("cpu"):
        pytest.fail("it was measured")
    assert quiet.refusal is not None


@posix
def test_locks_never_stand_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes it for want of another; where TMPDIR names it, it is meant."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    quiet = Quiet()
    refused = pytest.raises(CannotMeasure, match="the working directory")
    with quiet.testing("a"), refused, quiet.measuring("cpu"):
        pytest.fail("it was measured")
    assert not [*tmp_path.iterdir()]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Quiet().measuring("cpu"):
        pass


class Short(Board):
    """A folder on a file system whose names have few bytes."""

    longest = 0

    def take(self, name: str, *, until_s: float = 0.0) -> Any:
        if len(name) > self.longest:
            raise self._refusal("File name too long")
        return super().take(name, until_s=until_s)


@pytest.fixture
def short(folder: Path) -> Quiet:
    quiet = quiet_in(folder)
    quiet._board = Short(folder)
    return quiet


def test_a_test_holds_by_a_shorter_name_where_it_must(short: Quiet, folder: Path) -> None:
    """It would be measured through otherwise."""
    Short.longest = 110
    with short.testing("test_it.py::" + "a" * 100):
        (hold,) = Board(folder).holds()
        assert str(hold).startswith("aaaa")
        with short.measuring(ALONE):
            pass
    assert short.refusal is None


def test_a_session_whose_tests_cannot_hold_measures_nothing(short: Quiet) -> None:
    """The test runs, unseen by others; `refusal` says so."""
    Short.longest = 30
    with short.testing("a"):
        assert short.refusal is not None
    Short.longest = 255
    refused = pytest.raises(CannotMeasure, match="File name too long")
    with short.testing("b"), refused, short.measuring(ALONE):
        pytest.fail("it was measured")


def test_what_outlasted_one_wait_is_not_waited_for_again(other: Start, folder: Path) -> None:
    """A forgotten debugger costs one wait, not one a budget."""
    one, quiet = inside(other(), "test", "forgotten"), quiet_in(folder, 0.3)
    with pytest.raises(CannotMeasure, match=r"waited 0\.3 s"), quiet.measuring(ALONE):
        pytest.fail("it was measured")
    begun_s = time.monotonic()
    refused = pytest.raises(CannotMeasure, match="in vain, and still there: forgotten ")
    quiet._max_wait_s = 3600.0
    with refused, quiet.measuring(ALONE):
        pytest.fail("it was measured")
    assert time.monotonic() - begun_s < SOON_S
    inside(one, "leave")
    with quiet.measuring(ALONE):
        pass


@posix
def test_a_child_with_a_fresh_environment_does_not_wait_for_its_parent(
    other: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by the ids of the processes above it."""
    with quiet_in(folder).testing("outer"):
        monkeypatch.delenv(VARIABLE)
        stranger, child = other(0.3), other(kin="child")
        inside(child, "test", "inner")
        inside(child, "measure", ALONE)
        inside(child, "leave")
        inside(child, "leave")
        said = stranger.told("measure", ALONE).answer()
        assert said is not None
        assert "still there: outer" in said
        monkeypatch.undo()


def test_a_test_that_is_looked_at_holds_nobody_off(other: Start, folder: Path) -> None:
    """A debugger waits for a person; afterwards the test waits until nobody measures."""
    one, quiet = other(), quiet_in(folder)
    with quiet.testing("a"):
        with quiet.lending():
            inside(one, "measure", ALONE)
            inside(one, "leave")
        assert one.told("measure", ALONE).waits
    assert one.answer() == IN


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_is_interrupted_waits_for_nobody(
    other: Start, folder: Path, error: type[BaseException]
) -> None:
    """Ctrl-C takes effect at once, and who measures meanwhile is told."""
    one, quiet = other(), quiet_in(folder, 3600.0)
    begun_s = time.monotonic()
    with quiet.testing("a"), ExitStack() as measured:
        measured.enter_context(quiet.measuring(ALONE))
        one.told("measure", ALONE)
        assert one.waits
        with pytest.raises(error), measured.pop_all():
            raise error
    assert time.monotonic() - begun_s < SOON_S
    assert one.answer() == IN


def test_the_first_to_come_is_the_first_to_pass(folder: Path) -> None:
    """Whoever comes anew waits behind those that have a ticket."""
    board = Board(folder)
    board.open()
    gate = board.take(GATE)
    assert gate is not None
    one, two, three = Queue(board), Queue(board), Queue(board)
    assert one.pass_gate() is two.pass_gate() is None
    board.release(gate)
    assert three.pass_gate() is None
    assert two.pass_gate() is None
    gate = one.pass_gate()
    assert gate is not None
    one.close()
    board.release(gate)
    assert three.pass_gate() is None
    gate = two.pass_gate()
    assert gate is not None
    two.close()
    three.close()
    board.release(gate)


def test_a_measurement_says_that_it_waited_long(folder: Path) -> None:
    """And nothing after a short wait."""
    quiet = quiet_in(folder)
    with quiet.measuring(ALONE):
        pass
    assert quiet.take_notes() == ()


def test_on_a_worker_without_turns_a_measurement_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tests of its session went on beside it."""
    quiet = quiet_in(folder)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    with quiet.measuring(ALONE):
        pass
    assert quiet.take_notes() == ("the other tests of this session were not held off",)
    with quiet.testing("a"), quiet.measuring(ALONE):
        pass
    assert quiet.take_notes() == ()


@posix
def test_a_file_system_without_locks_is_a_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """What filelock does there instead outlives a process that is killed."""
    import errno
    import fcntl

    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(CannotMeasure, match="not implemented"), quiet_in(folder).measuring(ALONE):
        pytest.fail("it was measured")
    assert not recwarn.list


def test_what_cannot_be_read_is_a_reason(folder: Path) -> None:
    """A folder where a note should be, say."""
    board, mine = Board(folder), Hold.new(ALONE, "a")
    board.open()
    (folder / f"note,{mine.token}").mkdir()
    with pytest.raises(CannotMeasure, match="nothing can be locked"):
        board.read_note(mine)
    assert board.in_the_way(mine, at_gate=True) == []


def test_nothing_is_left_but_the_gate(other: Start, folder: Path) -> None:
    """Also of those that were killed, once the next has looked."""
    one = inside(other(), "test", "a")
    inside(one, "measure", ALONE)
    one.kill()
    two = inside(other(), "measure", ALONE)
    two.kill()
    for hold in (Hold.new(ALONE, "a"), Hold.new(TEST, "b")):
        Board(folder).note(hold, "of one that is gone")
    quiet = quiet_in(folder)
    with quiet.testing("a"), quiet.measuring(ALONE):
        pass
    assert [path.name for path in folder.iterdir()] == [GATE]


@posix
def test_only_the_user_can_look_into_the_folder(folder: Path) -> None:
    """What another could lock there would hold everybody off."""
    with quiet_in(folder).testing("a"):
        assert folder.stat().st_mode & 0o777 == 0o700


@posix
def test_each_user_has_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that for temporary files, so that a second user finds nothing that is not theirs."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Quiet().measuring("cpu"):
        assert [path.name for path in tmp_path.iterdir()] == [f"pytest-nnscale-{os.getuid()}"]


@posix
@pytest.mark.parametrize(
    ("planted", "why"),
    [
        ("a file", "it is no folder"),
        ("a link", "it is no folder"),
        ("open to all", "others than you can write there"),
    ],
)
def test_a_folder_that_is_not_the_users_is_not_used(folder: Path, planted: str, why: str) -> None:
    """Tests run, and nothing is measured."""
    if planted == "a file":
        folder.write_text("")
    elif planted == "a link":
        folder.symlink_to(folder.parent)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    quiet = quiet_in(folder)
    with quiet.testing("a"), pytest.raises(CannotMeasure) as refused, quiet.measuring(ALONE):
        pytest.fail("it was measured")
    assert refused.value.reason == (
        f"other tests cannot be held off, since nothing can be locked in {folder}: {why}"
    )
    assert "TMPDIR" in refused.value.remedy


def test_a_folder_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    """Where there is no place for temporary files."""
    quiet = quiet_in(tmp_path / "gone" / "holds")
    refused = pytest.raises(CannotMeasure, match="nothing can be locked")
    with quiet.testing("a"), refused, quiet.measuring(ALONE):
        pytest.fail("it was measured")


def test_a_folder_that_goes_away_meanwhile_stops_no_test(folder: Path) -> None:
    """Somebody cleans up in the place for temporary files."""
    quiet = quiet_in(folder)
    with quiet.testing("a"), quiet.measuring(ALONE):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    with quiet.testing("b"), quiet.measuring(ALONE):
        pass


def test_locks_are_not_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """filelock tells every attempt at level DEBUG, and the log belongs to the user's test."""
    caplog.set_level(logging.DEBUG)
    quiet = quiet_in(folder)
    with quiet.testing("a"), quiet.measuring(ALONE):
        pass
    assert caplog.records == []
    logging.getLogger("filelock").debug("another's")
    assert len(caplog.records) == 1
