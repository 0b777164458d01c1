"""Errors of real libraries that ran out of memory are recognised, with the size they name; no other error is."""

from __future__ import annotations

import errno
import importlib
import json
import sqlite3
import sys
import zlib

import pytest

from memkit.errors import MemoryGuardError
from memkit.memory.guard.translate import asked_for, out_of_memory
from memkit.units import GIB, MIB
from tests.memory.guard.gates import python

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA holds on Linux only")

# name: (library, MiB left, prepared with plenty, done with little, bytes the message names)
PROVOKED: dict[str, tuple[str, float, str, str, int | None]] = {
    "list": ("builtins", 8, "", "list(range(10**8))", None),
    "str": ("builtins", 8, "", "'a' * 10**9", None),
    "numpy": ("numpy", 8, "import numpy", "numpy.ones(4 * 10**8)", int(2.98 * GIB)),
    "numpy, no decimals": ("numpy", 8, "import numpy", "numpy.ones((20, 10**6))", 153 * MIB),
    "numpy sort": ("numpy", 30, "import numpy; a = numpy.arange(10**7)", "numpy.sort(a)", int(76.3 * MIB)),
    "torch": ("torch", 8, "import torch", "torch.ones(4 * 10**8)", 1_600_000_000),
    "torch cat": ("torch", 60, "import torch; a = torch.ones(10**7)", "torch.cat([a] * 10)", 400_000_000),
    "torch mapping": (
        "torch", 8, "import torch, tempfile; f = tempfile.NamedTemporaryFile(); f.truncate(10**8)",
        "torch.UntypedStorage.from_file(f.name, False, 10**8)", 100_000_000,
    ),
    "pandas read_csv": (
        "pandas", 30,
        "import io, pandas; hasattr(pandas.options.mode, 'max_threads') and pandas.set_option('mode.max_threads', 1)\n"
        "b = io.StringIO('a,b\\n' + '1.5,hello\\n' * 2000000)", "pandas.read_csv(b)", None,
    ),
    "pandas merge": (
        "pandas", 40, "import pandas; d = pandas.DataFrame({'k': [0] * 20000, 'v': 1})", "d.merge(d, on='k')",
        int(2.98 * GIB),
    ),
    "pyarrow": ("pyarrow", 16, "import pyarrow", "pyarrow.allocate_buffer(10**9)", 10**9),
    "PIL": ("PIL", 8, "from PIL import Image", "Image.new('RGB', (20000, 20000))", None),
    "sqlite": (
        "sqlite3", 30, "import sqlite3; c = sqlite3.connect(':memory:')",
        "c.execute('select zeroblob(900000000)').fetchall()", None,
    ),
    "zlib": ("zlib", 8, "import zlib; z = zlib.compress(bytes(10**8))", "zlib.decompress(z)", None),
    "json": ("json", 16, "import json; s = '[' + '1,' * 3000000 + '1]'", "json.loads(s)", None),
    "pickle": ("pickle", 16, "import pickle; s = pickle.dumps(list(range(10**7)))", "pickle.loads(s)", None),
    "regex": ("re", 8, "import re; s = 'a' * 10**7", "re.findall('a', s)", None),
    "threads": (
        "threading", 20, "import threading; e = threading.Event()\n"
        "def go():\n    try:\n        [threading.Thread(target=e.wait).start() for _ in range(100)]\n"
        "    finally:\n        e.set()", "go()", None,
    ),
    "mmap": ("mmap", 8, "import mmap", "mmap.mmap(-1, 10**9, flags=mmap.MAP_PRIVATE)", None),
    "OpenSSL": ("_hashlib", 8, "import hashlib as h", "h.scrypt(b'', salt=b'', n=2**15, r=8, p=1, maxmem=2**30)", None),
    "safetensors": (
        "safetensors", 8, "import torch, tempfile, safetensors.torch as st; f = tempfile.NamedTemporaryFile()\n"
        "st.save_file({'w': torch.ones(10**7)}, f.name)", "st.load_file(f.name)", 40_000_080,
    ),
    "matplotlib": (
        "matplotlib", 16, "import matplotlib; matplotlib.use('agg'); import io, matplotlib.pyplot as plt\n"
        "f = plt.figure(figsize=(100, 100), dpi=100)", "f.savefig(io.BytesIO())", None,
    ),
    "import": ("torch", 2, "", "import torch", None),
}  # fmt: skip


def _provoke(left: float, prepare: str, code: str) -> tuple[str, bool, int | None]:
    done = python(f"""
import json
from memkit.memory.guard.translate import asked_for, out_of_memory
{prepare}
leave({left})
try:
    {code}
except BaseException as error:
    unlimited()
    print(json.dumps([repr(error), out_of_memory(error), asked_for(error)]))
""")
    assert done.stdout, f"no error: {done.stderr[-300:]}"
    shown, short, wanted = json.loads(done.stdout)
    return shown, short, wanted


@linux
@pytest.mark.parametrize("name", PROVOKED)
def test_a_library_without_memory_is_recognised(name):
    library, left, prepare, code, bytes_named = PROVOKED[name]
    pytest.importorskip(library)
    shown, short, wanted = _provoke(left, prepare, code)
    assert short, shown
    assert wanted == bytes_named, shown


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryGuardError("this cell needed more"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: cannot map zero-fill pages"),
        ImportError("x.so: failed to map segment from shared object"),
        ImportError("libfoo.so.1: cannot allocate memory in static TLS block: Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        SystemError("error return without exception set"),
        sqlite3.OperationalError("out of memory"),
        zlib.error("Error -4 while decompressing data"),
    ],
)
def test_words_that_mean_out_of_memory(error):
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("invalid literal"),
        OSError(errno.ENOENT, "No such file"),
        OSError("out of memory, said somebody without a number"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: can't allocate memory"),
        RuntimeError("dictionary changed size during iteration"),
        SystemError("<built-in function f> returned NULL without setting an exception"),
        RecursionError("maximum recursion depth exceeded"),
        KeyError("out of memory"),
        zlib.error("Error -3 while decompressing data: incorrect header check"),
        sqlite3.OperationalError("no such table: memory"),
        KeyboardInterrupt(),
    ],
)
def test_words_that_do_not(error):
    assert not out_of_memory(error)


def test_the_memory_of_a_gpu_is_not_this_process():
    torch = pytest.importorskip("torch")
    assert not out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"))


def test_an_error_that_cannot_be_written_is_no_obstacle():
    class Silent(RuntimeError):
        def __str__(self) -> str:
            raise ValueError

    assert not out_of_memory(Silent())
    assert asked_for(Silent()) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Unable to allocate 2.98 GiB for an array with shape (4,) and data type float64", int(2.98 * GIB)),
        ("Unable to allocate 153. MiB for an array with shape (4,)", 153 * MIB),
        ("Unable to allocate 17 bytes for an array", 17),
        ("Unable to allocate 4.55 PiB for an array", None),
        ("you tried to allocate 1600000000 bytes. Error code 12", 1_600_000_000),
        ("malloc of size 1000 failed", 1000),
        ("realloc of size 1000 failed", 1000),
        ("no size at all", None),
    ],
)
def test_the_size_is_read_from_the_message(text, size):
    assert asked_for(MemoryError(text)) == size


def test_nothing_is_imported_to_tell():
    before = set(sys.modules)
    importlib.reload(importlib.import_module("memkit.memory.guard.translate"))
    out_of_memory(RuntimeError("x"))
    assert {name.partition(".")[0] for name in set(sys.modules) - before} <= {"memkit"}
