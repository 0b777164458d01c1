"""What watching costs here; printed, not asserted (see it with `pytest -s`)."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

from memkit.memory.history import History
from memkit.memory.monitor import Monitor
from memkit.memory.sample import Reader, anonymous_now


def _microseconds(work: Callable[[], object], times: int = 300) -> float:
    work()
    start = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - start) / times * 1e6


def test_the_cost_of_a_sample_is_printed() -> None:
    reader, limited = Reader(), Reader(user_limit=sys.maxsize)
    monitor = Monitor(reader)
    turn = _microseconds(monitor.sample_now)
    print(f"\nsample {_microseconds(reader):.0f} us, with a user limit {_microseconds(limited):.0f} us")
    print(f"anonymous_now {_microseconds(anonymous_now):.0f} us, sample_now {turn:.0f} us")
    print(f"at one sample in 5 s: {turn / 5e6 * 100:.4f} % of a core")


def test_the_cost_of_a_day_of_history_is_printed() -> None:
    sample, history = Reader()(), History()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for count in range(0, 86400, 5):
        # Fresh numbers, as a real reading makes them; equal ones would be shared and look cheaper.
        history.append(replace(sample, time=sample.time + count, rss=sample.rss + count, vms=sample.vms + count))
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"\na day at 5 s: {len(history)} samples, {size / 1e6:.2f} MB")
