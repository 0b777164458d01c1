"""Memory that is mapped and not taken yet."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from memkit.memory.guard.gauge import Gauge
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


def test_small_mappings_such_as_thread_stacks_do_not_count() -> None:
    found = Untouched()
    before = found.walk()
    areas = [private(8 * MIB) for _ in range(3)]
    assert found.walk() - before < 32 * MIB
    for area in areas:
        area.close()


def test_the_page_tables_are_walked_only_when_much_was_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    found, walks = Untouched(), []
    monkeypatch.setattr(found, "walk", lambda: walks.append(1) or 100 * MIB)
    for gap, walked in ((10, 1), (60, 1), (200, 2), (230, 2)):
        assert found.estimate(gap * MIB) == 100 * MIB
        assert len(walks) == walked


def test_what_has_been_filled_since_is_seen_from_the_gap_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Untouched()
    monkeypatch.setattr(found, "walk", lambda: 100 * MIB)
    found.estimate(200 * MIB)
    assert found.estimate(140 * MIB) == 40 * MIB
    assert found.estimate(60 * MIB) == 0


def test_reserves_of_libraries_are_no_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Untouched(reserves=lambda: 64 * MIB)
    monkeypatch.setattr(found, "walk", lambda: 100 * MIB)
    assert found.estimate(200 * MIB) == 36 * MIB


def test_where_the_map_is_hidden_nothing_is_known(tmp_path: Path) -> None:
    assert Untouched(pid=1, proc=str(tmp_path)).estimate(10**12) == 0


def test_the_gap_of_a_real_process_follows_its_mappings() -> None:
    before = Gauge().read().gap
    area = private(100 * MIB)
    assert Gauge().read().gap - before == pytest.approx(100 * MIB, abs=4 * MIB)
    touch(area, 100 * MIB)
    assert Gauge().read().gap - before == pytest.approx(0, abs=8 * MIB)
    area.close()


def test_what_was_mapped_since_the_last_walk_may_be_on_its_way_to_be_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Untouched()
    monkeypatch.setattr(found, "walk", lambda: 100 * MIB)
    found.estimate(200 * MIB)
    assert (found.estimate(240 * MIB), found.at_most(240 * MIB)) == (100 * MIB, 140 * MIB)
    assert found.at_most(150 * MIB) == 50 * MIB
