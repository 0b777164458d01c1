"""Giving memory back, on real workloads in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from memkit.memory import heap

glibc = pytest.mark.skipif(heap.allocator().trim is None, reason="this C library gives nothing back on request")

_WORK = """
import gc, json, sys
from memkit.memory import heap
from memkit.memory.sample import anonymous_now
import numpy as np
gc.disable()
if sys.argv[1] == "tuned":
    assert heap.tune()
base = anonymous_now(); seen = []
def look(): seen.append(round((anonymous_now() - base) / 2**20))
def arrays(): return [np.ones(256) for _ in range(400_000)]
def blocks(): return [np.ones(40_000) for _ in range(1000)]
def cycles():
    made = []
    for _ in range(1_000_000):
        one = []; one.append(one); made.append(one)
    return made
if sys.argv[2] == "blocks":
    np.ones(3_900_000)  # one large free, after which glibc keeps blocks of up to 30 MB in its heap
made = globals()[sys.argv[2]](); look()
keep = made[-1]; del made; look()
del keep; heap.give_back(collect=False); look()
print(json.dumps(seen + [round(heap.give_back(), 3)])); look(); print(seen[-1])
"""


def run(mode: str, work: str) -> tuple[list[float], int]:
    """MiB at the peak, after letting go, after a trim, the seconds of giving back with a collection; MiB after that."""
    result = subprocess.run([sys.executable, "-c", _WORK, mode, work], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    first, last = result.stdout.splitlines()
    print(mode, work, "MiB: peak, freed, trimmed, seconds =", first, "collected and trimmed =", last)
    return json.loads(first), int(last)


@glibc
def test_trimming_returns_hundreds_of_thousands_of_small_arrays() -> None:
    (peak, _, trimmed, _), _ = run("plain", "arrays")
    assert peak > 750
    assert trimmed < 60


@glibc
def test_garbage_cycles_need_the_collection_too() -> None:
    (peak, freed, trimmed, _), collected = run("plain", "cycles")
    assert peak > 80
    assert min(freed, trimmed) > 60
    assert collected < 30


@glibc
def test_tuned_blocks_return_as_soon_as_they_are_freed() -> None:
    """Without tuning they stay while one block above them lives."""
    (peak, freed, _, _), _ = run("tuned", "blocks")
    (_, untuned, _, _), _ = run("plain", "blocks")
    assert peak > 290
    assert freed < 20
    assert untuned > 10 * max(freed, 1)


def test_pools_of_loaded_libraries_are_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    pool = SimpleNamespace(release_unused=lambda: done.append("pyarrow"))
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: done.append("cuda")),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: True)),
        mps=SimpleNamespace(empty_cache=lambda: done.append("mps")),
    )
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(default_memory_pool=lambda: pool))
    monkeypatch.setitem(sys.modules, "torch", torch)
    heap.trim()
    assert done == ["pyarrow", "cuda", "mps"]


def test_a_pool_that_fails_does_not_keep_the_heap_from_being_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace())
    monkeypatch.setattr(heap, "allocator", lambda: heap.Allocator("fake", trim=lambda pad: cut.append(pad) or 1))
    assert heap.trim()
    assert cut == [0]


def test_the_real_pyarrow_pool_gives_back() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    heap._release_pyarrow(pyarrow)


def test_other_c_libraries_say_that_they_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(heap.os, "confstr", unknown, raising=False)
    plain = heap.allocator.__wrapped__()
    assert plain.mallopt is None
    assert plain.trim is None
    assert sys.platform in plain.name
    monkeypatch.setattr(heap, "allocator", lambda: plain)
    assert not heap.tune()
    assert not heap.trim()
    assert heap.give_back(collect=False) >= 0
