"""How much can still be had."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from memkit.errors import ReadingError
from memkit.memory.guard.gauge import Gauge, PortableGauge, _machine
from memkit.units import GIB, MIB

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux")


@linux
def test_it_reads_this_process_and_what_is_free() -> None:
    reading = Gauge(environ={}).read()
    assert 0 < reading.free <= reading.limit
    assert 0 < reading.anonymous <= reading.private < reading.limit
    assert reading.data > reading.anonymous // 2


@linux
def test_a_limit_of_the_users_counts_this_process_and_its_descendants() -> None:
    gauge = Gauge(environ={})
    gauge.user_limit = gauge.read().private + 100 * MIB
    assert gauge.read().free == pytest.approx(100 * MIB, abs=20 * MIB)
    with holding(60 * MIB) as child:
        assert gauge.read().free == pytest.approx(40 * MIB, abs=20 * MIB)
        gauge.spared = lambda: {child.pid}
        assert gauge.read().free == pytest.approx(100 * MIB, abs=20 * MIB)


@linux
def test_what_is_unmapped_while_it_is_read_is_not_given_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = Gauge(environ={})
    looks = [{"VmData": data * MIB, "RssAnon": data * MIB, "VmRSS": data * MIB} for data in (900, 400, 400, 900)]
    monkeypatch.setattr(gauge, "_process", lambda: looks.pop(0))
    assert gauge.read().data == 400 * MIB
    assert gauge.read().data == 400 * MIB


@linux
def test_the_hubs_limit_counts_too() -> None:
    assert Gauge(environ={"MEM_LIMIT": str(50 * GIB)}).read().limit <= 50 * GIB
    assert Gauge(environ={"MEM_LIMIT": str(300 * MIB)}).read().limit == 300 * MIB


@linux
def test_descendants_of_a_spared_process_are_spared() -> None:
    with holding(MIB, nested=True) as child:
        gauge = Gauge()
        wait_until(lambda: len(gauge.offspring()) >= 2)
        gauge.spared = lambda: {child.pid}
        assert gauge.offspring() == set()


@linux
def test_a_process_that_has_ended_is_an_error() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with pytest.raises(ReadingError):
        Gauge(pid=done.pid).read()


def test_free_swap_counts_up_to_a_quarter_of_the_memory() -> None:
    sizes = {"MemTotal": 8 * GIB, "MemAvailable": GIB, "SwapFree": GIB}
    assert _machine(sizes).room == 2 * GIB
    assert _machine(sizes | {"SwapFree": 100 * GIB}).room == 3 * GIB
    assert _machine(sizes | {"SwapFree": 0}).room == GIB


def test_without_proc_the_machine_and_the_users_limit_are_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = PortableGauge()
    machine = SimpleNamespace(total=8 * GIB, available=3 * GIB)
    process = SimpleNamespace(private=GIB, rss=GIB)
    monkeypatch.setattr(gauge, "_source", SimpleNamespace(process=lambda: process, machine=lambda: machine))
    assert gauge.read().free == 3 * GIB
    gauge.user_limit = GIB + 100
    assert gauge.read().free == 100


class holding:
    """A child process that holds some bytes, perhaps with a child of its own."""

    def __init__(self, size: int, nested: bool = False) -> None:
        code = f"x = bytearray(b'1' * {size}); print(flush=True); input()"
        if nested:
            code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()']); " + code
        self._command = [sys.executable, "-c", code]

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.communicate(b"\n\n")


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
