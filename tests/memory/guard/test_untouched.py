"""Memory that is mapped and not taken yet."""

from __future__ import annotations

import mmap
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from memkit.memory.guard.gauge import Gauge, Reading
from memkit.memory.guard.untouched import Untouched
from memkit.units import MIB

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="smaps is Linux")


def private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def touch(area: mmap.mmap, size: int) -> None:
    area[:size] = bytes(size)


def test_a_large_mapping_counts_until_it_is_filled() -> None:
    found = Untouched()
    before = found.walk()[0]
    area = private(256 * MIB)
    assert found.walk()[0] - before == pytest.approx(256 * MIB, abs=MIB)
    touch(area, 128 * MIB)
    assert found.walk()[0] - before == pytest.approx(128 * MIB, abs=4 * MIB)
    area.close()
    assert found.walk()[0] - before == pytest.approx(0, abs=MIB)


def test_blocks_of_a_few_mib_count_too() -> None:
    found = Untouched()
    before = found.walk()[0]
    areas = [private(16 * MIB) for _ in range(5)]
    assert found.walk()[0] - before == pytest.approx(80 * MIB, abs=MIB)
    for area in areas:
        area.close()


def test_stacks_of_threads_do_not_count() -> None:
    found, done = Untouched(), threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(20)]
    before = found.walk()[0]
    for thread in threads:
        thread.start()
    assert found.walk()[0] - before < 4 * MIB
    done.set()
    for thread in threads:
        thread.join()


class Followed:
    """An `Untouched` whose walk finds some harmless MiB, and a process whose gap the test decides."""

    def __init__(self, harmless: int = 0, reserves: int = 0) -> None:
        self.untouched = Untouched(reserves=lambda: reserves * MIB)
        self.harmless, self.walks, self.gap = harmless, 0, 0
        self.untouched.walk = self._walk  # type: ignore[method-assign]

    def _walk(self) -> tuple[int, int]:
        self.walks += 1
        return 0, self.harmless * MIB

    def read(self) -> Reading:
        return Reading(2**40, 2**40, 0, data=self.gap * MIB)

    def at(self, gap: int) -> int:
        """Promised MiB, once the gap is so many."""
        self.gap = gap
        return self.untouched.follow(self.read(), self.read).promised // MIB


def test_the_mappings_are_walked_at_first_and_when_much_was_mapped() -> None:
    process = Followed()
    for gap, walked in ((10, 1), (60, 1), (200, 2), (230, 2), (100, 2), (170, 3)):
        process.at(gap)
        assert process.walks == walked


def test_what_was_mapped_is_promised_at_once_and_what_is_filled_no_longer() -> None:
    process = Followed()
    assert [process.at(gap) for gap in (200, 240, 140, 0)] == [200, 240, 140, 0]


def test_what_is_harmless_is_no_promise() -> None:
    process = Followed(harmless=90)
    assert [process.at(gap) for gap in (100, 130)] == [10, 40]


def test_a_mapping_in_the_place_of_one_that_was_freed_is_a_promise_like_any_other() -> None:
    """A text that grows: the old one is freed and a new one mapped between two looks, so VmData hardly changes."""
    process = Followed(harmless=20)
    assert [process.at(gap) for gap in (25, 500)] == [5, 480]


def test_reserves_of_libraries_are_no_promise() -> None:
    assert Followed(reserves=64).at(100) == 36


def test_what_is_taken_during_a_walk_is_not_counted_as_free() -> None:
    """A walk of 70 ms found 440 MiB left of 880, beside a reading from before in which all was still free."""
    process = Followed()
    before = process.read()
    found = process.untouched.follow(before, lambda: Reading(free=7, limit=9, private=0, data=50 * MIB))
    assert (found.free, found.promised) == (7, 50 * MIB)


def test_free_heap_arenas_files_and_stacks_are_harmless() -> None:
    found = Untouched()
    before = found.walk()
    arena = mmap.mmap(-1, 256 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
    with tempfile.TemporaryFile() as file:
        file.truncate(128 * MIB)
        mapped = mmap.mmap(file.fileno(), 128 * MIB, access=mmap.ACCESS_COPY)
    after = found.walk()
    assert after[0] - before[0] < MIB
    assert after[1] - before[1] == pytest.approx(384 * MIB, abs=MIB)
    arena.close()
    mapped.close()


def test_where_the_map_is_hidden_everything_is_promised(tmp_path: Path) -> None:
    reading = Reading(0, 0, 0, data=100 * MIB)
    assert Untouched(pid=1, proc=str(tmp_path)).follow(reading, lambda: reading).promised == 100 * MIB


def test_the_gap_of_a_real_process_follows_its_mappings() -> None:
    before = Gauge().read().gap
    area = private(100 * MIB)
    assert Gauge().read().gap - before == pytest.approx(100 * MIB, abs=4 * MIB)
    touch(area, 100 * MIB)
    assert Gauge().read().gap - before == pytest.approx(0, abs=8 * MIB)
    area.close()
