"""Where a cell is stopped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memkit.memory.guard.gauge import Reading
from memkit.memory.guard.marks import Marks, idle, marks, pause, soft_limit
from memkit.units import GIB, MIB

sizes = st.integers(0, 64 * GIB)


def test_with_plenty_free_the_signal_comes_80_mb_before_the_limit() -> None:
    assert marks(4 * GIB) == Marks(128_000_000, 48_000_000)


@given(sizes)
def test_the_signal_comes_before_the_limit_and_both_leave_something_to_the_cell(free: int) -> None:
    found = marks(free)
    assert 0 <= found.floor <= found.trip <= free
    assert free - found.floor >= min(max(0, free - 20 * MIB), 10 * MIB)


@given(sizes)
def test_cells_that_take_all_they_get_do_not_starve_the_kernel(free: int) -> None:
    for _ in range(50):
        left, free = free, marks(free).floor
    assert free >= min(left, 20 * MIB)


@given(sizes)
def test_while_idle_the_kernel_may_use_what_is_kept_for_it(free: int) -> None:
    assert idle(free).floor <= marks(free).floor // 4
    assert idle(free).trip == marks(free).trip


def test_a_cell_with_128_mib_to_spare_is_not_signalled() -> None:
    assert marks(8 * GIB).trip < 128 * MIB


@given(sizes, sizes, sizes, sizes)
def test_the_limit_never_takes_back_what_is_allocated_and_never_gives_more_than_is_free(
    data: int, free: int, floor: int, promised: int
) -> None:
    limit = soft_limit(Reading(free, 64 * GIB, 0, data, promised=promised), floor)
    assert data <= limit <= data + free


def test_what_is_promised_is_taken_already() -> None:
    reading = Reading(GIB, 4 * GIB, GIB, data=GIB, promised=GIB // 2)
    assert soft_limit(reading, floor=0) == GIB + GIB // 2


@given(st.integers(-GIB, 64 * GIB))
def test_the_next_look_comes_before_the_room_can_be_eaten(room: int) -> None:
    assert 0.002 <= pause(room, running=True) <= 0.2
    assert pause(room, running=True) <= max(0.002, room / 8e9)
    assert pause(room, running=False) >= pause(room, running=True)
