"""pandas, pyarrow and polars."""

from __future__ import annotations

from tests.guard.case import Case

_NUMBERS = """
with open("rows.csv", "w") as file:
    file.write("a,b,c,d\\n")
    for _ in range(LIMIT // 4 // 800_000):
        file.write("1,2,3,4\\n" * 100_000)
"""
_TEXT = """
with open("rows.csv", "w") as file:
    file.write("a,b\\n")
    for i in range(LIMIT * 15 // 100 // 1_800_000):
        file.write("".join(f"{10_000_000 + j},x{i + j * 7:07d}\\n" for j in range(100_000)))
"""


_ABORTS = "polars ends the process where an allocation fails"


def _pandas(name: str, code: str, **more: object) -> Case:
    return Case(name, code, needs=("pandas",), **more)  # type: ignore[arg-type]


def _arrow(name: str, code: str, **more: object) -> Case:
    return Case(
        name,
        """
import pyarrow as pa, pyarrow.compute as pc
"""
        + code,
        errors=frozenset({"ArrowMemoryError", "ArrowException"}),
        **more,
    )  # type: ignore[arg-type]


def _polars(name: str, code: str, **more: object) -> Case:
    return Case(
        name,
        """
import polars as pl
"""
        + code,
        errors=frozenset({"ComputeError", "PanicException"}),
        **more,
    )  # type: ignore[arg-type]


CASES = (
    _pandas(
        "concat that grows",
        "df = pandas.DataFrame({'a': range(100_000), 'b': 1.5})\nwhile True:\n    df = pandas.concat([df, df])",
    ),
    _pandas(
        "merge of many to many",
        """
n = int((1.5 * LIMIT / 24) ** 0.5)
l = pandas.DataFrame({'k': 1, 'a': range(n)})
r = pandas.DataFrame({'k': 1, 'b': range(n)})
m = l.merge(r, on='k')
""",
    ),
    _pandas(
        "cross merge",
        """
n = int((1.5 * LIMIT / 16) ** 0.5)
m = pandas.DataFrame({'a': range(n)}).merge(pandas.DataFrame({'b': range(n)}), how='cross')
""",
    ),
    _pandas(
        "pivot",
        """
n = int((LIMIT / 8) ** 0.5)
df = pandas.DataFrame({'a': range(n), 'b': range(n), 'c': 1.5})
p = df.pivot(index='a', columns='b', values='c')
q = p + 1
""",
    ),
    _pandas(
        "get_dummies",
        """
n = int((2 * LIMIT / 8) ** 0.5)
d = pandas.get_dummies(pandas.Series(range(n)), dtype=float)
""",
    ),
    _pandas(
        "read_csv, C engine",
        _NUMBERS
        + """
df = pandas.read_csv('rows.csv')
more = [df + i for i in range(3)]
""",
    ),
    _pandas("read_csv, C engine, text", _TEXT + "df = pandas.read_csv('rows.csv', dtype=object)"),
    _pandas("read_csv, Python engine", _TEXT + "df = pandas.read_csv('rows.csv', engine='python')"),
    _pandas(
        "read_csv, pyarrow engine",
        _NUMBERS + "df = pandas.read_csv('rows.csv', engine='pyarrow')\nmore = [df + i for i in range(3)]",
        errors=frozenset({"ArrowMemoryError", "ArrowException"}),
    ),
    _pandas(
        "groupby over a product of categories",
        """
n = int((LIMIT / 8) ** 0.5)
df = pandas.DataFrame({"a": range(n), "b": range(n), "c": 1.5}).astype({"a": "category", "b": "category"})
g = df.groupby(["a", "b"], observed=False)["c"].sum()
""",
    ),
    _pandas(
        "groupby, cumulative, again and again",
        """
df = pandas.DataFrame({'k': numpy.arange(LIMIT // 80) % 97, 'v': 1.5, 'w': 2.5})
g = [df.groupby('k').cumsum() for _ in range(9)]
""",
    ),
    _pandas(
        "strings split into lists",
        "s = pandas.Series(['some words of a text'] * (LIMIT // 200)).astype(object)\nt = s.str.split()",
    ),
    _pandas(
        "to_dict of records",
        "df = pandas.DataFrame({'a': range(LIMIT // 200), 'b': 1.5, 'c': 'x'})\nrows = df.to_dict('records')",
    ),
    _pandas("reindex to something long", "s = pandas.Series([1.0, 2.0]).reindex(range(int(1.5 * LIMIT) // 8))"),
    _pandas(
        "rows of a frame in a list",
        """
df = pandas.DataFrame(numpy.ones((100, 1000)))
rows = []
while True:
    rows.extend(df.copy() for _ in range(10))
""",
    ),
    _pandas(
        "a column after another",
        "df = pandas.DataFrame({'a': numpy.ones(LIMIT // 400)})\nfor i in range(200):\n    df[i] = df['a'] * i",
    ),
    _arrow(
        "pyarrow: arrays that grow",
        "a, kept = pa.array(range(100_000)), []\nwhile True:\n    kept.append(pc.add(a, 1))",
    ),
    _arrow(
        "pyarrow: one large sum",
        "a = pa.array(numpy.ones(LIMIT // 4 // 8))\nb = [pc.multiply(a, 2.0) for _ in range(6)]",
        needs=("numpy",),
    ),
    _arrow(
        "pyarrow: read_csv",
        _NUMBERS + "import pyarrow.csv\nkept = [pyarrow.csv.read_csv('rows.csv') for _ in range(3)]",
    ),
    _arrow(
        "pyarrow: a parquet file that is small on disk",
        """
import pyarrow.parquet as pq
table = pa.table({"a": [7] * 1_000_000})
with pq.ParquetWriter("rows.parquet", table.schema) as writer:
    for _ in range(int(1.5 * LIMIT) // 8_000_000):
        writer.write_table(table)
rows = pq.read_table("rows.parquet")
""",
    ),
    _arrow(
        "pyarrow to pandas",
        """
t = pa.table({'a': ['some text'] * (LIMIT // 100)})
df = [t.to_pandas().astype(object) for _ in range(9)]
""",
        needs=("pandas",),
    ),
    _polars(
        "polars: cross join",
        """
n = int((1.5 * LIMIT / 16) ** 0.5)
a = pl.DataFrame({'a': range(n)})
m = a.join(a.rename({'a': 'b'}), how='cross')
""",
        known_failure=_ABORTS,
    ),
    _polars(
        "polars: a long range",
        "df = pl.select(pl.int_range(0, int(1.5 * LIMIT) // 8, eager=True))",
        known_failure=_ABORTS,
    ),
    _polars(
        "polars: frames that grow",
        "kept, a = [], pl.DataFrame({'a': range(100_000)})\nwhile True:\n    kept.append(a + len(kept))",
        known_failure=_ABORTS,
    ),
    _polars(
        "polars: read_csv",
        _NUMBERS + "kept = [pl.read_csv('rows.csv') for _ in range(4)]",
        known_failure=_ABORTS,
    ),
)
