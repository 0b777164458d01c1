"""Fixtures for every test; the autouse one fails a test that leaves threads or open files behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memkit.memory import heap

# As in a kernel: large blocks have pages of their own, and tests that measure memory see them come and go.
heap.tune()

_QUIET_THREADS = ("IPythonHistorySavingThread", "asyncio_", "ThreadPoolExecutor", "pytest_timeout", "Thread-tmp")


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.name.startswith(_QUIET_THREADS)}


def _files() -> set[str]:
    """Regular files this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return set()
    targets = set()
    for fd in os.listdir(folder):
        try:
            target = os.readlink(folder / fd)
        except OSError:
            continue
        if target.startswith("/") and not target.startswith(("/dev", "/proc", "/sys")):
            targets.add(target)
    return targets


def _opened(before: set[str]) -> set[str]:
    return {name for name in _files() - before if "memkit" in name}


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test that leaves a thread running or a file open."""
    threads, files = _threads(), _files()
    yield
    if request.node.get_closest_marker("kernel"):
        return
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        left = {t for t in _threads() - threads if t.is_alive()}
        if not left:
            break
        time.sleep(0.01)
    assert not left, f"threads left running: {left}"
    if _opened(files):
        gc.collect()  # tens of ms once torch is loaded, so only where it matters
        assert not _opened(files), f"files left open: {_opened(files)}"
