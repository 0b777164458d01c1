"""The watch, on a process that is made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from memkit.memory.guard.gauge import Reading
from memkit.memory.guard.page import LIFTED, OFF, ON, Page
from memkit.memory.guard.watch import Watch
from memkit.units import GIB, MIB
from tests.fakes import Clock


@dataclass
class Made:
    """A kernel with 4 GiB that holds 1 GiB, and what is done to it."""

    free: int = 3 * GIB
    private: int = GIB
    data: int = GIB
    promised: int = 0
    children: dict[int, int] = field(default_factory=dict)
    limits: list[int | None] = field(default_factory=list)
    signals: int = 0
    exposed: list[int] = field(default_factory=list)
    stops: list[tuple[int, bool]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    on_limit: Any = None

    def read(self) -> Reading:
        taken = {"anonymous": self.private, "rss": self.private}
        return Reading(self.free, 4 * GIB, self.private, self.data, promised=self.promised, **taken)

    def offspring(self) -> set[int]:
        return set(self.children)

    def anonymous_of(self, pid: int) -> int:
        return self.children[pid]

    def private_of(self, pid: int) -> int:
        return self.children[pid]

    def set_limit(self, soft: int | None) -> None:
        self.limits.append(soft)
        if self.on_limit is not None:
            self.on_limit()

    def signal(self) -> None:
        self.signals += 1

    def expose(self, pid: int) -> None:
        self.exposed.append(pid)

    def stop(self, pid: int, *, now: bool) -> None:
        self.stops.append((pid, now))

    def freeze(self) -> None:
        self.stops.append((0, False))

    def thaw(self) -> None:
        self.stops.append((0, True))

    def end(self, pid: int) -> None:
        self.stops.append((pid, True))

    def tell(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    page.mode, page.cell, page.trip, page.floor = ON, 1, 128 * MIB, 48 * MIB
    yield page
    page.close()


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(page: Page, made: Made, clock: Clock) -> Watch:
    return Watch(page, made, clock)


def test_it_keeps_the_limit_at_what_is_free(watch: Watch, made: Made) -> None:
    watch.turn()
    made.data, made.free = 2 * GIB, 2 * GIB
    watch.turn()
    assert made.limits == [4 * GIB - 48 * MIB, 4 * GIB - 48 * MIB]
    assert made.signals == 0


def test_it_looks_more_often_the_less_there_is(watch: Watch, made: Made) -> None:
    relaxed = watch.turn()
    made.free = 200 * MIB
    assert watch.turn() < relaxed / 5


def test_below_the_trip_mark_it_signals_once_until_that_was_dealt_with(
    watch: Watch, page: Page, made: Made, clock: Clock
) -> None:
    made.free = 100 * MIB
    watch.turn()
    clock.now += 0.5
    watch.turn()
    assert made.signals == 1
    page.handled = page.signalled
    watch.turn()
    assert made.signals == 2


def test_a_signal_that_nobody_deals_with_is_repeated_after_a_second(watch: Watch, made: Made, clock: Clock) -> None:
    made.free = 100 * MIB
    watch.turn()
    clock.now += 1.1
    watch.turn()
    assert made.signals == 2


def test_while_idle_signals_become_rare_and_a_new_cell_ends_that(
    watch: Watch, page: Page, made: Made, clock: Clock
) -> None:
    made.free, page.cell = 100 * MIB, 2
    for _ in range(200):
        watch.turn()
        page.handled = page.signalled
        clock.now += 0.2
    assert 4 <= made.signals <= 7
    page.cell = 3
    watch.turn()
    clock.now += 0.2
    assert made.signals >= 5


def test_memory_that_is_promised_counts_as_taken(watch: Watch, made: Made) -> None:
    made.free, made.promised = GIB, GIB - 100 * MIB
    watch.turn()
    assert made.signals == 1
    assert made.limits == [made.data + 100 * MIB - 48 * MIB]


def test_a_budget_has_its_own_ceilings(watch: Watch, page: Page, made: Made) -> None:
    page.private_ceiling, page.data_ceiling = GIB + 100 * MIB, GIB + 180 * MIB
    watch.turn()
    assert (made.limits[-1], made.signals) == (GIB + 180 * MIB, 0)
    made.private += 101 * MIB
    watch.turn()
    assert made.signals == 1


@pytest.mark.parametrize("mode", [OFF, LIFTED])
def test_off_or_lifted_it_does_nothing(watch: Watch, page: Page, made: Made, mode: int) -> None:
    page.mode, made.free = mode, 0
    assert watch.turn() > 0
    assert (made.limits, made.signals) == ([], 0)


def test_a_limit_that_is_lifted_while_it_is_set_ends_lifted(watch: Watch, page: Page, made: Made) -> None:
    made.on_limit = lambda: setattr(page, "mode", LIFTED)
    watch.turn()
    assert made.limits[-1] is None


def test_the_descendant_that_grew_is_stopped_and_not_the_kernel(watch: Watch, made: Made, clock: Clock) -> None:
    made.children = {77: 60 * MIB}
    watch.turn()
    made.children[77], made.free = 2 * GIB, 100 * MIB
    watch.turn()
    assert made.stops == [(77, False)]
    assert made.lines == [f"stopped 77 {2 * GIB - 60 * MIB}"]
    assert made.signals == 0
    clock.now += 0.3
    watch.turn()
    assert made.stops[-1] == (77, True)
    made.children = {}
    watch.turn()
    watch.turn()
    assert made.signals == 1


def test_a_descendant_that_was_large_before_is_not_to_blame(watch: Watch, made: Made) -> None:
    made.children = {77: 2 * GIB}
    watch.turn()
    made.private, made.free = 2 * GIB, 100 * MIB
    watch.turn()
    assert made.stops == []
    assert made.signals == 1


def test_a_descendant_that_grew_less_than_the_kernel_is_left_alone(watch: Watch, made: Made) -> None:
    watch.turn()
    made.children = {77: 300 * MIB}
    made.private, made.free = 2 * GIB, 100 * MIB
    watch.turn()
    assert (made.stops, made.signals) == ([], 1)


def test_new_descendants_are_exposed_once(watch: Watch, made: Made, clock: Clock) -> None:
    made.children = {77: MIB}
    for _ in range(4):
        watch.turn()
        clock.now += 0.3
    assert made.exposed == [77]


def test_while_the_rescue_is_being_forked_no_descendant_is_touched(watch: Watch, page: Page, made: Made) -> None:
    page.spared, made.children, made.free = -1, {77: 3 * GIB}, 100 * MIB
    watch.turn()
    assert (made.exposed, made.stops, made.signals) == ([], [], 1)


def test_what_it_read_is_there_for_others(watch: Watch, page: Page, made: Made) -> None:
    made.private = 2 * GIB
    watch.turn()
    made.private = GIB
    watch.turn()
    assert (page.free, page.private, page.peak, page.readings) == (3 * GIB, GIB, 2 * GIB, 2)
    page.cell = 3
    watch.turn()
    assert page.peak == GIB


@pytest.fixture
def rescue(page: Page, made: Made) -> int:
    """Little is left while a rescue's child holds 7 MiB."""
    page.spared, made.free, made.children = 55, 60 * MIB, {55: 7 * MIB}
    made.offspring = set  # type: ignore[assignment]
    return 55


def test_a_rescue_that_holds_more_and_more_is_let_go_of_while_the_kernel_stands_still(
    watch: Watch, page: Page, made: Made, clock: Clock, rescue: int
) -> None:
    watch.turn()
    assert made.stops == [(0, False), (0, True)]
    made.children[rescue] += 20 * MIB
    made.free -= 21 * MIB
    clock.now += 0.006
    watch.turn()
    assert made.stops[2:] == [(0, False), (rescue, True), (0, True)]
    assert made.lines == [f"dropped {rescue} {27 * MIB}"]
    assert page.spared == 0


def test_a_rescue_that_holds_what_it_held_stays_whatever_happens(
    watch: Watch, page: Page, made: Made, clock: Clock, rescue: int
) -> None:
    for _ in range(20):
        watch.turn()
        made.free -= 2 * MIB
        clock.now += 0.006
    assert (rescue, True) not in made.stops
    assert page.spared == rescue


def test_a_rescue_that_holds_a_little_more_while_others_take_much_stays(
    watch: Watch, page: Page, made: Made, clock: Clock, rescue: int
) -> None:
    watch.turn()
    made.children[rescue] += 5 * MIB
    made.free -= 40 * MIB
    clock.now += 0.006
    watch.turn()
    assert page.spared == rescue


def test_a_rescue_is_not_even_weighed_while_there_is_time(watch: Watch, page: Page, made: Made) -> None:
    page.spared, made.free = 55, 130 * MIB
    watch.turn()
    assert (made.stops, made.signals) == ([], 0)
