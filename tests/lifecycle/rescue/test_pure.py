"""The parts that only decide or describe."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from memkit.lifecycle.rescue import cause
from memkit.lifecycle.rescue.cause import Counters, Ended, likely
from memkit.lifecycle.rescue.due import due_in
from memkit.lifecycle.rescue.journal import Doing, Journal, first_line
from memkit.lifecycle.rescue.status import RescueStatus
from memkit.memory.cgroup import Group
from memkit.units import GIB


@pytest.mark.parametrize(
    ("cost", "since", "expected"),
    [(None, 0.0, 0.0), (0.049, 0.0, 0.0), (0.050, 0.0, 2.5), (0.2, 9.0, 1.0), (0.2, 10.1, 0.0)],
)
def test_a_dear_picture_waits_until_it_is_two_percent_of_the_time(
    cost: float | None, since: float, expected: float
) -> None:
    assert due_in(cost, since) == pytest.approx(expected)


_FULL = Counters(kills=0, peak=int(1.49 * GIB), limit=int(1.5 * GIB))


@pytest.mark.parametrize(
    ("how", "before", "after", "words"),
    [
        (Ended(signal=9), Counters(3), Counters(4, GIB, GIB), "for want of memory (limit 1.00 GiB)"),
        (Ended(), Counters(3), Counters(4), "for want of memory"),
        (Ended(signal=9), Counters(0), _FULL, "probably for want of memory"),
        (Ended(signal=9), Counters(0), Counters(0), "killed (SIGKILL)"),
        (Ended(signal=11), Counters(3), Counters(4), "SIGSEGV"),  # another process was the victim
        (Ended(signal=6), Counters(), Counters(), "abort"),
        (Ended(signal=30), Counters(), Counters(), "signal 30"),
        (Ended(code=3), Counters(), Counters(), "code 3"),
        (Ended(), Counters(), Counters(), "unknown"),
    ],
)
def test_the_likely_cause(how: Ended, before: Counters, after: Counters, words: str) -> None:
    assert words in likely(how, before, after)


def test_counters_of_both_versions(tmp_path: Path) -> None:
    one, two = tmp_path / "v1", tmp_path / "v2"
    for folder in (one, two):
        folder.mkdir()
    (one / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (one / "memory.max_usage_in_bytes").write_text("77\n")
    (one / "memory.limit_in_bytes").write_text("100\n")
    (two / "memory.events").write_text("low 0\noom 5\noom_kill 4\noom_group_kill 0\n")
    (two / "memory.peak").write_text("66\n")
    (two / "memory.max").write_text("max\n")
    assert cause.counters((Group(1, str(one)),)) == Counters(2, 77, 100)
    assert cause.counters((Group(2, str(two)),)) == Counters(4, 66, None)
    assert cause.counters(()) == Counters()


def test_the_journal_says_what_was_written_last_and_no_more_than_a_line() -> None:
    journal = Journal()
    assert journal.read() == Doing()
    doing = Doing(cell=3, line=first_line("# note\n\n" + "x" * 500 + "\nsecret = 1"), running=True)
    journal.write(doing)
    assert journal.read() == doing
    assert journal.read().line == "x" * 120
    journal.close()


def test_a_signals_name_is_known() -> None:
    assert likely(Ended(signal=int(signal.SIGBUS)), Counters(), Counters()).count("SIGBUS") == 1


def test_status_says_what_is_in_the_way() -> None:
    assert "macOS" in str(RescueStatus(False, "on macOS a process with threads cannot be forked safely"))
    shown = str(RescueStatus(True, child=7, taken=0.0, last_cost=0.02, median_cost=0.01, takes=3, skipped=1, private=0))
    assert "process 7" in shown
    assert "3 taken, 1 skipped, 10.0 ms each, the last 20.0 ms" in shown
