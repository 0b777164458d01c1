"""numpy and scipy: at once, in pieces, lazily touched, in place, by temporaries."""

from __future__ import annotations

from tests.guard.case import Case

_N = "n = int(1.5 * LIMIT) // 8\n"


def _case(name: str, code: str, **more: object) -> Case:
    return Case(name, code, needs=("numpy",), **more)  # type: ignore[arg-type]


CASES = (
    _case("numpy.ones at once", _N + "a = numpy.ones(n)"),
    _case("numpy.zeros, then filled in one call", _N + "a = numpy.zeros(n)\na[:] = 1"),
    _case(
        "numpy.zeros, touched piece by piece",
        _N + "a = numpy.zeros(n)\nfor i in range(0, n, 100_000):\n    a[i:i + 100_000] = i",
    ),
    _case(
        "numpy.zeros over several cells, then += in one",
        "y += 1\nz += 1",
        setup=("z = numpy.zeros(int(0.55 * LIMIT) // 8)", "y = numpy.zeros(int(0.55 * LIMIT) // 8)"),
        errors=frozenset({"NameError"}),
    ),
    _case(
        "numpy.empty over several cells, then filled",
        "for part in parts:\n    part.fill(1)",
        setup=("parts = []", *["parts.append(numpy.empty(int(0.3 * LIMIT) // 8))"] * 4),
        after=("del parts, part\nb = numpy.ones(LIMIT // 4 // 8)",),
    ),
    _case(
        "numpy.concatenate that grows",
        """
a = numpy.ones(MIB)
while True:
    a = numpy.concatenate([a, a])
""",
    ),
    _case(
        "numpy.append in a loop",
        """
a = numpy.ones(MIB)
while True:
    a = numpy.append(a, numpy.ones(2 * MIB))
""",
    ),
    _case("arrays kept in a list", "rows = []\nwhile True:\n    rows.append(numpy.ones(100_000))"),
    _case("many small arrays", "rows = []\nwhile True:\n    rows.append(numpy.ones(200))"),
    _case("temporaries of an expression", "a = numpy.ones(int(0.33 * LIMIT) // 8)\nb = a * 2 + a * 3 - a / 4"),
    _case(
        "in place, over its own copies",
        """
a = numpy.ones(int(0.3 * LIMIT) // 8)
b = a.copy()
b += a
c = b.copy()
c *= 2
d = c.copy()
""",
    ),
    _case(
        "matmul",
        """
n = int((0.48 * LIMIT / 8) ** 0.5)
a = numpy.ones((n, 500))
b = a @ a.T
c = b + a @ a.T
""",
    ),
    _case("outer product", "n = int((1.5 * LIMIT / 8) ** 0.5)\na = numpy.outer(numpy.ones(n), numpy.ones(n))"),
    _case(
        "argsort and fancy index",
        """
a = numpy.arange(LIMIT // 4 // 8)[::-1] * 1.0
b = [a[a.argsort(kind='stable')] for _ in range(4)]
""",
    ),
    _case("random numbers at once", _N + "a = numpy.random.rand(n)"),
    _case("astype to something wide", "a = numpy.ones(LIMIT // 5, 'i1')\nb = a.astype('c16')"),
    _case("numpy.array of a list of lists", "rows = [[1.5] * 1000] * (LIMIT // 7000)\na = numpy.array(rows)"),
    _case(
        "an array of objects",
        """
a = numpy.empty(LIMIT // 40, object)
for i in range(len(a)):
    a[i] = [i]
""",
    ),
    _case(
        "numpy.load of a large file",
        _N + "numpy.lib.format.open_memmap('a.npy', 'w+', shape=(n,))\na = numpy.load('a.npy')",
    ),
    _case("fft", "a = numpy.ones(LIMIT // 4 // 8)\nb = numpy.fft.fft(a)\nc = numpy.fft.fft(b)"),
    _case(
        "meshgrid",
        """
n = int((LIMIT / 8) ** 0.5)
x, y = numpy.meshgrid(numpy.arange(n) * 1.0, numpy.arange(n))
d = x ** 2 + y ** 2
""",
    ),
    _case(
        "a swarm of broadcasts",
        "n = LIMIT // 2400\na = numpy.ones((n, 1, 10))\nb = (a - a[:1000].reshape(1, -1, 10)[:, :40]) ** 2",
    ),
    _case(
        "sparse to dense",
        """
import scipy.sparse
n = int((1.5 * LIMIT / 8) ** 0.5)
s = scipy.sparse.eye(n, format='csr')
d = s.toarray()
d += 1
""",
        # calloc gives pages only when they are touched, so the last line is the one that takes them
    ),
    _case(
        "one row of sums after another",
        """
total = numpy.zeros(0)
for i in range(10**6):
    total = numpy.hstack([total, numpy.full(400_000, i)])
""",
    ),
)
