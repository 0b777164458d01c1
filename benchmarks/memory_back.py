"""How much of what values had taken is back after their release, each case in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator

from benchmarks.table import Row, row

CASES = {
    "arrays": "[numpy.random.default_rng(n).random(2**20) for n in range(40)]",
    "tensors": "[torch.randn(1000) for n in range(80_000)]",
    "frames": (
        "[pandas.DataFrame({'a': numpy.arange(1e6), 'b': [f'text {i}' for i in range(1_000_000)]}) for n in range(8)]"
    ),
    "lists of small objects": "[[str(i) * 3, i, {'k': i}] for i in range(600_000)]",
}
_CODE = textwrap.dedent("""
    import json, numpy, pandas, torch
    import memkit
    from memkit.memory import heap
    heap.tune()
    session = memkit.session()
    session.meter.give_back()
    warm = {make}[:1]; del warm; session.meter.give_back()
    before = session.meter.read()
    memkit.track({make}, name="x")
    grown = session.meter.read() - before
    report = memkit.release("x")
    print(json.dumps([report.measured / grown * 100, grown]))
""")


def rows() -> Iterator[Row]:
    for name, make in CASES.items():
        found = []
        for _ in range(3):
            code = _CODE.format(make=make)
            out = subprocess.check_output([sys.executable, "-c", code], text=True)
            share, grown = json.loads(out.splitlines()[-1])
            found.append(share)
        note = f"{grown / 2**20:.0f} MiB"
        against = "bytes measured before"
        yield row(f"memory back after release: {name}", against, found, " %", 95, smaller_is_better=False, note=note)
