"""One reading of a pretended Linux machine, and of the real one."""

from __future__ import annotations

import dataclasses
import mmap
import pickle
import sys
from pathlib import Path

import pytest

from memkit.errors import ConfigError, ReadingError
from memkit.memory.accelerators import Accelerators
from memkit.memory.gc_clock import GcClock
from memkit.memory.proc import LinuxSource
from memkit.memory.sample import Reader, Sample, anonymous_now
from memkit.memory.source import Zram
from memkit.units import GIB, MIB
from tests.memory import trees

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the real /proc")


def reader(root: Path, **settings: object) -> Reader:
    settings.setdefault("environ", {})
    return Reader(root, now=lambda: 1234.5, accelerators=Accelerators(modules={}), **settings)  # type: ignore[arg-type]


def test_every_figure_is_the_one_the_kernel_gave_in_bytes(tmp_path: Path) -> None:
    sample = reader(trees.machine(tmp_path))()
    assert sample.time == 1234.5
    assert (sample.rss, sample.vms, sample.peak) == (400 * MIB, 900 * MIB, 500 * MIB)
    assert (sample.anonymous, sample.file_backed, sample.swap) == (260 * MIB, 140 * MIB, 30 * MIB)
    assert (sample.machine_total, sample.machine_available) == (8 * GIB, 6 * GIB)
    assert (sample.swap_total, sample.swap_used) == (2 * GIB, 512 * MIB)
    assert (sample.limit, sample.available, sample.binding) == (8 * GIB, 6 * GIB, "machine")
    assert (sample.used, sample.share) == (2 * GIB, 0.25)


def test_what_the_kernel_does_not_tell_is_none_never_zero(tmp_path: Path) -> None:
    """An old kernel without RssAnon, PSI, swap accounting or zram."""
    root = trees.machine(tmp_path, status={"VmSize": 9, "VmRSS": 5}, meminfo={"MemTotal": 1024, "MemAvailable": 512})
    sample = reader(root)()
    unknown = (sample.anonymous, sample.file_backed, sample.swap, sample.peak, sample.swap_total, sample.swap_used)
    assert unknown == (None,) * 6
    assert (sample.psi_some, sample.psi_full, sample.zram, sample.gc_seconds) == (None,) * 4


def test_pressure_is_a_share_and_full_may_be_missing(tmp_path: Path) -> None:
    root = trees.machine(tmp_path)
    trees.put(root, "proc/pressure/memory", "some avg10=12.50 avg60=1.00 avg300=0.00 total=4\n")
    assert (reader(root)().psi_some, reader(root)().psi_full) == (0.125, None)


def test_zram_counts_the_ram_it_takes_and_only_disks_that_are_set_up(tmp_path: Path) -> None:
    root = trees.machine(tmp_path)
    trees.put(root, "sys/block/zram0/disksize", 0)
    trees.put(root, "sys/block/zram0/mm_stat", "9 9 9 0 0 0 0 0 0\n")
    assert reader(root)().zram is None
    trees.put(root, "sys/block/zram1/disksize", GIB)
    trees.put(root, "sys/block/zram1/mm_stat", "  800  200  250 0 260 0 0 0 0\n")
    assert reader(root)().zram == Zram(original=800, compressed=250)


@pytest.mark.parametrize(
    ("file", "text"),
    [("proc/self/status", "Name:\tzombie\n"), ("proc/meminfo", "MemTotal: 5 kB\n"), ("proc/meminfo", "nonsense")],
)
def test_a_missing_essential_figure_is_an_error_that_names_the_file(tmp_path: Path, file: str, text: str) -> None:
    root = trees.machine(tmp_path)
    trees.put(root, file, text)
    with pytest.raises(ReadingError, match=file.rpartition("/")[2]):
        reader(root)()


def test_a_machine_without_memory_is_an_error_not_a_division_by_zero(tmp_path: Path) -> None:
    root = trees.machine(tmp_path, meminfo={"MemTotal": 0, "MemAvailable": 0})
    with pytest.raises(ReadingError, match="no memory"):
        reader(root)()


# -- limits that count this process and its descendants --------------------------------------------------------------


def family(root: Path) -> None:
    """The process (pid 50) with a child, a grandchild, and one that has ended."""
    trees.put(root, "proc/50/task/50/children", "60 ")
    trees.put(root, "proc/50/task/51/children", "62 ")
    trees.process(root, 60, anonymous=100 * MIB, children="61")
    trees.process(root, 61, anonymous=40 * MIB)
    (root / "proc/50/status").write_text((root / "proc/self/status").read_text())
    for name in ("cgroup", "mountinfo"):
        trees.put(root, f"proc/50/{name}", "")


@pytest.mark.parametrize("text", [str(GIB), f"{GIB}.0", " 1GiB "])
def test_a_hub_limit_counts_the_process_and_its_descendants(tmp_path: Path, text: str) -> None:
    root = trees.machine(tmp_path)
    family(root)
    sample = reader(root, environ={"MEM_LIMIT": text}, pid=50)()
    assert (sample.limit, sample.binding) == (GIB, "MEM_LIMIT")
    assert sample.used == (260 + 100 + 40) * MIB


@pytest.mark.parametrize("text", ["", "0", "  "])
def test_a_hub_that_sets_no_limit_sets_none(tmp_path: Path, text: str) -> None:
    assert reader(trees.machine(tmp_path), environ={"MEM_LIMIT": text})().binding == "machine"


def test_a_hub_limit_that_makes_no_sense_is_ignored_and_said(tmp_path: Path) -> None:
    read = reader(trees.machine(tmp_path), environ={"MEM_LIMIT": "plenty"})
    assert read().binding == "machine"
    assert any("MEM_LIMIT" in note and "plenty" in note for note in read.notes)


def test_the_user_limit_can_change_at_any_time(tmp_path: Path) -> None:
    root = trees.machine(tmp_path)
    family(root)
    read = reader(root, pid=50)
    read.user_limit = 500 * MIB
    assert (read().binding, read().limit, read().available) == ("user", 500 * MIB, 100 * MIB)
    read.user_limit = None
    assert read().binding == "machine"
    with pytest.raises(ConfigError, match="more than 0"):
        read.user_limit = 0


def test_more_used_than_allowed_leaves_nothing_not_less_than_nothing(tmp_path: Path) -> None:
    root = trees.machine(tmp_path)
    family(root)
    sample = reader(root, pid=50, user_limit=100 * MIB)()
    assert (sample.available, sample.share) == (0, 1.0)


def test_the_limit_is_the_lowest_and_the_room_the_least_even_of_different_ceilings(tmp_path: Path) -> None:
    """A machine that others have filled binds although the user's limit is lower."""
    root = trees.machine(tmp_path, meminfo={"MemTotal": 8192, "MemAvailable": 100})
    family(root)
    sample = reader(root, pid=50, user_limit=2 * GIB)()
    assert (sample.limit, sample.available, sample.binding) == (2 * GIB, 100 * MIB, "machine")


def test_a_kernel_that_lists_no_children_is_said(tmp_path: Path) -> None:
    root = trees.machine(tmp_path)
    trees.put(root, "proc/50/status", (root / "proc/self/status").read_text())
    for name in ("cgroup", "mountinfo"):
        trees.put(root, f"proc/50/{name}", "")
    read = reader(root, pid=50, user_limit=GIB)
    assert read().used == 260 * MIB
    assert any("not counted" in note for note in read.notes)


# -- the sample itself and the real machine --------------------------------------------------------------------------


def test_a_sample_is_frozen_and_layers_above_fill_in_theirs(tmp_path: Path) -> None:
    sample = reader(trees.machine(tmp_path))()
    filled = dataclasses.replace(sample, tracked=5, own_cpu_seconds=0.5)
    assert (filled.tracked, filled.own_cpu_seconds, sample.tracked) == (5, 0.5, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.limit = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(filled)) == filled


def test_collections_come_from_the_clock_where_one_runs(tmp_path: Path) -> None:
    clock = GcClock()
    clock.runs, clock.seconds = 3, 0.25
    sample = reader(trees.machine(tmp_path), gc_clock=clock)()
    assert (sample.gc_runs, sample.gc_seconds) == (3, 0.25)


@linux
def test_the_real_machine_gives_a_consistent_sample() -> None:
    sample = Reader()()
    assert sample.anonymous is not None
    assert sample.file_backed is not None
    assert sample.peak is not None
    assert sample.anonymous + sample.file_backed == pytest.approx(sample.rss, rel=0.05)
    assert sample.rss <= sample.peak * 1.05
    assert 0 < sample.share < 1
    assert sample.limit <= sample.machine_total
    assert sample.open_files
    assert sample.blocks
    assert sample.gc_runs is not None


@linux
def test_private_memory_follows_what_is_allocated_and_freed() -> None:
    before = anonymous_now()
    # Not from the heap, where an earlier test may have left a free block of this size.
    block = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, 64 * MIB, MIB):
        block[start : start + MIB] = b"x" * MIB
    assert anonymous_now() - before == pytest.approx(64 * MIB, rel=0.1)
    block.close()
    assert anonymous_now() - before < 8 * MIB


@linux
def test_reading_opens_no_file_for_longer_than_it_takes() -> None:
    source = LinuxSource(Path("/"))
    read = Reader()
    read()
    before = source.open_files()
    for _ in range(50):
        read()
    assert source.open_files() == before


def test_a_sample_can_be_built_by_name_only() -> None:
    """So that no figure can land in another's place."""
    with pytest.raises(TypeError):
        Sample(1, 2, 3)  # type: ignore[call-arg, misc]
