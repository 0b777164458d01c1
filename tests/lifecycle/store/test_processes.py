"""Forks, threads, and the memory that a spill and a restoration really take, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memkit.lifecycle.store import Store

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(action: Any) -> int:
    """Run in a forked child; 0 where nothing was raised."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_reads_but_never_removes(store: Store) -> None:
    """A child that saves what its kernel had must find the files; one that ends must leave them."""
    stored, packed = store.spill({"x": [1, 2, 3]}), store.pack({"y": ["a"] * 100_000})

    def child() -> None:
        assert store.load(stored) == {"x": [1, 2, 3]}
        assert len(store.load(packed)["y"]) == 100_000  # type: ignore[arg-type]
        store.discard(stored)
        store.discard(packed)
        store.close()

    assert in_child(child) == 0
    assert store.load(stored) == {"x": [1, 2, 3]}
    assert store.directory is not None
    assert store.directory.exists()


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_spills_to_a_folder_of_its_own(store: Store, tmp_path: Path) -> None:
    store.spill({"x": [1]})
    parent = store.directory

    def child() -> None:
        stored = store.spill({"z": [4]})
        assert store.directory != parent
        assert store.load(stored) == {"z": [4]}
        store.discard(stored)
        assert stored.path is not None
        assert not stored.path.exists()
        store.close()

    assert in_child(child) == 0
    assert list((tmp_path / f"memkit-{os.getuid()}").iterdir()) == [parent]


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_while_another_thread_is_at_work(store: Store) -> None:
    """The child does not wait for a lock that nobody in it holds."""
    store.spill({"x": [1]})
    with store._accounts.lock:
        assert in_child(lambda: store.spill({"w": [1]})) == 0


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_the_lock_outlives_the_kernel_while_a_child_lives(tmp_path: Path) -> None:
    """A child that saves what is spilled after its kernel died must not lose it to the next kernel's sweep."""
    code = """
import os, signal, sys
from pathlib import Path
from memkit.lifecycle.store import Store
store = Store(Path(sys.argv[1]))
stored = store.spill({"x": list(range(1000))})
if os.fork() == 0:
    sys.stdin.readline()
    ok = store.load(stored)["x"] == list(range(1000))
    print("saved" if ok else "lost", flush=True)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.wait()
    store = Store(tmp_path)
    store.spill({"y": [1]})  # sweeps
    assert process.communicate("go\n", timeout=30)[0].strip() == "saved"
    store.close()


def test_many_threads_at_once(store: Store) -> None:
    """Spilling, packing, restoring and discarding, each its own; the accounts come out even."""
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(5):
                value = [np.random.default_rng(seed).random(30_000), list(range(i * 100))]
                stored = store.spill({"value": value})
                again: Any = store.load(stored)["value"]
                assert (again[0] == value[0]).all()
                assert again[1] == value[1]
                store.discard(stored)
                store.discard(store.pack({"value": list(range(50_000))}))
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.bytes_on_disk == store.bytes_compressed == 0


PEAK = """
import ctypes, gc, sys, threading
from pathlib import Path
import numpy as np
from memkit.lifecycle.store import Store

def anonymous():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) // 1024

def peak(action):
    start, top, stop = anonymous(), [0], threading.Event()
    def watch():
        while not stop.wait(0.001):
            top[0] = max(top[0], anonymous() - start)
    thread = threading.Thread(target=watch)
    thread.start()
    result = action()
    stop.set()
    thread.join()
    return result, max(top[0], 0)

store = Store(Path(sys.argv[1]))
size = 512 << 20
makers = {
    "noise": lambda: np.random.default_rng(0).random(size // 8),
    "turned": lambda: np.random.default_rng(0).random((1024, size // 8192)).T[::-1],
    "zeros": lambda: np.zeros(size // 8),
}
store.load(store.spill({"warm": makers["noise"]()[:1000].copy()}))
for name, make in makers.items():
    values = {"value": make()}
    total = float(values["value"].sum())
    stored, spilling = peak(lambda: store.spill(values, exempt_refs={"value": 0}))
    values.clear()
    gc.collect()
    again, restoring = peak(lambda: store.load(stored))
    assert float(again["value"].sum()) == total
    after = anonymous()
    del again
    store.discard(stored)
    print(name, spilling, restoring, flush=True)
store.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_half_a_gibibyte_there_and_back_takes_less_than_64_mib(tmp_path: Path) -> None:
    """Anonymous memory on top, while 512 MiB are spilled and while they are restored."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    figures = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in done.stdout.splitlines()}
    assert set(figures) == {"noise", "turned", "zeros"}
    assert all(max(pair) <= 64 for pair in figures.values()), figures


LIMITED = """
import gc, resource, sys
from pathlib import Path
import numpy as np
from memkit.lifecycle.store import Store
store = Store(Path(sys.argv[1]))
values = {"value": np.random.default_rng(0).random(20_000_000)}
total = values["value"].sum()
stored = store.spill(values, exempt_refs={"value": 0})
values.clear()
gc.collect()
used = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData"))
soft = used + (50 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (soft, -1))
loaded = store.load(stored)  # a soft limit makes way for a mapping
assert loaded["value"].sum() == total
del loaded
gc.collect()
resource.setrlimit(resource.RLIMIT_DATA, (soft, soft))
try:
    store.load(stored)
    sys.exit("it was loaded")
except MemoryError:
    pass
assert stored.path.exists()
store.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts private mappings on Linux only")
def test_a_restoration_without_room_is_a_memory_error_and_loses_nothing(tmp_path: Path) -> None:
    """Private mappings count against RLIMIT_DATA, though they take no memory: a hard limit is not to be moved."""
    subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], check=True)
