"""The watcher's life: started once, restarted when killed, gone with the kernel, never an orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.memory.guard.conftest import _PRELUDE, ROOT, Run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the watcher is Linux")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def wait_until(done: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def kernel() -> Iterator[subprocess.Popen[str]]:
    """A process with a guard that waits; `watcher` and its own pid are what it printed."""
    code = _PRELUDE % {"room": 2**30} + "\nprint(guard.companion.pid, flush=True)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def watcher_of(kernel: subprocess.Popen[str]) -> int:
    assert kernel.stdout is not None
    return int(kernel.stdout.readline())


def test_it_ends_when_the_kernel_is_killed(kernel: subprocess.Popen[str]) -> None:
    watcher = watcher_of(kernel)
    assert alive(watcher)
    kernel.kill()
    kernel.wait()
    wait_until(lambda: not alive(watcher))


def test_a_stopped_one_ends_with_the_kernel_too(kernel: subprocess.Popen[str]) -> None:
    watcher = watcher_of(kernel)
    os.kill(watcher, signal.SIGSTOP)
    kernel.kill()
    kernel.wait()
    wait_until(lambda: not alive(watcher))


def test_interrupts_are_for_the_kernel(kernel: subprocess.Popen[str]) -> None:
    watcher = watcher_of(kernel)
    os.kill(watcher, signal.SIGINT)
    time.sleep(0.1)
    assert alive(watcher)


def test_a_killed_one_is_started_again_and_keeps_the_limit(run: Run) -> None:
    out = run("""
import signal
first = guard.companion.pid
os.kill(first, signal.SIGKILL)
wait_until(lambda: guard.companion.pid not in (0, first))
readings = guard.page.readings
wait_until(lambda: guard.page.readings > readings)
print(guard.companion.count, os.path.exists(f"/proc/{first}"))
print(type(cell("rows = []\\nwhile True: rows.append(bytes(2_000))")).__name__)
""")
    assert out.splitlines() == ["2 False", "MemoryGuardError"]


def test_one_that_dies_again_and_again_is_given_up_and_the_status_says_so(run: Run) -> None:
    out = run("""
import signal
for _ in range(5):
    wait_until(lambda: guard.companion.pid or guard.companion.trouble)
    os.kill(guard.companion.pid, signal.SIGKILL)
    old = guard.companion.pid
    wait_until(lambda: guard.companion.pid != old)
wait_until(lambda: guard.companion.trouble)
part = [m for m in guard.status().mechanisms if m.name == "watcher"][0]
print(part.state, part.note)
print(type(cell("x = bytearray(10 ** 10)")).__name__)
""")
    assert out.splitlines() == ["unavailable it ended 5 times within a minute", "MemoryError"]


def test_stopping_leaves_no_process_behind(run: Run) -> None:
    out = run("""
pid = guard.companion.pid
guard.stop()
print(os.path.exists(f"/proc/{pid}"))
""")
    assert out == "False\n"


def test_the_status_tells_what_it_costs(run: Run) -> None:
    out = run("""
status = guard.status()
print(status.watcher_memory < 15 * MIB, status.watcher_cpu < 5, str(status).splitlines()[0].startswith("guard on: "))
""")
    assert out == "True True True\n"


def test_where_no_process_can_be_started_it_says_so_and_the_limit_still_holds(run: Run) -> None:
    out = run("""
guard.stop()
sys.executable = "/no/such/python"
guard.start()
wait_until(lambda: guard.companion.trouble)
print(guard.companion.trouble.startswith("it cannot be started"), type(cell("x = bytearray(10 ** 10)")).__name__)
""")
    assert out == "True MemoryError\n"
