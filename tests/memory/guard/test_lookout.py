"""The watch as a thread: what remains where no process can watch."""

from __future__ import annotations

import sys

import pytest

from tests.memory.guard.conftest import Run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tried with the limits of Linux")
_IN_A_THREAD = """
guard.stop()
from memkit.memory.guard.gauge import PortableGauge
guard._gauge = PortableGauge()
guard.limit.works = False
guard.start()
print(type(guard.companion).__name__)
"""


def test_a_python_loop_is_ended_without_any_limit(run: Run) -> None:
    out = run(
        _IN_A_THREAD
        + """
print(type(cell("rows = []\\nwhile True: rows.append(bytes(2_000))")).__name__, guard.limit.soft)
print(cell("del rows"), guard.page.readings > 0)
"""
    )
    assert out.splitlines() == ["Lookout", "MemoryGuardError None", "None True"]


def test_memory_is_asked_for_first(run: Run) -> None:
    out = run(
        _IN_A_THREAD
        + """
space["spare"] = bytearray(b"1" * MIB) * 150
guard.companion._relieve = lambda needed: space.pop("spare", None)
print(cell("rows = [(bytearray(b'1' * MIB), time.sleep(0.002)) for _ in range(200)]") is None, "spare" in space)
"""
    )
    assert out.splitlines()[1] == "True False"


def test_the_status_says_what_is_missing(run: Run) -> None:
    out = run(
        _IN_A_THREAD
        + """
parts = {part.name: part for part in guard.status().mechanisms}
print(parts["soft limit"].state, parts["watcher"].state, parts["watcher"].note)
"""
    )
    assert out.splitlines()[1].startswith("unavailable unavailable no watcher process on ")
