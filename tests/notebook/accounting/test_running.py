"""Each cell has the peak of its own time, whichever way cells nest and overlap, and however it is known."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from memkit.memory.source import Process
from memkit.notebook.accounting.running import Running, Scope


class Machine:
    """A process whose memory a test decides, with the mark that a kernel keeps: reader and HighWater in one."""

    def __init__(self, has_mark: bool = True) -> None:
        self.now = self.peak = 100
        self.has_mark = has_mark
        self.method = "not available"

    def goes_to(self, *sizes: int) -> None:
        for self.now in sizes:
            self.peak = max(self.peak, self.now)

    def __call__(self) -> Process:
        return Process(rss=self.now, vms=0, anonymous=self.now - 50, swap=0, peak=self.peak)

    def reset(self) -> None:
        if self.has_mark:
            self.method, self.peak = "kernel high-water mark", self.now

    def read(self) -> int | None:
        return self.peak if self.has_mark else None

    def sampled(self) -> int:
        """The helper's side: the highest since it was last asked."""
        peak, self.peak = self.peak, self.now
        return peak


@pytest.fixture(params=["mark", "sampled"])
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(has_mark=request.param == "mark")


@pytest.fixture
def running(machine: Machine) -> Running:
    made = Running(machine, machine)  # type: ignore[arg-type]
    if not machine.has_mark:
        made.sampled_peak = machine.sampled
    return made


def begin(running: Running, source: str = "x") -> Scope:
    scope = running.push()
    scope.info = SimpleNamespace(raw_cell=source)
    running.measure(scope)
    return scope


def end(running: Running, scope: Scope) -> Scope:
    assert running.take(scope.info)[-1] is scope
    running.finish(scope)
    return scope


def in_thread(do: Any) -> Any:
    """What a subshell does."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(do()))
    thread.start()
    thread.join()
    return found[0]


def test_a_spike_belongs_to_the_cell_in_which_it_was(running: Running, machine: Machine) -> None:
    first = begin(running)
    machine.goes_to(900, 150)
    end(running, first)
    machine.goes_to(800, 150)  # between cells
    second = begin(running)
    machine.goes_to(200)
    end(running, second)
    assert (first.peak, second.peak) == (900, 200)
    assert not first.overlapped


def test_a_nested_spike_counts_for_the_outer_cell_too_and_an_outer_one_not_for_the_nested(
    running: Running, machine: Machine
) -> None:
    outer = begin(running)
    machine.goes_to(900, 100)
    inner = begin(running)
    machine.goes_to(500, 100)
    end(running, inner)
    last = begin(running)
    machine.goes_to(400, 100)
    end(running, last)
    machine.goes_to(300)
    end(running, outer)
    assert (outer.peak, inner.peak, last.peak) == (900, 500, 400)
    assert (outer.depth, inner.depth) == (0, 1)
    assert not inner.overlapped, "a cell that a cell runs is no other cell at the same time"


def test_what_rises_in_a_nested_cell_is_the_outer_ones_peak(running: Running, machine: Machine) -> None:
    outer = begin(running)
    inner = begin(running)
    machine.goes_to(900, 100)
    end(running, inner)
    end(running, outer)
    assert outer.peak == 900


def test_cells_of_two_shells_that_overlap_each_have_the_peak_of_their_own_time(
    running: Running, machine: Machine
) -> None:
    main = begin(running)
    machine.goes_to(700, 100)
    sub = in_thread(lambda: begin(running))
    machine.goes_to(300)
    end(running, main)
    machine.goes_to(950)
    end(running, sub)
    assert (main.peak, sub.peak) == (700, 950)
    assert main.overlapped
    assert sub.overlapped
    assert sub.depth == 0


def test_the_method_says_how_the_peak_is_known(running: Running, machine: Machine) -> None:
    cell = end(running, begin(running))
    assert cell.method == ("kernel high-water mark" if machine.has_mark else "sampled")


def test_without_mark_and_samples_there_is_no_peak_and_the_method_says_so() -> None:
    machine = Machine(has_mark=False)
    running = Running(machine, machine)  # type: ignore[arg-type]
    cell = begin(running)
    machine.goes_to(900)
    end(running, cell)
    assert (cell.peak, cell.method) == (None, "not available")
    running.sampled_peak = lambda: None  # a helper that is not there (yet)
    assert end(running, begin(running)).method == "not available"


def test_a_sampled_peak_is_never_below_what_was_read_at_the_ends() -> None:
    machine = Machine(has_mark=False)
    running = Running(machine, machine)  # type: ignore[arg-type]
    running.sampled_peak = lambda: 60  # taken before the cell began to grow
    cell = begin(running)
    machine.goes_to(400)
    assert end(running, cell).peak == 400


def test_the_end_of_an_empty_cell_ends_no_other(running: Running) -> None:
    """IPython tells the end of an empty cell, though it has told no beginning."""
    outer = begin(running)
    assert running.take(SimpleNamespace(raw_cell="  \n")) == []
    assert running.current() is outer


def test_an_end_of_which_nothing_is_known_is_that_of_the_innermost(running: Running) -> None:
    outer, silent = begin(running), running.push()
    assert running.take(None) == [silent]
    assert running.take(SimpleNamespace(raw_cell="made anew after an interrupt")) == [outer]
    assert running.take(None) == []


def test_a_cell_whose_end_is_not_told_ends_with_the_cell_it_ran_in(running: Running) -> None:
    """As with `await get_ipython().run_cell_async(...)`."""
    outer, lost, deeper = begin(running), begin(running), running.push()
    assert running.take(outer.info) == [deeper, lost, outer]
    assert running.stack() == []


def test_a_cell_is_found_in_whichever_thread_it_ends(running: Running) -> None:
    """The event loop of trio runs cells in another thread than the one that ends them."""
    cell = begin(running)
    assert in_thread(lambda: running.take(cell.info)) == [cell]
