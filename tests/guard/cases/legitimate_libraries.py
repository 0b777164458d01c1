"""Work with libraries that must pass untouched: frames, tensors, mapped weights, pools, figures, spilled variables."""

from __future__ import annotations

from memkit.units import GIB
from tests.guard.case import UNTOUCHED, Case

_WEIGHTS = """
import json, struct
count = int(1.2 * LIMIT) // 4 // 8
header = {
    f"w{i}": {"dtype": "F32", "shape": [count], "data_offsets": [i * count * 4, (i + 1) * count * 4]} for i in range(8)
}
text = json.dumps(header).encode()
with open("w.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    file.truncate(8 + len(text) + 8 * count * 4)
"""


def _fine(name: str, code: str, **more: object) -> Case:
    return Case(name, code, may=UNTOUCHED, **more)  # type: ignore[arg-type]


CASES = (
    _fine(
        "safetensors larger than the limit, mapped",
        """
from safetensors import safe_open
with safe_open('w.safetensors', 'pt') as weights:
    total = sum(float(weights.get_tensor(f'w{i}').sum()) for i in range(8))
assert total == 0
""",
        setup=(_WEIGHTS,),
        needs=("torch",),
    ),
    _fine(
        "torch.load mapped, again and again",
        """
kept = [torch.load('a.pt', mmap=True) for _ in range(6)]
assert sum(float(a[::1000].sum()) for a in kept) > 0
""",
        setup=("torch.save(torch.ones(fits() // 3 // 4), 'a.pt')",),
        needs=("torch",),
    ),
    _fine(
        "a training loop",
        """
model = torch.nn.Sequential(torch.nn.Linear(200, 500), torch.nn.ReLU(), torch.nn.Linear(500, 1))
step = torch.optim.Adam(model.parameters())
for _ in range(200):
    loss = model(torch.rand(256, 200)).square().mean()
    step.zero_grad()
    loss.backward()
    step.step()
""",
        needs=("torch",),
    ),
    _fine(
        "a tensor of most of the memory, in place",
        "a = torch.ones(fits() // 4)\na += 1\na.mul_(2)\ndel a",
        needs=("torch",),
    ),
    _fine("import torch with room enough", "import torch\nassert float(torch.ones(3).sum()) == 3"),
    _fine(
        "work with a frame",
        """
df = pandas.DataFrame(numpy.random.rand(fits() // 5 // 80, 10), columns=list('abcdefghij'))
df['k'] = numpy.arange(len(df)) % 97
g = df.groupby('k').mean()
s = df.sort_values('a')
assert len(g) == 97 and len(s) == len(df)
""",
        needs=("pandas",),
    ),
    _fine(
        "read_csv in chunks",
        """
with open('a.csv', 'w') as file:
    file.write('a,b\\n')
    for _ in range(LIMIT // 8 // 400_000):
        file.write('1,2\\n' * 100_000)
total = sum(len(part) for part in pandas.read_csv('a.csv', chunksize=200_000))
assert total > 0
""",
        needs=("pandas",),
    ),
    _fine(
        "concat and merge within bounds",
        """
parts = [pandas.DataFrame({'k': range(1000), 'v': i}) for i in range(200)]
df = pandas.concat(parts)
m = df.merge(parts[0], on='k')
assert len(m) == 200_000
""",
        needs=("pandas",),
    ),
    _fine(
        "sparse matrices",
        """
import scipy.sparse
n = 10**6
i = numpy.arange(n)
s = scipy.sparse.csr_matrix((numpy.ones(n), (i, i[::-1])), shape=(n, n))
t = s @ s.T + scipy.sparse.eye(n)
assert t.shape == (n, n)
""",
        needs=("numpy",),
    ),
    _fine(
        "linear algebra",
        """
n = 800
a = numpy.random.rand(n, n)
x = numpy.linalg.solve(a @ a.T + numpy.eye(n), numpy.ones(n))
assert x.shape == (n,)
""",
        needs=("numpy",),
    ),
    _fine(
        "polars within bounds",
        """
import polars as pl
df = pl.DataFrame({'k': numpy.arange(fits() // 80) % 97, 'v': 1.5})
assert df.group_by('k').agg(pl.col('v').sum()).height == 97
""",
        needs=("numpy",),
    ),
    _fine(
        "pyarrow and parquet within bounds",
        """
import pyarrow as pa, pyarrow.parquet as pq
t = pa.table({'a': numpy.random.rand(fits() // 60)})
pq.write_table(t, 'a.parquet')
assert pq.read_table('a.parquet').equals(t)
""",
        needs=("numpy",),
    ),
    _fine(
        "a pool of processes within bounds",
        """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    assert list(pool.map(abs, range(-50, 0)))[0] == 50
""",
    ),
    _fine(
        "joblib within bounds",
        """
import joblib, math
assert joblib.Parallel(n_jobs=2)(joblib.delayed(math.sqrt)(i) for i in range(50))[49] == 7
""",
    ),
    _fine(
        "gzip of a large stream",
        """
import gzip
with gzip.open('a.gz', 'wb', 1) as file:
    for _ in range(LIMIT // 4 // MIB):
        file.write(bytes(MIB))
with gzip.open('a.gz') as file:
    while file.read(4 * MIB):
        pass
""",
    ),
    _fine(
        "a database on disk",
        """
import sqlite3
base = sqlite3.connect('a.db')
base.execute('create table t(x)')
base.executemany('insert into t values (?)', ((bytes(1000),) for _ in range(50_000)))
base.commit()
assert base.execute('select count(*) from t').fetchone()[0] == 50_000
""",
    ),
    _fine(
        "a figure",
        """
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot(range(1000))
figure.savefig('a.png')
""",
    ),
    _fine(
        "async work and widgets",
        """
import asyncio, ipywidgets
slider = ipywidgets.IntSlider()
slider.value = 7
assert sum(await asyncio.gather(*(asyncio.sleep(0.01, i) for i in range(100)))) == 4950
""",
    ),
    _fine(
        "a spilled variable comes back",
        "assert float(big.sum()) == len(big)",
        setup=(
            "big = numpy.ones(fits() // 2 // 8)",
            "%memkit register big",
            "%memkit spill big",
            "other = numpy.ones(fits() // 4 // 8)",
        ),
        needs=("numpy", "memkit"),
    ),
    _fine(
        "tracked values make room for a cell that needs it",
        "more = [numpy.ones(MIB // 8) for _ in range(n // MIB)]\nassert len(more) == n // MIB",
        setup=("n = fits() * 2 // 3", "big = numpy.ones(n // 8)", "%memkit register big --priority 1"),
        needs=("numpy", "memkit"),
        limits=(GIB, 3 * GIB // 2, 4 * GIB),
    ),
    _fine(
        "an image within bounds",
        """
from PIL import Image
n = int((fits() / 8) ** 0.5)
image = Image.new('RGB', (n, n), 'red').resize((n // 2, n // 2)).convert('L')
assert image.size == (n // 2, n // 2)
""",
    ),
    _fine(
        "json and pickle within bounds",
        """
import json, pickle
rows = [{'a': i, 'b': str(i)} for i in range(fits() // 2000)]
assert json.loads(json.dumps(rows)) == pickle.loads(pickle.dumps(rows)) == rows
""",
    ),
)
