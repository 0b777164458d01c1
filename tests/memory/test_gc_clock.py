"""Counting garbage collections."""

from __future__ import annotations

import gc

from memkit.memory.gc_clock import GcClock
from tests.fakes import Clock


def test_runs_and_seconds_are_counted_only_while_installed() -> None:
    clock = GcClock()
    clock.install()
    try:
        gc.collect()
        gc.collect()
    finally:
        clock.uninstall()
    runs, seconds = clock.runs, clock.seconds
    gc.collect()
    assert (clock.runs, clock.seconds) == (runs, seconds)
    assert runs >= 2
    assert 0 < clock.longest <= seconds


def test_installing_twice_counts_once_and_uninstalling_twice_is_harmless() -> None:
    clock = GcClock()
    before = len(gc.callbacks)
    clock.install()
    clock.install()
    assert len(gc.callbacks) == before + 1
    clock.uninstall()
    clock.uninstall()
    assert len(gc.callbacks) == before


def test_pauses_are_measured_with_the_given_clock() -> None:
    time = Clock()
    clock = GcClock(time)
    for pause in (0.5, 2.0):
        clock._note("start", {})
        time.advance(pause)
        clock._note("stop", {})
    assert (clock.runs, clock.seconds, clock.longest) == (2, 2.5, 2.0)


def test_a_collection_whose_start_was_not_seen_is_not_counted() -> None:
    clock = GcClock()
    clock._note("stop", {})
    assert clock.runs == 0
