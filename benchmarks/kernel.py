"""What memkit costs a kernel: loading, every cell, the monitor's thread."""

from __future__ import annotations

import compileall
import json
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.manager import KernelManager

import memkit
from benchmarks.table import Row, row

_LOAD = textwrap.dedent("""
    import json, os, time
    def rss():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    before, began = rss(), time.perf_counter()
    get_ipython().run_line_magic("load_ext", {extension!r})
    print(json.dumps([time.perf_counter() - began, rss() - before]))
""")
_MIB = 2**20


def _in_kernel(*cells: str) -> str:
    """Run cells in a fresh kernel; what the last one printed."""
    manager = KernelManager()
    manager.start_kernel(stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    out: list[str] = []

    def hook(message: dict) -> None:
        if message["msg_type"] == "stream":
            out.append(message["content"]["text"])
        if message["msg_type"] == "error":
            raise RuntimeError("\n".join(message["content"]["traceback"]))

    try:
        for cell in cells:
            out.clear()
            client.execute_interactive(cell, output_hook=hook, timeout=300)
        return "".join(out)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def load_ext() -> Iterator[Row]:
    """An extension that does nothing is the peer: what `%load_ext` itself costs is taken off.

    memkit is compiled to bytecode first, as an installed package is.
    """
    compileall.compile_dir(Path(memkit.__file__).parent, quiet=1)
    empty = "import sys, types; m = types.ModuleType('empty_ext'); m.load_ipython_extension = lambda ip: None; "
    empty += "sys.modules['empty_ext'] = m"
    milliseconds, mebibytes = [], []
    for _ in range(5):
        base = json.loads(_in_kernel(empty, _LOAD.format(extension="empty_ext")).splitlines()[-1])
        ours = json.loads(_in_kernel(empty, _LOAD.format(extension="memkit")).splitlines()[-1])
        milliseconds.append((ours[0] - base[0]) * 1000)
        mebibytes.append((ours[1] - base[1]) / _MIB)
    yield row("%load_ext memkit, time", "the same kernel without", milliseconds, " ms", 80)
    yield row("%load_ext memkit, RSS", "the same kernel without", mebibytes, " MiB", 8)


_CELLS = textwrap.dedent("""
    import json, statistics, time
    shell = get_ipython()
    source = {source!r}
    for number in range(20):
        shell.user_ns[f"v{{number}}"] = [0] * 1000
    def once(count={count}):
        times = []
        for _ in range(count):
            began = time.perf_counter()
            shell.run_cell(source, store_history=False)
            times.append(time.perf_counter() - began)
        return min(times)  # the least disturbed of them
    once(20)
""")
_COMPARE = textwrap.dedent("""
    values = []
    for _ in range(9):
        shell.run_line_magic("load_ext", "memkit")
        memory = __import__("memkit")
        for number in range(20):
            memory.session().register(f"v{number}")
        having = once()
        shell.run_line_magic("unload_ext", "memkit")
        values.append((having - once()) * 1000)
    print()
    print(json.dumps(values))
""")


def _statements(lines: int) -> str:
    kinds = [
        "x{0} = [n * {0} for n in range(3)]",
        "y{0} = {{'a': x{0}, 'b': v{1}}}",
        "def f{0}(a, b=1):\n    return a + b + len(v{1})",
        "z{0} = f'{{x{0}}} and more' if x{0} else None",
    ]
    text = "\n".join(kinds[number % 4].format(number - number % 4, number % 20) for number in range(lines))
    return "\n".join(text.splitlines()[:lines])


def cell_overhead() -> Iterator[Row]:
    """With 20 tracked variables, of which the long cell mentions all."""
    for what, source, count, reach in (
        ("a cell that does nothing", "pass", 300, 1.0),
        ("a 200-line cell", _statements(200), 60, 5.0),
    ):
        printed = _in_kernel(_CELLS.format(source=source, count=count), _COMPARE)
        values = json.loads(printed.strip().splitlines()[-1])
        yield row(f"overhead of {what}", "the same kernel without", values, " ms", reach)


_MONITOR = textwrap.dedent("""
    import time
    import memkit
    memkit.load_ipython_extension(get_ipython())
    session = memkit.session()
    time.sleep(5.5)
    cpu, began = time.process_time(), time.perf_counter()
    time.sleep(60)
    print()
    print((time.process_time() - cpu) / (time.perf_counter() - began) * 100)
""")
_IDLE = _MONITOR.replace("memkit.load_ipython_extension(get_ipython())", "").replace("session = memkit.session()", "")


def monitor() -> Row:
    found = []
    for _ in range(2):
        with_it = float(_in_kernel(_MONITOR).splitlines()[-1])
        without = float(_in_kernel(_IDLE).splitlines()[-1])
        found.append(with_it - without)
    return row("monitor, 5 s interval, over a minute", "the same kernel without", found, " % of a core", 0.1)


def rows() -> Iterator[Row]:
    yield from load_ext()
    yield from cell_overhead()
    yield monitor()
