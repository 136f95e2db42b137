"""What the tests share: `suite`, which writes a small suite of tests and runs it with the plugin."""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from collections.abc import Callable, Mapping

import pytest

pytest_plugins = ["pytester"]

IMPORTS = "import pytest\nimport torch\nfrom torch import nn\n\n"
INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"

Run = Callable[..., pytest.RunResult]


@pytest.fixture(scope="session")
def _lasting_imports() -> None:
    """Import what inner runs import: pytester forgets modules, and torch cannot load twice."""
    import filelock  # noqa: F401

    # pytest-asyncio imports hypothesis when it collects, a second each time it was forgotten.
    import hypothesis  # noqa: F401
    import torch._dynamo
    import torch._dynamo.repro.after_dynamo  # a first compilation imports it  # noqa: F401

    import pytest_nnscale

    for module in pkgutil.walk_packages(pytest_nnscale.__path__, "pytest_nnscale."):
        importlib.import_module(module.name)


@pytest.fixture
def suite(
    _lasting_imports: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Return `run(source, *args)`: write tests, run pytest on them in this process, hand back all.

    `source` becomes test_it.py, after imports of pytest, torch and nn. `ini` holds lines below
    `[pytest]`, `conftest` the text of conftest.py, `files` further files by path. `cache` lets
    pytest keep its cache (for --lf); `subprocess` runs it in a process of its own. No source and no
    files: what is there already runs again.
    """
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)

    def run(
        source: str | None = None,
        *args: object,
        ini: str = "",
        conftest: str = "",
        files: Mapping[str, str] | None = None,
        cache: bool = False,
        subprocess: bool = False,
    ) -> pytest.RunResult:
        texts = dict(files or {})
        if source is not None:
            texts["test_it.py"] = IMPORTS + textwrap.dedent(source)
        if conftest:
            texts["conftest.py"] = textwrap.dedent(conftest)
        if texts or ini:
            texts["pytest.ini"] = INI + textwrap.dedent(ini)
        for path, text in texts.items():
            target = pytester.path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text), encoding="utf-8")
        words = [*map(str, args), *([] if cache else ["-p", "no:cacheprovider"])]
        if subprocess:
            return pytester.runpytest_subprocess(*words)
        return pytester.runpytest_inprocess(*words)

    return run
