"""Memory that is mapped and not taken yet."""

from __future__ import annotations

import mmap
import sys
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
    before = found.walk()
    area = private(256 * MIB)
    assert found.walk() - before == pytest.approx(256 * MIB, abs=MIB)
    touch(area, 128 * MIB)
    assert found.walk() - before == pytest.approx(128 * MIB, abs=4 * MIB)
    area.close()
    assert found.walk() - before == pytest.approx(0, abs=MIB)


def test_blocks_of_a_few_mib_count_too() -> None:
    found = Untouched()
    before = found.walk()
    areas = [private(16 * MIB) for _ in range(5)]
    assert found.walk() - before == pytest.approx(80 * MIB, abs=MIB)
    for area in areas:
        area.close()


def test_stacks_of_threads_do_not_count() -> None:
    found, done = Untouched(), threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(20)]
    before = found.walk()
    for thread in threads:
        thread.start()
    assert found.walk() - before < 4 * MIB
    done.set()
    for thread in threads:
        thread.join()


class Followed:
    """An `Untouched` whose walk finds 100 MiB, and a process whose gap the test decides."""

    def __init__(self, reserves: int = 0) -> None:
        self.untouched = Untouched(reserves=lambda: reserves)
        self.walks = self.gap = self.taken = 0
        self.untouched.walk = self._walk  # type: ignore[method-assign]

    def _walk(self) -> int:
        self.walks += 1
        return 100 * MIB

    def read(self) -> Reading:
        return Reading(2**40, 2**40, 0, data=self.gap + self.taken, anonymous=self.taken)

    def at(self, gap: int) -> tuple[int, int]:
        """Known and perhaps, in MiB, once the gap is so many MiB."""
        self.gap = gap * MIB
        found = self.untouched.follow(self.read(), self.read)
        return found.promised // MIB, found.perhaps // MIB


def test_the_page_tables_are_walked_at_first_and_when_much_was_mapped() -> None:
    process = Followed()
    for gap, walked in ((10, 1), (60, 1), (200, 2), (230, 2)):
        assert process.at(gap)[0] == 100
        assert process.walks == walked


def test_what_has_been_filled_since_is_seen_from_the_gap_alone() -> None:
    process = Followed()
    assert [process.at(gap) for gap in (200, 140, 60)] == [(100, 0), (40, 0), (0, 0)]


def test_what_was_mapped_since_is_perhaps_on_its_way_to_be_filled() -> None:
    process = Followed()
    assert [process.at(gap) for gap in (200, 240, 230)] == [(100, 0), (100, 40), (100, 30)]


def test_heap_that_is_given_back_in_place_is_no_promise_and_needs_no_walk() -> None:
    process = Followed()
    process.taken = 500 * MIB
    assert process.at(100) == (100, 0)
    process.taken = 200 * MIB
    assert process.at(400) == (100, 0)
    assert process.walks == 1
    process.taken = 300 * MIB
    assert process.at(300) == (0, 0)


def test_reserves_of_libraries_are_no_promise() -> None:
    assert Followed(reserves=64 * MIB).at(200) == (36, 0)


def test_what_is_taken_during_a_walk_is_never_counted_as_free() -> None:
    """A walk of 70 ms found 440 MiB left of 880, beside a reading from before in which all was still free."""
    process = Followed()
    before = process.read()
    process.gap = 50 * MIB
    found = process.untouched.follow(before, lambda: Reading(free=7, limit=9, private=0, data=process.gap))
    assert (found.free, found.promised, found.perhaps) == (7, 100 * MIB, 0)


def test_where_the_map_is_hidden_nothing_is_known(tmp_path: Path) -> None:
    assert Untouched(pid=1, proc=str(tmp_path)).walk() == 0


def test_the_gap_of_a_real_process_follows_its_mappings() -> None:
    before = Gauge().read().gap
    area = private(100 * MIB)
    assert Gauge().read().gap - before == pytest.approx(100 * MIB, abs=4 * MIB)
    touch(area, 100 * MIB)
    assert Gauge().read().gap - before == pytest.approx(0, abs=8 * MIB)
    area.close()
