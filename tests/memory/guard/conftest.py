"""A process with a guard, as small as a kernel can be: cells are run in it, and the test reads what it prints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_PRELUDE = """
import os, sys, threading, time
from memkit.errors import MemoryGuardError
from memkit.memory.guard.gauge import Gauge
from memkit.memory.guard.guard import Guard
from memkit.units import GIB, MIB

space = {"__name__": "__main__", "MIB": MIB, "time": time, "threading": threading}
asked = []
start = Gauge().read().private
guard = Guard(
    is_user=lambda frame: frame.f_globals is space, relieve=asked.append, user_limit=lambda: start + %(room)d
)
space["guard"] = guard

def cell(code):
    "Run it as a cell is; what it ended with."
    guard.begin_cell()
    try:
        exec(compile(code, "<cell>", "exec"), space)
    except BaseException as error:
        return error.with_traceback(None)
    finally:
        guard.end_cell()

def wait_until(done, seconds=20):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)

guard.start()
wait_until(lambda: guard.page.readings > 0)
"""

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """Run code after the prelude in a process of its own, which may take `room` bytes; what it printed."""

    def run(code: str, room: int = 400 * 2**20) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _PRELUDE % {"room": room} + code + "\nguard.close()"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
