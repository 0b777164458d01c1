"""What the accounting of a cell costs it, and how exact its peak is."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from benchmarks.kernel import _in_kernel
from benchmarks.table import Row, row

_MIB = 2**20

_HOOK = textwrap.dedent("""
    import json, time
    import memkit
    from memkit.notebook.extension import loaded
    shell = get_ipython()
    shell.run_line_magic("load_ext", "memkit")
    cells = loaded(shell).cells
    cells.listeners.clear()  # what others do around cells is measured where they are
    def once(count=300):
        times = []
        for _ in range(count):
            began = time.perf_counter()
            shell.run_cell("pass", store_history=False)
            times.append(time.perf_counter() - began)
        return min(times)  # the least disturbed of them
    once()
    values = []
    for _ in range(9):
        having = once()
        cells.uninstall()
        without = once()
        cells.install()
        values.append((having - without) * 1000)
    print()
    print(json.dumps(values))
""")

# The system's own mark is read when the cell is over and before the next one begins.
_MARKED = textwrap.dedent("""
    get_ipython().run_line_magic("load_ext", "memkit")
    import json, mmap, re
    from memkit.notebook.extension import loaded
    answers = []
    def mark(what, record):
        if what == "record" and record.source.startswith("%%memkit"):
            status = open("/proc/self/status").read()
            answers.append((record.needed, record.peak, int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) * 1024))
    loaded(get_ipython()).cells.listeners.append(mark)
    def take(mib):
        m = mmap.mmap(-1, mib * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        m[::4096] = bytes(len(m) // 4096)
        m.close()
""")
_SIZES = [round(4 * 1.3**number) for number in range(20)]  # 4 MiB to 585 MiB


def hook() -> Row:
    printed = _in_kernel(_HOOK)
    return row("accounting of a cell", "the same kernel without", json.loads(printed.splitlines()[-1]), " ms", 1.0)


def exactness() -> Iterator[Row]:
    known, marked = [], []
    for _ in range(3):
        cells = [f"%%memkit -q\ntake({mib})" for mib in _SIZES]
        printed = _in_kernel(_MARKED, *cells, "print()\nprint(json.dumps(answers))")
        answers = json.loads(printed.splitlines()[-1])
        assert len(answers) == len(_SIZES)
        known.append(max(abs(one[0] - mib * _MIB) / _MIB for one, mib in zip(answers, _SIZES, strict=True)))
        marked.append(max(abs(peak - mark) / _MIB for _, peak, mark in answers))
    what = "%%memkit, worst of 20 peaks"
    yield row(what, "the bytes that were allocated", known, " MiB", 1.0)
    yield row(what, "the system's high-water mark", marked, " MiB", 1.0)


def rows() -> Iterator[Row]:
    yield hook()
    yield from exactness()
