"""RAPL: the zones of a powercap tree that are counted, their wraps, and why there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.power.powercap import broken_links, zones_of
from pytest_nnscale.power.rapl import RaplCounter, find_rapl

RANGE_UJ = 262_143_328_850
NO_ZONE = (
    "run on bare metal, or mount the host's powercap tree and name it by nnscale_powercap_root"
)


class Tree:
    """A powercap tree as the kernel lays it out: links in one folder to zones inside each other."""

    def __init__(self, base: Path) -> None:
        self.devices = base / "devices/virtual/powercap"
        self.root = base / "class/powercap"
        self.root.mkdir(parents=True)
        self.type("intel-rapl")

    def type(self, name: str) -> None:
        (self.devices / name).mkdir(parents=True)
        (self.root / name).symlink_to(self.devices / name)

    def zone(self, zone: str, name: str, energy_uj: int = 0) -> Path:
        """Add a zone such as intel-rapl:0:1, which lies inside intel-rapl:0."""
        kind, *numbers = zone.split(":")
        parents = [":".join([kind, *numbers[: n + 1]]) for n in range(len(numbers))]
        folder = self.devices.joinpath(kind, *parents)
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
        (self.root / zone).symlink_to(folder)
        return self.root / zone

    def names(self) -> list[str]:
        return [counter.name for counter in find_rapl(self.root)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Take the right to read one file away, also from root, whom chmod does not stop."""

    def refuse(file: Path) -> None:
        read_text = Path.read_text

        def refused(self: Path, *args: object, **kwargs: object) -> str:
            if self == file:
                raise PermissionError(13, "Permission denied", str(self))
            return read_text(self, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", refused)

    return refuse


def test_packages_and_memory_are_counted(tree: Tree) -> None:
    """Two sockets with their memory are four counters, all of the CPU."""
    for socket in (0, 1):
        tree.zone(f"intel-rapl:{socket}", f"package-{socket}")
        tree.zone(f"intel-rapl:{socket}:0", "dram")
    counters = find_rapl(tree.root)
    assert tree.names() == [
        "RAPL package-0",
        "RAPL dram of package-0",
        "RAPL package-1",
        "RAPL dram of package-1",
    ]
    assert len({counter.zone.resolve() for counter in counters}) == 4
    assert {counter.device for counter in counters} == {"cpu"}


@pytest.mark.parametrize("inside", ["core", "uncore"])
def test_what_a_package_contains_is_not_counted_twice(tree: Tree, inside: str) -> None:
    """The cores' joules are among the package's already."""
    tree.zone("intel-rapl:0", "package-0", 5_000_000)
    tree.zone("intel-rapl:0:0", inside, 3_000_000)
    tree.zone("intel-rapl:0:1", "dram", 1_000_000)
    assert sum(counter.read_j() for counter in find_rapl(tree.root)) == pytest.approx(6.0)


def test_what_contains_the_packages_is_not_counted(tree: Tree) -> None:
    """Psys is the whole platform."""
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:1", "psys")
    assert tree.names() == ["RAPL package-0"]


def test_what_contains_the_packages_counts_where_there_are_none(tree: Tree) -> None:
    """Some laptops have nothing else."""
    tree.zone("intel-rapl:0", "psys", 2_000_000)
    (counter,) = find_rapl(tree.root)
    assert counter.name == "RAPL psys"
    assert counter.read_j() == pytest.approx(2.0)


def test_a_zone_is_named_after_the_package_that_it_lies_in(tree: Tree) -> None:
    """The kernel calls the memory of every socket dram."""
    tree.zone("intel-rapl:3", "package-1")
    tree.zone("intel-rapl:3:0", "core")
    tree.zone("intel-rapl:3:1", "dram")
    assert [zone.shown for zone in zones_of(tree.root)] == [
        "package-1",
        "core of package-1",
        "dram of package-1",
    ]


def test_the_tree_of_amd(tree: Tree) -> None:
    """Linux lists it as Intel's, a package with its cores, and no memory."""
    for socket in (0, 1):
        tree.zone(f"intel-rapl:{socket}", f"package-{socket}", 4_000_000)
        tree.zone(f"intel-rapl:{socket}:0", "core", 3_000_000)
    assert tree.names() == ["RAPL package-0", "RAPL package-1"]
    assert sum(counter.read_j() for counter in find_rapl(tree.root)) == pytest.approx(8.0)


def test_folders_without_links_are_as_good(tree: Tree) -> None:
    """A container has devices/virtual/powercap mounted, in which zones nest."""
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:0:0", "dram")
    counters = find_rapl(tree.devices)
    assert [counter.name for counter in counters] == ["RAPL package-0", "RAPL dram of package-0"]
    assert not any(counter.zone.is_symlink() for counter in counters)


def test_links_and_folders_side_by_side_are_counted_once(tree: Tree) -> None:
    """Whoever copied the tree may have both."""
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:0:0", "dram")
    tree.root.joinpath("copy").mkdir()
    tree.devices.joinpath("intel-rapl").rename(tree.root / "copy/intel-rapl")
    tree.devices.joinpath("intel-rapl").symlink_to(tree.root / "copy/intel-rapl")
    assert tree.names() == ["RAPL package-0", "RAPL dram of package-0"]


def test_a_link_that_leads_nowhere_is_no_zone(tree: Tree) -> None:
    """The others count."""
    tree.zone("intel-rapl:0", "package-0")
    (tree.root / "intel-rapl:1").symlink_to(tree.devices / "gone")
    assert tree.names() == ["RAPL package-0"]


def test_links_that_lead_round_in_circles_are_not_followed(tree: Tree) -> None:
    """Sysfs is full of them."""
    zone = tree.zone("intel-rapl:0", "package-0")
    (zone.resolve() / "subsystem").symlink_to(tree.root)
    (zone.resolve() / "device").symlink_to(tree.devices)
    assert tree.names() == ["RAPL package-0"]
    assert len(find_rapl(tree.devices)) == 1


def test_the_same_package_through_another_interface_is_not_counted(tree: Tree) -> None:
    """Laptops show package-0 a second time, through memory-mapped registers."""
    tree.zone("intel-rapl:0", "package-0")
    tree.type("intel-rapl-mmio")
    tree.zone("intel-rapl-mmio:0", "package-0")
    assert [counter.zone.name for counter in find_rapl(tree.root)] == ["intel-rapl:0"]


def test_the_dies_of_a_package_are_packages(tree: Tree) -> None:
    """So the kernel names them where a socket holds several."""
    tree.zone("intel-rapl:0", "package-0-die-0")
    tree.zone("intel-rapl:1", "package-0-die-1")
    assert tree.names() == ["RAPL package-0-die-0", "RAPL package-0-die-1"]


def test_microjoules_become_joules(tree: Tree) -> None:
    """Every reading is the file's."""
    zone = tree.zone("intel-rapl:0", "package-0", 1_500_000)
    (counter,) = find_rapl(tree.root)
    assert counter.read_j() == pytest.approx(1.5)
    (zone / "energy_uj").write_text("2750000\n")
    assert counter.read_j() == pytest.approx(2.75)
    assert counter.range_j == pytest.approx(RANGE_UJ / 1e6)


@pytest.mark.parametrize("opened_uj", [RANGE_UJ - 1_000_000, RANGE_UJ])
def test_a_counter_that_wraps_goes_on(tree: Tree, opened_uj: int) -> None:
    """It starts at zero again at its range; what was gained is what was gained."""
    zone = tree.zone("intel-rapl:0", "package-0", opened_uj)
    (counter,) = find_rapl(tree.root)
    start_j = counter.read_j()
    (zone / "energy_uj").write_text("500000\n")
    assert counter.read_j() - start_j == pytest.approx((RANGE_UJ - opened_uj + 500_000) / 1e6)


def test_every_wrap_is_counted(tree: Tree) -> None:
    """Three times around, read before each."""
    zone = tree.zone("intel-rapl:0", "package-0", 7)
    (counter,) = find_rapl(tree.root)
    readings = []
    for energy_uj in (RANGE_UJ - 1, 5, RANGE_UJ - 1, 5, 5, RANGE_UJ - 1, 5, 6):
        (zone / "energy_uj").write_text(str(energy_uj))
        readings.append(counter.read_j())
    assert readings == sorted(readings)
    assert readings[-1] == pytest.approx(3 * RANGE_UJ / 1e6 + 6e-6, abs=1e-9)


def test_a_wrap_between_opening_and_the_first_reading_is_counted(tree: Tree) -> None:
    """The counter reads once when it is opened."""
    zone = tree.zone("intel-rapl:0", "package-0", RANGE_UJ)
    counter = RaplCounter(zone, "package-0", RANGE_UJ / 1e6)
    (zone / "energy_uj").write_text("1000000\n")
    assert counter.read_j() == pytest.approx(RANGE_UJ / 1e6 + 1)


class Wall:
    """A clock that tests set."""

    now = 100.0

    def now_s(self) -> float:
        return self.now


@pytest.mark.parametrize(("gap_s", "missed"), [(9.9, False), (10.1, True)])
def test_a_wrap_that_may_have_been_missed_is_no_number(
    tree: Tree, gap_s: float, missed: bool
) -> None:
    """The range over the highest power is how long it may go unread."""
    zone = tree.zone("intel-rapl:0", "package-0", 5_000_000)
    wall = Wall()
    counter = RaplCounter(zone, "RAPL package-0", 1000.0, 100.0, now_s=wall.now_s)
    wall.now += gap_s
    (zone / "energy_uj").write_text("6000000")
    if not missed:
        assert counter.read_j() == pytest.approx(6.0)
        return
    with pytest.raises(CannotMeasure) as caught:
        counter.read_j()
    assert caught.value.reason == (
        "RAPL package-0 may have wrapped around unseen: it was not read for 10 s, and starts again "
        "at 1000 J, which 100 W take less time for"
    )
    assert caught.value.remedy == "measure a shorter call"


def test_each_gap_counts_by_itself(tree: Tree) -> None:
    """Long after it was opened, a counter that was read now and then has missed nothing."""
    zone = tree.zone("intel-rapl:0", "package-0", 7_000_000)
    wall = Wall()
    counter = RaplCounter(zone, "RAPL package-0", 1000.0, 100.0, now_s=wall.now_s)
    for _ in range(5):
        wall.now += 9.0
        assert counter.read_j() == 7.0


@pytest.mark.parametrize(
    ("limits", "most_w"),
    [
        ({}, 1000.0),
        ({"constraint_0_power_limit_uw": 65_000_000}, 130.0),
        (
            {
                "constraint_0_power_limit_uw": 65_000_000,
                "constraint_1_power_limit_uw": 90_000_000,
                "constraint_0_max_power_uw": 80_000_000,
            },
            180.0,
        ),
        ({"constraint_0_max_power_uw": 0}, 1000.0),
        ({"constraint_0_max_power_uw": "unknown"}, 1000.0),
    ],
    ids=["none", "a limit", "several", "zero", "no number"],
)
def test_the_highest_power_is_what_the_tree_states(
    tree: Tree, limits: dict[str, object], most_w: float
) -> None:
    """Twice its highest limit, for bursts are above it; a kilowatt where it states none."""
    zone = tree.zone("intel-rapl:0", "package-0")
    for file, limit_uw in limits.items():
        (zone / file).write_text(f"{limit_uw}\n")
    (counter,) = find_rapl(tree.root)
    assert counter.most_w == pytest.approx(most_w)


def test_the_step_is_the_coarsest_of_common_processors(tree: Tree) -> None:
    """A step of 2^-14 J, by which an interval is widened."""
    tree.zone("intel-rapl:0", "package-0")
    (counter,) = find_rapl(tree.root)
    assert counter.resolution_j == pytest.approx(2**-14, rel=0.01)


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_a_file_that_may_not_be_read_names_the_command(
    tree: Tree, refuse: Callable[[Path], None], file: str
) -> None:
    """Since 2020 the kernel lets only root read energy_uj; the remedy can be pasted."""
    zone = tree.zone("intel-rapl:0", "package-0")
    refuse(zone / file)
    with pytest.raises(CannotMeasure) as caught:
        find_rapl(tree.root)
    assert caught.value.reason == f"{zone / file} may not be read"
    assert caught.value.remedy == (
        f"sudo chmod a+r {zone / file} (until the next boot; a udev rule keeps it)"
    )
    assert isinstance(caught.value, NothingThere)
    assert isinstance(caught.value.__cause__, PermissionError)


def test_all_files_that_may_not_be_read_are_named_at_once(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sockets with memory are not four rounds of mending and running again."""
    for socket in (0, 1):
        tree.zone(f"intel-rapl:{socket}", f"package-{socket}")
        tree.zone(f"intel-rapl:{socket}:0", "dram")
    read_text = Path.read_text

    def refused(self: Path, *args: object, **kwargs: object) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(NothingThere) as caught:
        find_rapl(tree.root)
    assert caught.value.remedy.count("energy_uj") == 4


def test_a_counter_that_is_reset_is_no_wrap(tree: Tree) -> None:
    """After a sleep it starts at zero: a wrap would be hundreds of kilojoules, and red."""
    zone = tree.zone("intel-rapl:0", "package-0", 9_000_000)
    now_s = [0.0]
    counter = RaplCounter(zone, "RAPL package-0", RANGE_UJ / 1e6, now_s=lambda: now_s[0])
    now_s[0] = 0.01
    (zone / "energy_uj").write_text("1000\n")
    with pytest.raises(CannotMeasure, match=r"went back from 9 J to 0\.001 J, which is no wrap"):
        counter.read_j()


def test_links_to_nowhere_are_found(tree: Tree) -> None:
    """A container that has /sys/class/powercap alone has links, and none of what they lead to."""
    tree.zone("intel-rapl:0", "package-0")
    assert broken_links(tree.root) == []
    (tree.root / "intel-rapl:1").symlink_to("../../devices/virtual/powercap/intel-rapl/none")
    assert broken_links(tree.root) == ["intel-rapl:1"]
    assert broken_links(tree.root / "none") == []


def test_it_states_how_finely_it_counts(tree: Tree) -> None:
    """By which updates between two looks are known to be no older."""
    tree.zone("intel-rapl:0", "package-0")
    (counter,) = find_rapl(tree.root)
    assert (counter.resolution_s, counter.lag_s) == (1e-3, 0.0)


def test_one_unreadable_zone_is_not_left_out(tree: Tree, refuse: Callable[[Path], None]) -> None:
    """A sum without the memory would be too small, and pass."""
    tree.zone("intel-rapl:0", "package-0")
    dram = tree.zone("intel-rapl:0:0", "dram")
    refuse(dram / "energy_uj")
    with pytest.raises(CannotMeasure, match="may not be read"):
        find_rapl(tree.root)


@pytest.mark.parametrize("text", ["", "many\n", "1.5\n"])
def test_a_file_without_a_number_cannot_be_read(tree: Tree, text: str) -> None:
    """It is not taken for zero."""
    zone = tree.zone("intel-rapl:0", "package-0")
    (zone / "energy_uj").write_text(text)
    with pytest.raises(CannotMeasure, match="energy_uj cannot be read") as caught:
        find_rapl(tree.root)
    assert caught.value.remedy == "check the powercap tree"


def test_a_counter_that_is_lost_says_so(tree: Tree) -> None:
    """The module was unloaded, or the right withdrawn, after it was opened."""
    zone = tree.zone("intel-rapl:0", "package-0")
    (counter,) = find_rapl(tree.root)
    (zone / "energy_uj").unlink()
    with pytest.raises(CannotMeasure, match="energy_uj cannot be read"):
        counter.read_j()


def nothing(tree: Tree) -> Path:
    return tree.root / "absent"


def a_file(tree: Tree) -> Path:
    return tree.zone("intel-rapl:0", "package-0") / "name"


def no_zones(tree: Tree) -> Path:
    return tree.root


def cores_alone(tree: Tree) -> Path:
    tree.zone("intel-rapl:0", "core")
    return tree.root


def a_zone_without_a_name(tree: Tree) -> Path:
    (tree.zone("intel-rapl:0", "package-0") / "name").unlink()
    return tree.root


def links_to_nothing(tree: Tree) -> Path:
    """What a container sees: its runtime hides the zones, and the links to them stay."""
    tree.zone("intel-rapl:0", "package-0")
    tree.devices.rename(tree.devices.with_name("hidden"))
    return tree.root


@pytest.mark.parametrize(
    "tree_of",
    [
        nothing,
        a_file,
        no_zones,
        cores_alone,
        a_zone_without_a_name,
        links_to_nothing,
    ],
)
def test_no_zone_is_no_counter(tree: Tree, tree_of: Callable[[Tree], Path]) -> None:
    """Where it looked, why there may be none, and what to do."""
    root = tree_of(tree)
    with pytest.raises(CannotMeasure) as caught:
        find_rapl(root)
    assert caught.value.reason.startswith(f"no RAPL zone under {root}: this is a virtual machine")
    assert caught.value.remedy == NO_ZONE
