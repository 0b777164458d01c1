"""What an error held is let go of, whoever still holds the error or its traceback."""

from __future__ import annotations

import builtins
import gc
import weakref
from types import TracebackType
from typing import Any

import pytest

from memkit.notebook.aftermath import frames, let_go, places, trail


class Probe:
    """Can be watched."""


def _raise(depth: int, watch: list[Any]) -> None:
    probe = Probe()
    watch.append(weakref.ref(probe))
    if depth == 0:
        raise MemoryError
    _raise(depth - 1, watch)


def _caught(depth: int) -> tuple[BaseException, TracebackType, list[Any]]:
    watch: list[Any] = []
    try:
        _raise(depth, watch)
    except MemoryError as error:
        trace: Any = error.__traceback__
        return error, trace, watch
    raise AssertionError


def _alive(watch: list[Any]) -> int:
    gc.collect()
    return sum(one() is not None for one in watch)


@pytest.mark.parametrize("depth", [3, 500])
def test_frames_are_cleared_though_error_and_traceback_are_held(depth):
    error, first, watch = _caught(depth)
    assert _alive(watch) == depth + 1
    let_go(error, first)
    assert _alive(watch) == 0
    assert error.__traceback__ is None
    assert first.tb_next is None


def test_an_entry_that_somebody_holds_is_emptied():
    error, first, watch = _caught(3)
    held = first.tb_next.tb_next  # type: ignore[union-attr]
    let_go(error, first)
    assert _alive(watch) == 0
    assert held is not None


def test_errors_that_led_to_it_are_let_go_of_too():
    first, _, earlier = _caught(2)
    second, _, later = _caught(2)
    third, trace, last = _caught(2)
    second.__context__, third.__cause__ = first, second
    first.__context__ = third  # a circle is no obstacle
    let_go(third, trace)
    assert _alive(earlier) == _alive(later) == _alive(last) == 0
    assert (third.__cause__, second.__context__, first.__context__) == (None, None, None)


def test_errors_in_a_group_are_let_go_of_too():
    group = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        pytest.skip("since Python 3.11")
    inner, _, watch = _caught(2)
    let_go(group("several", [inner]), None)
    assert _alive(watch) == 0


def test_a_frame_that_runs_still_is_left_alone():
    probe = Probe()
    try:
        raise MemoryError
    except MemoryError as error:
        let_go(error, error.__traceback__)
    assert isinstance(probe, Probe)


def test_of_a_long_traceback_both_ends_are_looked_at():
    error, first, _ = _caught(600)
    found = trail(first)
    assert (len(found.start), len(found.end), found.between) == (100, 100, 402)
    assert frames(found)[0] is first.tb_frame
    let_go(error, first)


def test_without_a_traceback_there_is_nothing_to_say():
    assert places(trail(None), {}) == ()
    let_go(MemoryError(), None)
