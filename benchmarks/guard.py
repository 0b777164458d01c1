"""What the guard costs, and how quickly it ends a cell."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Row, row

_MIB = 2**20
_PRELUDE = """
import json, os, statistics, sys, time
from memkit.errors import MemoryGuardError
from memkit.memory.guard.gauge import Gauge
from memkit.memory.guard.guard import Guard
from memkit.memory.guard.status import cost_of
start = Gauge().read().private
space = {"time": time, "__name__": "__main__"}
guard = Guard(is_user=lambda f: f.f_globals is space, relieve=lambda n: None, user_limit=lambda: ROOM and start + ROOM)

def cell(code):
    guard.begin_cell()
    try:
        exec(compile(code, "<cell>", "exec"), space)
    except MemoryError as error:
        space["ended"] = time.perf_counter()
        return error.with_traceback(None)
    finally:
        guard.end_cell()

def watcher():
    while not guard.page.readings:
        time.sleep(0.01)
    return cost_of(guard.companion.pid)
guard.start()
watcher()
"""


def _run(code: str, room: int = 0) -> list[float]:
    """What a process of its own printed as JSON; it may take `room` bytes, 0 = what the machine has."""
    command = [sys.executable, "-c", f"ROOM = {room}\n" + _PRELUDE + textwrap.dedent(code)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True, timeout=600
    )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def runaway() -> Iterator[Row]:
    """From the append that crosses the trip mark to the end of the cell, for a loop of Python."""
    times = _run(
        """
        times = []
        for number in range(41):
            guard.begin_cell()
            crossing = (guard.read().free - guard.page.trip) // 2100
            guard.end_cell()
            space["crossing"] = crossing
            cell("rows = []\\nfor _ in range(crossing): rows.append(bytes(2048))\\n"
                 "crossed = time.perf_counter()\\nwhile True: rows.append(bytes(2048))")
            times.append((space["ended"] - space["crossed"]) * 1000)
            cell("rows = None")
        print(json.dumps(times[1:]))
        """,
        room=400 * _MIB,
    )
    yield row("runaway Python loop: from the trip mark to its end", "-", times, " ms", 50)
    yield row("... the worst of 40", "-", [max(times)], " ms", 500)


def watcher() -> Iterator[Row]:
    """CPU of the watcher over ten seconds, while the kernel idles and while a cell computes; its RSS; the hooks."""
    idle, busy, memory, hooks = _run(
        """
        def share(seconds, code):
            before = watcher()[1]
            began = time.perf_counter()
            code(seconds)
            return (watcher()[1] - before) / (time.perf_counter() - began) * 100
        def compute(seconds):
            space["seconds"] = seconds
            cell("until = time.perf_counter() + seconds\\nwhile time.perf_counter() < until: sum(range(1000))")
        idle, busy = share(10, time.sleep), share(10, compute)
        times = []
        for _ in range(200):
            began = time.perf_counter()
            guard.begin_cell(); guard.end_cell()
            times.append((time.perf_counter() - began) * 1000)
        print(json.dumps([idle, busy, watcher()[0] / 2**20, statistics.median(times)]))
        """
    )
    yield row("guard's watcher, idle", "one core", [idle], " %", 0.3)
    yield row("guard's watcher, a cell runs", "one core", [busy], " %", 1.5)
    yield row("guard's watcher, RSS", "-", [memory], " MiB", 14)
    yield row("guard's hooks around a cell", "-", [hooks], " ms", 1)


_WORK = {
    "pandas groupby": (
        "import numpy as np, pandas as pd; frame = pd.DataFrame({'k': np.arange(2_000_000) % 1000, 'v': 1.0})",
        "frame.groupby('k').v.agg(['mean', 'std']); frame.assign(w=frame.v * 2)",
    ),
    "numpy": ("import numpy as np", "[np.ones(4_000_000) * 2 for _ in range(10)]"),
    "torch step": (
        "import torch; net = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 8)); "
        "x = torch.ones(2048, 512); opt = torch.optim.SGD(net.parameters(), 0.01)",
        "for _ in range(5): opt.zero_grad(); net(x).sum().backward(); opt.step()",
    ),
}


def slowdown() -> Iterator[Row]:
    """The same work with the guard on and off, in turn, in one process."""
    for name, (setup, work) in _WORK.items():
        pairs = _run(
            f"""
            exec({setup!r}, space)
            code = compile({work!r}, "<cell>", "exec")
            def once():
                guard.begin_cell()
                began = time.perf_counter()
                exec(code, space)
                seconds = time.perf_counter() - began
                guard.end_cell()
                return seconds
            once(); once()
            ratios = []
            for _ in range(15):
                guard.stop()
                off = sum(once() for _ in range(6))
                seen = guard.page.readings
                guard.start()
                while guard.page.readings == seen: time.sleep(0.01)  # a watcher's start is no cost of a cell
                time.sleep(0.2)
                ratios.append(sum(once() for _ in range(6)) / off)
            print(json.dumps(ratios))
            """
        )
        spread = f"quartiles {statistics.quantiles(pairs)[0]:.3f} - {statistics.quantiles(pairs)[2]:.3f}"
        yield row(f"{name}, guard on", "the same with the guard off", pairs, "x", 1.01, note=spread)


def rows() -> Iterator[Row]:
    yield from runaway()
    yield from watcher()
    yield from slowdown()
