"""The search for the smallest size: what it claims is what was seen, and it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkit.notebook.limited.fit import (
    MOST_STEPS,
    Bounds,
    Fit,
    Step,
    answer,
    next_size,
    resolution,
    search,
    verdict,
)
from memkit.units import GIB, MIB

SIZES = st.integers(1, 64 * 1024).map(lambda mib: mib * MIB)


class Notebook:
    """Completes from `needs` bytes on; `peak` is what it uses then, if that is known."""

    def __init__(self, needs: int, peak: int | None = None) -> None:
        self.needs, self.peak = needs, peak
        self.tried: list[int] = []

    def __call__(self, size: int) -> Step:
        self.tried.append(size)
        if size >= self.needs:
            return Step(size, peak=self.peak)
        return Step(size, "cell 7: MemoryGuardError", min(size, self.peak or size))


@given(needs=SIZES, upper=SIZES, lower=st.integers(1, 500), peak=st.none() | SIZES)
def test_of_anything_monotone_the_threshold_is_found(needs: int, upper: int, lower: int, peak: int | None) -> None:
    """Within the resolution, whatever the run says it used, and with no contradiction."""
    bounds = Bounds(min(lower * MIB, upper - 1), upper)
    fit = search(Notebook(needs, peak), bounds)
    assert fit.contradiction is None
    assert not fit.exhausted
    if needs > upper:
        assert fit.smallest is None
        return
    assert fit.smallest is not None
    assert fit.smallest.size >= needs
    floor = max(needs, bounds.lower)
    assert fit.smallest.size - floor <= resolution(fit.smallest.size)


@given(needs=SIZES, upper=SIZES, peak=st.none() | SIZES)
def test_the_answer_has_completed_twice_and_nothing_is_tried_without_need(
    needs: int, upper: int, peak: int | None
) -> None:
    notebook = Notebook(needs, peak)
    fit = search(notebook, Bounds(MIB // 2, upper))
    assert len(notebook.tried) <= MOST_STEPS
    if fit.smallest is not None:
        assert notebook.tried.count(fit.smallest.size) == 2
        others = [size for size in notebook.tried if size != fit.smallest.size]
        assert len(others) == len(set(others))


@given(st.lists(st.booleans(), min_size=MOST_STEPS, max_size=MOST_STEPS), SIZES, st.none() | SIZES)
def test_whatever_the_runs_say_it_ends_and_claims_only_what_was_seen(
    outcomes: list[bool], upper: int, peak: int | None
) -> None:
    """Also for runs that have nothing to do with their size."""
    ends = iter(outcomes)
    fit = search(lambda size: Step(size, "" if next(ends) else "cell 1: X", peak), Bounds(MIB // 2, upper))
    assert 1 <= len(fit.steps) <= MOST_STEPS
    assert all(MIB // 2 < step.size <= upper for step in fit.steps)
    if fit.smallest is not None:
        failed = [step.size for step in fit.steps if not step.completed]
        assert all(size < fit.smallest.size for size in failed), "nothing failed with as much or more"
    seen = any(good.size <= bad.size for good in fit.steps for bad in fit.steps if good.completed and not bad.completed)
    assert (fit.contradiction is not None) == seen


def test_a_size_that_completes_once_and_fails_once_is_not_the_answer() -> None:
    counts: dict[int, int] = {}

    def flaky(size: int) -> Step:
        counts[size] = counts.get(size, 0) + 1
        fails = size < 300 * MIB or (size < 340 * MIB and counts[size] > 1)
        return Step(size, "cell 2: MemoryError" if fails else "")

    fit = search(flaky, Bounds(64 * MIB, 2 * GIB))
    assert fit.contradiction is not None
    assert fit.smallest is not None
    assert fit.smallest.size >= 340 * MIB
    assert not fit.exhausted
    assert answer(fit)[0].startswith("not only memory decides: it completed at ")


def test_what_a_run_used_spares_the_search_most_of_a_large_machine() -> None:
    told, silent = Notebook(310 * MIB, 300 * MIB), Notebook(310 * MIB)
    for notebook in (told, silent):
        search(notebook, Bounds(60 * MIB, 64 * GIB))
    assert told.tried[:2] == [64 * GIB, 490 * MIB]
    assert len(told.tried) < 9 < len(silent.tried)


def test_a_notebook_that_fails_with_all_there_is_is_not_tried_with_less() -> None:
    fit = search(Notebook(2 * GIB), Bounds(60 * MIB, GIB))
    assert len(fit.steps) == 1
    assert answer(fit) == ["it does not complete in 1.00 GiB: cell 7: MemoryGuardError"]


def test_a_search_that_is_ended_early_says_what_it_knows() -> None:
    steps = [Step(GIB), Step(512 * MIB, "cell 2: timed out"), None]
    fit = search(lambda size: steps.pop(0), Bounds(MIB, GIB))
    assert (fit.smallest, fit.below) == (fit.steps[0], fit.steps[1])
    empty = search(lambda size: None, Bounds(MIB, GIB))
    assert answer(empty) == ["nothing was found out at 1.00 GiB"]


def test_steps_that_do_not_suffice_are_told() -> None:
    bounds = Bounds(MIB, 64 * GIB, most=4)
    fit = search(Notebook(GIB), bounds)
    assert (len(fit.steps), fit.exhausted) == (4, True)
    assert "4 runs allowed were not enough to be sure" in answer(fit)[0]


def said(*steps: Step, lower: int = 60 * MIB) -> str:
    fit: Fit = verdict(steps, Bounds(lower, GIB))
    (line,) = answer(fit)
    return line


@pytest.mark.parametrize(
    ("failure", "end"),
    [
        ("cell 7: MemoryGuardError", "failed at 400.0 MiB in cell 7: MemoryGuardError)"),
        ("the kernel did not start", "failed at 400.0 MiB: the kernel did not start)"),
    ],
)
def test_the_answer_is_one_sentence(failure: str, end: str) -> None:
    line = said(Step(412 * MIB), Step(400 * MIB, failure))
    assert line == f"smallest memory: 412.0 MiB (completed at 412.0 MiB, {end}"
    assert "a kernel alone needs 60.0 MiB" in said(Step(70 * MIB))


def test_resolution_is_16_mib_or_two_percent() -> None:
    assert resolution(100 * MIB) == 16 * MIB
    assert resolution(100 * GIB) == 2 * GIB
    assert next_size([Step(100 * MIB), Step(84 * MIB, "x"), Step(100 * MIB)], Bounds(MIB, GIB)) is None
    assert next_size([Step(100 * MIB), Step(83 * MIB, "x")], Bounds(MIB, GIB)) == 92 * MIB
