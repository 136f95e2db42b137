"""The store of what is known of a machine: what is relied on, and what is as good as none."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from pytest_nnscale import store as room
from pytest_nnscale.fingerprint import Fingerprint
from pytest_nnscale.store import Store, cache_folder

HERE = Fingerprint("AMD EPYC (AVX512)", 2, 2, "", "torch 2.14.1")
PROBE = "product of float32 by ieee"


def store_in(
    folder: Path | None, machine: Fingerprint = HERE, *, definition: str = "ceiling/1"
) -> Store:
    return Store(folder, machine, kind="ceilings", definition=definition)


def file_of(folder: Path) -> Path:
    (file,) = (folder / "ceilings").iterdir()
    return file


def test_what_is_remembered_is_recalled_by_the_next(tmp_path: Path) -> None:
    """To the last digit, in another process too."""
    store_in(tmp_path).remember(PROBE, 123456789.125)
    assert store_in(tmp_path).recall(PROBE) == 123456789.125


def test_nothing_is_known_before(tmp_path: Path) -> None:
    """Neither of a folder that is not there, nor of a probe that is not in it."""
    assert store_in(tmp_path / "none").recall(PROBE) is None
    store_in(tmp_path).remember(PROBE, 1.0)
    assert store_in(tmp_path).recall("product of float64 by float64") is None


@pytest.mark.parametrize(
    "change", [{"cpu": "Xeon"}, {"cores": 4}, {"threads": 1}, {"gpu": "H100"}, {"torch": "2.15"}]
)
def test_another_machine_has_its_own_ceilings(tmp_path: Path, change: dict[str, object]) -> None:
    """A home directory may be shared by many."""
    store_in(tmp_path).remember(PROBE, 1.0)
    assert store_in(tmp_path, HERE._replace(**change)).recall(PROBE) is None


def test_another_definition_makes_what_was_stored_worthless(tmp_path: Path) -> None:
    """What is measured otherwise is another number."""
    store_in(tmp_path).remember(PROBE, 1.0)
    assert store_in(tmp_path, definition="ceiling/2").recall(PROBE) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"identity": {}, "value": 1.0}',
        "[" * 100_000,
        "\x00\xff",
    ],
    ids=["empty", "cut off", "list", "null", "object", "of another", "deep", "binary"],
)
def test_a_file_that_is_broken_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    """And is written anew."""
    store = store_in(tmp_path)
    store.remember(PROBE, 1.0)
    file_of(tmp_path).write_text(text, encoding="latin-1")
    assert store.recall(PROBE) is None
    store.remember(PROBE, 2.0)
    assert store.recall(PROBE) == 2.0


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "0.0", "-1.0", '"fast"', "null", "true"])
def test_a_rate_that_is_none_is_not_relied_on(tmp_path: Path, rate: str) -> None:
    """Somebody has edited the file."""
    store = store_in(tmp_path)
    store.remember(PROBE, 7.5)
    file = file_of(tmp_path)
    file.write_text(file.read_text().replace("7.5", rate))
    assert store.recall(PROBE) is None


def test_a_file_in_the_place_of_another_is_not_relied_on(tmp_path: Path) -> None:
    """It says itself what it is of."""
    store = store_in(tmp_path)
    store.remember(PROBE, 1.0)
    first = file_of(tmp_path)
    text = first.read_text()
    first.unlink()
    store.remember("moving 1048576 bytes", 2.0)
    file_of(tmp_path).write_text(text)
    assert store.recall("moving 1048576 bytes") is None


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    """To whoever looks into the folder."""
    store_in(tmp_path).remember(PROBE, 1.5)
    told = json.loads(file_of(tmp_path).read_text())
    assert told["identity"]["machine"] == HERE._asdict()
    assert (told["identity"]["name"], told["value"]) == (PROBE, 1.5)


def test_no_reader_ever_sees_half_a_file(tmp_path: Path) -> None:
    """While others write: what is recalled is what one of them wrote, and nothing else is left."""
    rates = [float(10**power) for power in range(1, 9)]
    store_in(tmp_path).remember(PROBE, rates[0])
    over = threading.Event()
    seen: set[float | None] = set()

    def read() -> None:
        while not over.is_set():
            seen.add(store_in(tmp_path).recall(PROBE))

    def write(rate: float) -> None:
        for _ in range(50):
            store_in(tmp_path).remember(PROBE, rate)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(rate,)) for rate in rates]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    over.set()
    reader.join()
    assert seen <= set(rates)
    assert store_in(tmp_path).recall(PROBE) in rates
    assert len([*(tmp_path / "ceilings").iterdir()]) == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The ceiling that was measured is used all the same."""
    (tmp_path / "ceilings").write_text("a file where the folder would be")
    store = store_in(tmp_path)
    assert store.trouble == ""
    store.remember(PROBE, 1.0)
    assert store.trouble.startswith("it could not be stored: ")
    assert store.recall(PROBE) is None


def test_a_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a temporary file, nor half of one in the place of what was there."""
    store = store_in(tmp_path)
    store.remember(PROBE, 1.0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room.json, "dump", full)
    store.remember(PROBE, 2.0)
    assert "No space left" in store.trouble
    assert store.recall(PROBE) == 1.0
    assert len([*(tmp_path / "ceilings").iterdir()]) == 1


def test_a_user_without_a_home_has_no_store() -> None:
    """Which is said, and nothing is stored anywhere else."""
    store = store_in(None)
    store.remember(PROBE, 1.0)
    assert store.recall(PROBE) is None
    assert store.trouble == "this user has no folder for caches"


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG base directories")
def test_the_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As XDG has it: where it says, if that is absolute, else below the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder({}) == tmp_path / ".cache" / "pytest-nnscale"
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == tmp_path / ".cache" / "pytest-nnscale"
    chosen = tmp_path / "elsewhere"
    assert cache_folder({"XDG_CACHE_HOME": str(chosen)}) == chosen / "pytest-nnscale"


def test_a_home_that_cannot_be_found_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container for a user who is in no passwd."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(room.Path, "home", unknown)
    assert cache_folder({}) is None
    kept = str(Path(os.sep) / "var" / "cache")
    name = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    assert cache_folder({name: kept}) == Path(kept) / "pytest-nnscale"
