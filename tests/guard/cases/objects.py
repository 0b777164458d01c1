"""Plain Python: lists, dicts, strings, integers, recursion, iteration."""

from __future__ import annotations

from tests.guard.case import Case

CASES = (
    Case("bytes at once", 'big = b"x" * int(1.5 * LIMIT)'),
    Case("bytearray at once", 'big = bytearray(b"\\1") * int(1.5 * LIMIT)'),
    Case(
        "blocks appended to a list",
        """
rows = []
while True:
    rows.append(bytearray(b"\\1") * MIB)
""",
    ),
    Case(
        "integers appended to a list",
        """
rows, i = [], 10**6
while True:
    rows.append(i)
    i += 1
""",
    ),
    Case("list of a range in one C call", "rows = list(range(10**6, 10**6 + int(1.5 * LIMIT) // 36))"),
    Case("a list times n", "rows = [0] * (int(1.5 * LIMIT) // 8)"),
    Case("list of lists by comprehension", "rows = [[i] * 100 for i in range(2 * LIMIT // 850)]"),
    Case("list extended by itself", "rows = [1.0]\nwhile True:\n    rows.extend(rows)"),
    Case("dict of strings", "table, i = {}, 0\nwhile True:\n    table[i] = str(i) * 5\n    i += 1"),
    Case("dict comprehension of tuples", "table = {i: (i, str(i)) for i in range(2 * LIMIT // 200)}"),
    Case("set of tuples", "seen, i = set(), 0\nwhile True:\n    seen.add((i, i + 1))\n    i += 1"),
    Case(
        "defaultdict of lists",
        """
from collections import defaultdict
d = defaultdict(list)
for i in range(2 * LIMIT // 60):
    d[i // 3].append(i)
""",
    ),
    Case("a string doubled", 't = "x" * 1000\nwhile True:\n    t += t'),
    Case("a string in small steps", 't, step = "", "x" * (LIMIT // 50)\nwhile True:\n    t += step'),
    Case("join of a generator", 'text = ", ".join(str(i) for i in range(2 * LIMIT // 65))'),
    Case("padding in a format", 'text = f"{7:>{int(1.5 * LIMIT)}d}"'),
    Case("repr of a large list", "rows = [10**200] * (2 * LIMIT // 200)\ntext = repr(rows)"),
    Case("a large integer", "big = (1 << (int(0.8 * LIMIT) * 8)) + 1"),
    Case(
        "sorted, again and again",
        """
rows = [str(i) for i in range(LIMIT // 1000)]
while True:
    rows = sorted(rows + rows, key=lambda r: r + r)
""",
    ),
    Case("product into a list", "import itertools\nrows = list(itertools.product(range(3000), repeat=3))"),
    Case(
        "tee that runs ahead",
        """
import itertools
a, b = itertools.tee(itertools.count(10**6))
for _ in a:
    pass
""",
    ),
    Case("tuple of an endless generator", "import itertools\nrows = tuple([i] for i in itertools.count())"),
    Case("a deque", "from collections import deque\nqueue = deque()\nwhile True:\n    queue.append({})"),
    Case(
        "closures that keep blocks",
        "made = []\nwhile True:\n    made.append(lambda block=bytearray(b'\\1') * 100_000: len(block))",
    ),
    Case(
        "cycles of objects",
        """
class Node:
    def __init__(self, other):
        self.me, self.other, self.block = self, other, bytearray(b"\\1") * 5000
node = None
while True:
    node = Node(node)
""",
    ),
    Case(
        "small objects with slots",
        """
class Point:
    __slots__ = ("x", "y")
points, i = [], 0
while True:
    point = Point()
    point.x, point.y = float(i), str(i)
    points.append(point)
    i += 1
""",
    ),
    Case(
        "deepcopy of what grows",
        """
import copy
rows = [bytearray(b"\\1") * 100_000 for _ in range(20)]
while True:
    rows = rows + copy.deepcopy(rows)
""",
    ),
    Case(
        "recursion that holds blocks",
        """
import sys
sys.setrecursionlimit(10**6)
def descend(n):
    block = bytearray(b"\\1") * MIB
    return descend(n + 1) + len(block)
descend(0)
""",
        errors=frozenset({"RecursionError"}),
    ),
    Case(
        "recursion without end",
        """
import sys
sys.setrecursionlimit(10**9)
def descend(n):
    return descend(n + 1) + 1
descend(0)
""",
        errors=frozenset({"RecursionError"}),
    ),
    Case(
        "a cache without bound",
        """
import functools
@functools.lru_cache(maxsize=None)
def page(i):
    return bytes([i % 256]) * 10_000
for i in range(10**9):
    page(i)
""",
    ),
    Case(
        "text in a StringIO",
        """
import io
buffer = io.StringIO()
while True:
    buffer.write("row of text\\n" * 1000)
""",
    ),
    Case("compile of a large source", 'code = compile("x = [" + "a," * (LIMIT // 160) + "]", "made", "exec")'),
    Case("a module's function that grows", "import room\nrows = room.grow()"),
    Case("exec of text", 'exec("rows = []\\nwhile True:\\n    rows.append([0] * 1000)")'),
)
