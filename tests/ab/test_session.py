"""Sessions with real repositories and real processes: what is compared, and that nothing is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale.ab.comparison import Comparison, Report
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.session import Asked, compare_revisions
from pytest_nnscale.errors import BadOption, CannotCompare

if TYPE_CHECKING:
    from tests.ab.conftest import Project

# Each starts workers, which load torch.
pytestmark = pytest.mark.slow

INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
QUICK = Plan(least=2, calls_s=0.1, max_time_s=0)
MARK = "import pytest\n\n@pytest.mark.max_latency_ms(1)\n"

MODEL = """
import time
import torch
from torch import nn

class Net(nn.Module):
    '''Takes a time that hardly depends on the machine.'''
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(8, 8) for _ in range({depth})])
    def forward(self, x):
        time.sleep({depth} * 0.001)
        return self.layers(x)
"""
TESTS = """
import pytest
import torch
from mine.model import Net

X = torch.rand(2, 8)
{more}

@pytest.mark.max_latency_ms(0.001)
def test_net(nnscale):
    nnscale(Net(), X)

@pytest.mark.max_latency_ms(0.001)
def test_fails(nnscale):
    nnscale(Net(), X)
    assert {works}, "the output is wrong"

def test_without_a_budget():
    raise AssertionError

@pytest.mark.max_latency_ms(0.001)
@pytest.mark.skip(reason="not today")
def test_skipped():
    pass
"""
ONLY = "@pytest.mark.max_latency_ms(1)\ndef test_{name}(nnscale): nnscale(Net(), X)\n"
# What each worker was: its folder, and where the module that it tests came from.
CONFTEST = """
import os
from pathlib import Path

def pytest_collection_finish(session):
    import mine.model
    with open(os.environ["AB_LOG"], "a") as log:
        log.write(f"{Path.cwd()} {mine.model.__file__}\\n")
"""


@pytest.fixture
def compare(project: Project, tmp_path: Path) -> Iterator[Callable[..., Report]]:
    """Return `compare(base, ...)`, after which no worktree and no temporary folder is left."""

    def run(
        base: str = "main", head: str | None = None, *arguments: str, **asked: object
    ) -> Report:
        plan = {"plan": QUICK, **asked}
        folder = project.root / str(plan.pop("folder", "."))
        return compare_revisions(Asked(base, head, arguments, **plan), folder=folder)

    yield run
    assert project.worktrees == []
    assert list(tmp_path.glob("nnscale-ab-*")) == []


def by_test(report: Report) -> dict[str, Comparison]:
    return {comparison.test.partition("::")[2]: comparison for comparison in report.comparisons}


def test_the_working_tree_is_compared_with_a_commit(
    project: Project,
    compare: Callable[..., Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Started in a folder below, and with a PYTHONPATH into the working tree, as if installed."""
    monkeypatch.setenv("AB_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", str(project.root / "part" / "lib"))
    head = {
        "part/lib/mine/__init__.py": "",
        "part/lib/mine/model.py": MODEL.format(depth=12),
        "part/tests/test_net.py": TESTS.format(more=ONLY.format(name="new"), works=False),
        "part/conftest.py": CONFTEST,
        "part/pytest.ini": INI,
    }
    project.commit(
        {
            **head,
            "part/lib/mine/model.py": MODEL.format(depth=2),
            "part/tests/test_net.py": TESTS.format(more=ONLY.format(name="old"), works=True),
        }
    )
    project.write(head)
    before = project.git("status", "--porcelain")
    words = ("-p", "no:cacheprovider", str(project.root / "part" / "tests"))
    report = compare("main", None, *words, folder="part", plan=replace(QUICK, least=3))

    found = by_test(report)
    assert found["test_net"].reason == ""
    assert {name: comparison.change for name, comparison in found.items()} == {
        "test_net": Change.SLOWER,
        "test_fails": Change.UNMEASURED,
        "test_skipped": Change.SKIPPED,
        "test_old": Change.ONLY_IN_BASE,
        "test_new": Change.ONLY_IN_HEAD,
    }
    slower = found["test_net"]
    assert slower.timing is not None
    assert 3 < slower.timing.ratio.value < 8
    assert slower.timing.base_s < 0.008 < 0.012 < slower.timing.head_s
    assert [m.value for m in slower.base if m.metric.value == "flops"] == [2 * 2 * 8 * 8 * 2]
    assert [m.value for m in slower.head if m.metric.value == "flops"] == [12 * 2 * 8 * 8 * 2]
    assert "it fails in head: AssertionError: the output is wrong" in found["test_fails"].reason
    assert report.restarts == 3
    assert report.confidence == 0.99
    assert (report.base.dirty, report.head.dirty) == (False, True)

    # Each side ran its own code, in its own tree and the same folder of it.
    runs = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len(runs) == 6
    assert all(file == f"{cwd}/lib/mine/model.py" for cwd, file in runs)
    assert len({cwd for cwd, _ in runs}) == 2
    assert str(project.root / "part") in {cwd for cwd, _ in runs}
    assert project.git("status", "--porcelain") == before


def test_without_budgets_nothing_is_compared(
    project: Project, compare: Callable[..., Report]
) -> None:
    """One start of each side is enough to know."""
    project.commit({"test_it.py": "def test_it(): pass\n", "pytest.ini": INI})
    report = compare()
    assert (report.comparisons, report.restarts) == ((), 1)


def test_an_old_commit_that_cannot_be_collected_shows_why(
    project: Project, compare: Callable[..., Report]
) -> None:
    """Pytest's own words, and which side it was."""
    project.commit({"test_it.py": f"import nowhere_to_be_found\n{MARK}def test_it(): pass\n"})
    project.write({"test_it.py": f"{MARK}def test_it(): pass\n"})
    with pytest.raises(CannotCompare, match=r"^base \(main .*its tests cannot be coll") as caught:
        compare()
    assert "No module named 'nowhere_to_be_found'" in caught.value.output


def test_a_word_that_pytest_does_not_know_shows_why(
    project: Project, compare: Callable[..., Report]
) -> None:
    """A file that base does not have is one."""
    project.commit()
    project.write({"test_new.py": f"{MARK}def test_it(): pass\n"})
    with pytest.raises(CannotCompare, match=r"^base") as caught:
        compare("main", None, "test_new.py")
    assert "file or directory not found: test_new.py" in caught.value.output


@pytest.mark.parametrize("in_head", [False, True], ids=["commit against tree", "two commits"])
def test_a_base_that_would_measure_heads_code_is_refused(
    project: Project,
    compare: Callable[..., Report],
    monkeypatch: pytest.MonkeyPatch,
    in_head: bool,
) -> None:
    """Base has no such module: the import finds the one of the working tree."""
    monkeypatch.setenv("PYTHONPATH", str(project.root / "lib"))
    test = f"import mine\n{MARK}def test_it(): pass\n"
    project.commit({"test_it.py": test, "pytest.ini": INI})
    project.commit({"lib/mine.py": ""})
    stranger = rf"^base .* mine was imported from {project.root}/lib/mine.py, not from /"
    with pytest.raises(CannotCompare, match=stranger):
        compare("main~1", "main" if in_head else None)


def test_so_is_one_that_would_only_while_it_runs(
    project: Project, compare: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a test imports by itself is looked at when all have ended."""
    monkeypatch.setenv("PYTHONPATH", str(project.root / "lib"))
    test = f"{MARK}def test_it():\n    import mine\n    pytest.skip('no')\n"
    project.commit({"test_it.py": test, "pytest.ini": INI})
    project.commit({"lib/mine.py": ""})
    with pytest.raises(CannotCompare, match=r"^base .* mine was imported from"):
        compare("main~1")


def test_an_installed_copy_of_the_project_is_refused(
    project: Project,
    compare: Callable[..., Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is found by the name in pyproject.toml, where the layout does not tell."""
    site = tmp_path / "site"
    for file, text in {
        "mine.py": "",
        "mine-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n",
        "mine-1.0.dist-info/RECORD": "mine.py,,\n",
    }.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(site))
    project.commit(
        {
            "pyproject.toml": '[project]\nname = "mine"\n',
            "odd/mine.py": "",
            "test_it.py": f"import mine\n{MARK}def test_it(): pass\n",
        }
    )
    with pytest.raises(CannotCompare, match=rf"mine was imported from {site}/mine.py"):
        compare()


def test_so_is_one_that_is_known_by_its_files_alone(
    project: Project,
    compare: Callable[..., Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wheel of a project below, or another clone on the path: neither name nor note tells."""
    package = {"mine/__init__.py": "", "mine/model.py": "SIZE = 1\n"}
    for file, text in package.items():
        (tmp_path / "site" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / file).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    test = f"import mine.model\n{MARK}def test_it(): pass\n"
    project.commit(
        {**{f"python/{f}": t for f, t in package.items()}, "test_it.py": test, "pytest.ini": INI}
    )
    with pytest.raises(CannotCompare, match=rf"mine was imported from {tmp_path}/site/mine/__init"):
        compare()


def test_the_tree_of_a_submodule_is_known_as_another(
    project: Project,
    compare: Callable[..., Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Git does not name it: what an absolute path leads to in it is head's code."""
    from tests.ab.conftest import Project

    around = Project(tmp_path / "around")
    project.commit({"pytest.ini": INI})
    around.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
               str(project.root), "inner")  # fmt: skip
    lib = around.root / "inner" / "lib"
    test = f"import mine\n{MARK}def test_it(): pytest.skip(mine.__file__)\n"
    around.write({"inner/lib/mine.py": "", "inner/test_it.py": test})
    monkeypatch.setenv("PYTHONPATH", str(lib))
    inner = around.root / "inner"
    git = ["git", "-c", "user.name=S", "-c", "user.email=s@example.org"]
    for words in (["add", "--all"], ["commit", "--quiet", "-m", "one"]):
        subprocess.run([*git, *words], cwd=inner, check=True)
    report = compare_revisions(Asked("HEAD", plan=QUICK), folder=inner)
    assert report.comparisons[0].reason == f"Skipped: {lib}/mine.py"
    # A link that leads into the working tree from wherever it is checked out.
    (lib / "mine.py").rename(inner / "real.py")
    (lib / "mine.py").symlink_to(inner / "real.py")
    subprocess.run([*git, "commit", "--quiet", "-am", "two"], cwd=inner, check=True)
    with pytest.raises(CannotCompare, match=r"^base .*mine was imported from"):
        compare_revisions(Asked("HEAD", plan=QUICK), folder=inner)


def test_base_knows_the_tree_of_head(project: Project, compare: Callable[..., Report]) -> None:
    """Two commits: what is checked out for head comes after base, and is none of its own."""
    test = f"""
        import sys
        from pathlib import Path

        sys.path.insert(0, str(Path.cwd().parent / "nnscale-ab-head" / "lib"))
        import mine
        {MARK.replace(chr(10), chr(10) + "        ")}def test_it(): pass
        """
    project.commit({"test_it.py": test, "pytest.ini": INI, "lib/mine.py": ""})
    with pytest.raises(CannotCompare, match=r"^base .* mine was imported from .*nnscale-ab-head"):
        compare("main", "HEAD")


def test_what_is_built_at_run_time_is_built_for_each_side(
    project: Project,
    compare: Callable[..., Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In folders that are there in every restart, and gone afterwards."""
    monkeypatch.setenv("AB_LOG", str(tmp_path / "log"))
    names = "TORCH_EXTENSIONS_DIR", "HF_MODULES_CACHE"
    conftest = f"""
        import os

        def pytest_collection_finish(session):
            with open(os.environ["AB_LOG"], "a") as log:
                log.write(" ".join(os.environ[name] for name in {names}) + "\\n")
        """
    test = f"{MARK}def test_it(): pytest.skip('no')\n"
    project.commit({"conftest.py": conftest, "test_it.py": test, "pytest.ini": INI})
    compare()
    sides = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    folders = {folder for side in sides for folder in side}
    assert len(folders) == 4
    assert not any(Path(folder).exists() for folder in folders)


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("os._exit(3)", "exited with 3"),
        ("os.kill(os.getpid(), 9)", "was killed by signal 9 (SIGKILL)"),
    ],
)
def test_a_worker_that_dies_costs_one_test(
    project: Project, compare: Callable[..., Report], ending: str, how: str
) -> None:
    """It is unmeasured, with how the worker died and what it said; the others are compared."""
    a, c = (
        f"{MARK}def test_{name}(nnscale):\n    import torch\n    nnscale(torch.relu, torch.ones(2))\n"
        for name in "ac"
    )
    dies = f"import os\n{MARK}def test_b():\n    os.write(2, b'dying')\n    {ending}\n"
    project.commit({"test_it.py": a + dies + c, "pytest.ini": INI})
    project.write({"test_it.py": f"{a}{MARK}def test_b(): pass\n{c}"})
    report = compare("main", None, "-s")
    found = by_test(report)
    assert found["test_b"].change is Change.UNMEASURED
    assert f"ended in the middle of a test: it {how}" in found["test_b"].reason
    assert found["test_b"].reason.startswith("base (main")
    assert "dying" in found["test_b"].output
    assert found["test_a"].timing is not None
    assert found["test_c"].timing is not None
    assert len(found["test_c"].timing.logs) == 2


def test_an_edit_while_it_is_measured_is_an_error(
    project: Project, compare: Callable[..., Report]
) -> None:
    """Some restarts would have run other code than others."""
    test = f"{MARK}def test_it():\n    open('model.py', 'a').write('#')\n    pytest.skip('no')\n"
    project.commit({"test_it.py": test, "model.py": "", "pytest.ini": INI})
    project.write({"other.py": ""})
    with pytest.raises(CannotCompare, match="the working tree was edited while it was measured"):
        compare()


def test_a_branch_that_is_switched_meanwhile_is_an_error_at_once(
    project: Project, compare: Callable[..., Report]
) -> None:
    """The tree is as clean as before, and other code: no further restart is worth its time."""
    project.commit({"test_it.py": f"{MARK}def test_it(): pass\n", "pytest.ini": INI})
    switch = f"""
        import subprocess
        import pytest

        @pytest.mark.max_latency_ms(1)
        def test_it(nnscale):
            subprocess.run(["git", "-C", {str(project.root)!r}, "checkout", "-q", "main"])
            nnscale(len, [])
        """
    project.git("checkout", "--quiet", "-b", "topic")
    project.commit({"test_it.py": switch})
    told: list[str] = []
    with pytest.raises(CannotCompare, match=r"was edited while it was measured \(test_it.py\)"):
        compare_revisions(
            Asked("topic", plan=QUICK),
            folder=project.root,
            progress=lambda what, _done, _planned: told.append(what),
        )
    assert not any(what.startswith("restart 2") for what in told)


def test_what_is_measured_may_be_committed_meanwhile(
    project: Project, compare: Callable[..., Report]
) -> None:
    """No file is touched by it."""
    commit = f"import subprocess\n{MARK}def test_it():\n    " + "\n    ".join(
        f"subprocess.run(['git', '-C', {str(project.root)!r}, *{words}])"
        for words in (["add", "-A"], ["commit", "-qm", "it"])
    )
    project.commit({"test_it.py": f"{MARK}def test_it(): pass\n", "pytest.ini": INI})
    first = project.git("rev-parse", "HEAD")
    project.write({"test_it.py": f"{commit}\n    pytest.skip('no')\n", "new.py": "# new\n"})
    report = compare("main")
    assert project.git("status", "--porcelain", "--", "*.py") == ""
    assert report.head.commit == first != project.git("rev-parse", "HEAD")


def test_what_commits_are_compared_may_be_edited_meanwhile(
    project: Project, compare: Callable[..., Report]
) -> None:
    """Two commits do not depend on the working tree."""
    model = project.root / "model.py"
    test = (
        f"{MARK}def test_it():\n    open({str(model)!r}, 'a').write('#')\n    pytest.skip('no')\n"
    )
    project.commit({"test_it.py": test, "model.py": "", "pytest.ini": INI})
    assert compare("main", "HEAD").comparisons[0].change is Change.SKIPPED
    assert model.read_text() == "##"


def test_setup_runs_in_both_trees(project: Project, compare: Callable[..., Report]) -> None:
    """Before anything is imported; what fails ends it."""
    test = f"import built\n{MARK}def test_it(): pytest.skip(built.__file__)\n"
    project.commit({"test_it.py": test, "pytest.ini": INI, ".gitignore": "built.py\n"})
    report = compare(setup="echo '# built' > built.py")
    assert report.comparisons[0].change is Change.SKIPPED
    assert (project.root / "built.py").exists()
    with pytest.raises(CannotCompare, match="--setup exited with 1 in base") as caught:
        compare(setup="echo no compiler; false")
    assert caught.value.output == "no compiler\n"


def test_a_folder_that_base_does_not_have_is_an_error(
    project: Project, compare: Callable[..., Report]
) -> None:
    """The command was started in one that is new."""
    project.commit()
    project.write({"new/test_it.py": ""})
    with pytest.raises(CannotCompare, match=r"base \(main .*has no folder new"):
        compare(folder="new")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"base": "nowhere"}, "'nowhere' is no commit"),
        ({"head": "nowhere"}, "'nowhere' is no commit"),
        ({"base_python": "python9"}, "--base-python: there is no 'python9'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(
    project: Project, compare: Callable[..., Report], asked: dict[str, str], message: str
) -> None:
    """A revision, an interpreter."""
    project.commit()
    with pytest.raises(BadOption, match=message):
        compare(**asked)


def test_each_side_has_its_interpreter(
    project: Project, compare: Callable[..., Report], tmp_path: Path
) -> None:
    """Two environments: here the same one behind two names."""
    import sys

    pythons = {}
    for side in ("base", "head"):
        python = tmp_path / f"{side}_python"
        python.write_text(f'#!/bin/sh\nAB_SIDE={side} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        pythons[f"{side}_python"] = str(python)
    log = tmp_path / "log"
    test = (
        f"import os\n{MARK}def test_it():\n"
        f"    open({str(log)!r}, 'a').write(os.environ['AB_SIDE'] + ' ' + os.getcwd() + '\\n')\n"
        "    pytest.skip('no')\n"
    )
    project.commit({"test_it.py": test, "pytest.ini": INI})
    compare(**pythons)
    ran = dict(line.split() for line in log.read_text().splitlines())
    assert ran["head"] == str(project.root)
    assert ran["base"] != str(project.root)
    assert len(ran) == 2
    assert os.environ.get("AB_SIDE") is None
