"""Trees: each with its own counterpart of every path, and its own modules first."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from pytest_nnscale.ab.tree import (
    Interpreter,
    Tree,
    ask_interpreter,
    environment,
    find_python,
    leading_places,
    set_up,
)
from pytest_nnscale.errors import BadOption, CannotCompare


def tree_in(root: Path, *others: Path, folder: str = ".") -> Tree:
    return Tree("base", "main", "1234", root, root / folder, others, sys.executable)


BASE = tree_in(Path("/trees/base"), Path("/home/project"), Path("/home/project/nested"))


@pytest.mark.parametrize(
    ("word", "moved"),
    [
        ("/home/project/tests", "/trees/base/tests"),
        ("/home/project/tests/t.py::test[a/b=c]", "/trees/base/tests/t.py::test[a/b=c]"),
        ("--rootdir=/home/project", "--rootdir=/trees/base"),
        ("--a=/home/project/b=c", "--a=/trees/base/b=c"),
        ("/home/project/nested/tests", "/trees/base/tests"),
        ("/home/other/tests", "/home/other/tests"),
        ("/home/projects", "/home/projects"),
        ("tests/t.py", "tests/t.py"),
        ("-k", "-k"),
        ("not slow", "not slow"),
        ("--basetemp=/tmp/x", "--basetemp=/tmp/x"),
        (
            "--nnscale-budgets=tests/*: max_latency_ms=3",
            "--nnscale-budgets=tests/*: max_latency_ms=3",
        ),
    ],
)
def test_a_path_into_another_tree_leads_to_this_one(word: str, moved: str) -> None:
    """With its option and its node; base must not collect head's files."""
    assert BASE.moved(word) == moved


def test_the_working_tree_keeps_its_paths() -> None:
    """It is measured in place."""
    tree = tree_in(Path("/home/project"))
    assert tree.moved("/home/project/tests") == "/home/project/tests"


def made(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")
    return root.resolve()


def test_the_roots_lead(tmp_path: Path) -> None:
    """That of the folder where the command was started first, then that of the tree."""
    root = made(tmp_path / "base", "src/mine/__init__.py", "part/src/other/__init__.py")
    tree = tree_in(root, folder="part")
    places = [root / "part", root / "part/src", root, root / "src"]
    assert leading_places(tree, Interpreter((), ()), ()) == places


def test_a_src_that_is_a_package_does_not_lead(tmp_path: Path) -> None:
    """Its datasets.py would stand in for somebody's datasets."""
    root = made(tmp_path / "base", "src/__init__.py", "src/datasets.py")
    assert leading_places(tree_in(root), Interpreter((), ()), ()) == [root]


def test_what_the_interpreter_imports_from_another_tree_leads_from_this_one(
    tmp_path: Path,
) -> None:
    """The path of an editable install; not an environment that lies there."""
    root = made(tmp_path / "base", "python/mine.py", ".venv/site/x.py")
    project = made(tmp_path / "project", "python/mine.py", "gone/x.py", ".venv/site/x.py")
    path = [project / "python", project / "gone", project / ".venv/site", Path("/usr/lib")]
    tree = tree_in(root, project)
    interpreter = Interpreter(tuple(path), (project / ".venv", Path("/usr")))
    environments = tree.environments(interpreter, [Path("python/mine.py")])
    assert environments == (project / ".venv",)
    assert leading_places(tree, interpreter, environments) == [root, root / "python"]


@pytest.mark.parametrize("prefix", [".", "part"])
def test_an_environment_around_the_project_is_its_libraries_alone(
    tmp_path: Path, prefix: str
) -> None:
    """`python -m venv .` makes nothing of the project an installed module."""
    root = made(tmp_path / "base", "part/python/mine.py")
    project = made(tmp_path / "project", "part/python/mine.py")
    libraries = project / prefix / "lib/python3.11/site-packages"
    interpreter = Interpreter(
        (project / "part/python", libraries), (project / prefix,), (libraries, Path("/usr/lib"))
    )
    for tree in (tree_in(root, project), tree_in(project, root)):
        environments = tree.environments(interpreter, [Path("part/python/mine.py")])
        assert environments == (libraries.resolve(),)
        assert leading_places(tree, interpreter, environments)[-1] == tree.root / "part/python"


def test_an_interpreter_below_which_everything_lies_hides_nothing(tmp_path: Path) -> None:
    """A container's project may lie in /usr/src, where /usr is its interpreter's prefix."""
    root = made(tmp_path / "base", "lib/mine.py")
    project = made(tmp_path / "project", "lib/mine.py")
    interpreter = Interpreter((project / "lib",), (tmp_path.resolve(),))
    tree = tree_in(root, project)
    environments = tree.environments(interpreter, ())
    assert environments == ()
    assert leading_places(tree, interpreter, environments) == [root, root / "lib"]


def test_an_interpreter_tells_where_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does in that folder, with the variables that are set."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    found = ask_interpreter(tree_in(tmp_path))
    assert tmp_path / "mine" in found.path
    assert Path(sys.prefix).resolve() in found.prefixes
    # Where the wheel is tested, pytest itself comes from a place that a .pth file names.
    assert Path(sysconfig.get_path("purelib")).resolve() in found.libraries


def test_an_interpreter_that_fails_is_told_of(tmp_path: Path) -> None:
    """With its own words."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such libraries >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(CannotCompare, match=r"base: .*python cannot be run") as caught:
        ask_interpreter(tree_in(tmp_path)._replace(python=str(python)))
    assert caught.value.output == "no such libraries\n"


def test_what_else_is_printed_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sitecustomize says hello, and farewell."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit\nprint('hello', end='')\natexit.register(print, '[]')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert tmp_path in ask_interpreter(tree_in(tmp_path)).path


def test_what_is_no_python_is_told_of(tmp_path: Path) -> None:
    """It runs, and says nothing of modules."""
    with pytest.raises(CannotCompare, match="base: /bin/echo is no Python") as caught:
        ask_interpreter(tree_in(tmp_path)._replace(python="/bin/echo"))
    assert caught.value.output.startswith("-c")


def test_what_is_built_at_run_time_is_built_for_each_side(tmp_path: Path) -> None:
    """Both would find by its name what the other has built last."""
    found = environment([], tmp_path)
    assert found["TORCH_EXTENSIONS_DIR"] == str(tmp_path / "torch_extensions")
    assert found["HF_MODULES_CACHE"] == str(tmp_path / "hf_modules")
    assert environment([]).get("HF_MODULES_CACHE") == os.environ.get("HF_MODULES_CACHE")


def test_the_environment_leads_with_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there comes after it; what ties git to one repository is left out."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/one", "/two"]))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    found = environment([Path("/trees/base"), Path("/trees/base/src")])
    assert found["PYTHONPATH"].split(os.pathsep) == [
        "/trees/base",
        "/trees/base/src",
        "/one",
        "/two",
    ]
    assert "GIT_DIR" not in found


def test_interpreters_are_found_by_name_and_path(tmp_path: Path) -> None:
    """None means ours; links stay, since an environment's python is one."""
    assert find_python(None, "--base-python") == sys.executable
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert find_python(str(link), "--base-python") == str(link)
    with pytest.raises(BadOption, match=r"--head-python: there is no 'python9'"):
        find_python("python9", "--head-python")


def test_setup_runs_in_the_tree_with_its_interpreter(tmp_path: Path) -> None:
    """In the folder where the command was started; `python` is that side's."""
    root = made(tmp_path / "base", "part/x.py")
    python = tmp_path / "environment" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho this one > built\n")
    python.chmod(0o755)
    tree = tree_in(root, folder="part")._replace(python=str(python))
    set_up(tree, "python setup.py build_ext --inplace", dict(os.environ))
    assert (root / "part" / "built").read_text() == "this one\n"


def test_a_setup_that_fails_shows_what_it_printed(tmp_path: Path) -> None:
    """With its status, and the side where it failed."""
    command = "echo to stdout; echo to stderr >&2; exit 7"
    with pytest.raises(CannotCompare, match=r"--setup exited with 7 in base \(main\)") as caught:
        set_up(tree_in(tmp_path), command, dict(os.environ))
    assert caught.value.output == "to stdout\nto stderr\n"
