"""The exact peak over an interval."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memkit.memory import heap
from memkit.memory.high_water import HighWater
from memkit.units import MIB
from tests.memory import trees


def test_a_spike_inside_one_call_is_seen_and_only_in_its_interval() -> None:
    mark = HighWater()
    heap.trim()  # what earlier tests have freed would take the spike without a new page
    mark.reset()
    if mark.method != "kernel high-water mark":
        pytest.skip("this kernel keeps no mark that can be reset")
    base = mark.read()
    assert base is not None
    _ = len(b"x" * (150 * MIB))
    spike = mark.read()
    assert spike is not None
    assert spike - base == pytest.approx(150 * MIB, rel=0.1)
    heap.trim()
    mark.reset()
    again = mark.read()
    assert again is not None
    assert again - base < 30 * MIB


def test_the_mark_is_reset_by_what_the_kernel_documents(tmp_path: Path) -> None:
    trees.machine(tmp_path)
    trees.put(tmp_path, "proc/self/clear_refs", "")
    mark = HighWater(tmp_path)
    mark.reset()
    assert (tmp_path / "proc/self/clear_refs").read_text() == "5"
    assert (mark.method, mark.read()) == ("kernel high-water mark", 500 * MIB)


def test_where_there_is_no_mark_the_peak_is_unknown_not_old(tmp_path: Path) -> None:
    mark = HighWater(trees.machine(tmp_path))
    assert mark.read() is None
    mark.reset()
    assert (mark.method, mark.read()) == ("not available", None)


def test_a_mark_that_becomes_forbidden_is_noticed(tmp_path: Path) -> None:
    trees.machine(tmp_path)
    trees.put(tmp_path, "proc/self/clear_refs", "")
    mark = HighWater(tmp_path)
    mark.reset()
    os.unlink(tmp_path / "proc/self/clear_refs")
    mark.reset()
    assert mark.read() is None
