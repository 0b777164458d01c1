"""What only a notebook has: magics, async cells, tasks, widgets, output, history, many cells in a row."""

from __future__ import annotations

from tests.guard.case import UNNAMED, Case

_GROW = "rows = []\nwhile True:\n    rows.append(bytearray(b'\\1') * MIB)"
_GROW_ASYNC = """
import asyncio
rows = []
async def leak():
    while True:
        rows.append(bytearray(b"\\1") * MIB)
        await asyncio.sleep(0)
"""
_BUTTON = """
import ipywidgets
button = ipywidgets.Button(description="grow")
def clicked(_):
    kept = []
    for _ in range(3 * LIMIT // 2 // MIB):
        kept.append(bytearray(b"\\1") * MIB)
button.on_click(clicked)
"""


def _brink(mib: int) -> tuple[str, ...]:
    """Cells that fill memory until so much is left, a third at a time: none of them asks for more than there is."""
    step = f"fill.append(bytearray(b'\\1') * max(0, min(left() // 3, left() - {mib} * MIB)))"
    return ("fill = []", *[step] * 12)


CASES = (
    Case("%%time", "%%time\n" + _GROW),
    Case("%%timeit", "%%timeit -n1 -r1\n" + _GROW),
    Case("%time of one line", "%time rows = list(range(10**6, 10**6 + int(1.5 * LIMIT) // 36))"),
    Case("%%capture", "%%capture out\n" + _GROW),
    Case("%%capture of endless output", "%%capture out\nwhile True:\n    print('x' * MIB)"),
    Case("%%prun", "%%prun\n" + _GROW),
    Case("%run of a script", "%run grow.py", setup=("%%writefile grow.py\n" + _GROW.replace("MIB", "2**20"),)),
    Case("an async cell", _GROW_ASYNC + "await leak()"),
    Case("many tasks at once", _GROW_ASYNC + "await asyncio.gather(*(leak() for _ in range(20)))"),
    Case("a task that outlives its cell", _GROW_ASYNC + "task = asyncio.create_task(leak())", idle=5.0),
    Case(
        "a slow task that outlives its cell",
        """
import asyncio
rows = []
async def leak():
    for _ in range(60):
        rows.append(bytearray(b'\\1') * (LIMIT // 40))
        await asyncio.sleep(0.05)
task = asyncio.create_task(leak())
""",
        idle=5.0,
    ),
    Case(
        "a timer of the event loop",
        """
import asyncio
kept = []
def leak():
    kept.append([bytearray(b'\\1') * MIB for _ in range(3 * LIMIT // 2 // MIB)])
asyncio.get_running_loop().call_later(0.5, leak)
""",
        idle=5.0,
    ),
    Case("a widget's callback", _BUTTON, message=True, idle=5.0),
    Case(
        "a widget's callback, one C call",
        _BUTTON
        + """
def clicked_too(_):
    return numpy.ones(int(1.5 * LIMIT) // 8)
button.on_click(clicked, remove=True)
button.on_click(clicked_too)
""",
        message=True,
        idle=4.0,
        needs=("numpy",),
    ),
    Case("import torch at the brink", "import torch", setup=_brink(110)),
    Case(
        "import torch at the brink, inside a function",
        "def load():\n    import torch\n    return torch.ones(3)\nload()",
        setup=_brink(110),
        errors=frozenset({"ImportError"}),
    ),
    Case("import pandas at the brink", "import pandas", setup=_brink(40)),
    Case(
        "import of several at the brink",
        "import scipy.stats, polars, pyarrow.parquet, matplotlib.pyplot",
        setup=_brink(80),
        errors=frozenset({"ImportError"}),
    ),
    Case(
        "matmul at the brink",
        "a = numpy.ones((300, 300)) @ numpy.ones((300, 300))",
        setup=_brink(40),
        needs=("numpy",),
    ),
    Case(
        "threads at the brink",
        "import threading\nts = [threading.Thread(target=print) for _ in range(30)]\n[t.start() for t in ts]",
        setup=_brink(40),
        errors=frozenset({"RuntimeError"}),
    ),
    Case(
        "a slow leak over 50 cells",
        "leak = globals().get('leak', [])\nleak.append(bytearray(b'\\1') * (LIMIT // 40))",
        times=50,
    ),
    Case(
        "a slow leak of small objects over 50 cells",
        "leak = globals().get('leak', [])\nleak.extend([i] for i in range(LIMIT // 40 // 80))",
        times=50,
    ),
    Case("results kept by Out", "numpy.ones(LIMIT // 12 // 8)", times=18, needs=("numpy",)),
    Case("many incidents in a row", "big = numpy.ones(int(1.5 * LIMIT) // 8)", times=12, needs=("numpy",)),
    Case(
        "many incidents in pieces in a row",
        "rows = []\nwhile True:\n    rows.append(bytearray(b'\\1') * 4 * MIB)",
        times=6,
    ),
    Case(
        "del and go on after an incident",
        _GROW,
        after=(
            "del rows",
            "big = bytearray(b'\\1') * (LIMIT // 3)\nassert big[-1] == 1",
            "del big",
            "rows = list(range(LIMIT // 160))",
        ),
    ),
    Case(
        "incident, del, incident",
        "rows = None\n" + _GROW,
        times=5,
        after=("del rows", "rows = [bytearray(MIB) for _ in range(50)]"),
    ),
    Case(
        "an error that holds a large frame",
        "def load():\n    big = numpy.ones(int(0.6 * LIMIT) // 8)\n    raise ValueError(big[0])\nload()",
        times=4,
        needs=("numpy",),
        errors=frozenset({"ValueError"}),
    ),
    Case(
        "a large value shown",
        "b = bytes(int(0.35 * LIMIT))\nb",
        errors=UNNAMED,
    ),
    Case("a large list shown", "rows = [[i] for i in range(LIMIT // 100)]\n[rows, rows]", times=3),
    Case("a large text printed", "print('x' * (LIMIT // 3))", times=2, limits=(512 * 2**20,)),
    Case(
        "a magic of one's own",
        """
from IPython.core.magic import register_line_magic
@register_line_magic
def grow(line):
    import room
    return room.grow()
%grow now
""",
    ),
    Case(
        "get_ipython().run_cell inside a cell",
        "get_ipython().run_cell('rows = []\\nwhile True:\\n    rows.append([0] * 10_000)')",
    ),
)
