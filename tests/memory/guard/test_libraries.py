"""Library by library: what would end the process ends in an exception, and uninstalled all is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memkit.errors import MemoryGuardError
from memkit.memory.guard.libraries import Libraries
from tests.memory.guard.gates import MIB, FakeGate, python

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA holds on Linux only")

PROGRAM = """
import contextlib
from tests.memory.guard.gates import FakeGate
from memkit.memory.guard.libraries import Libraries
class Gate(FakeGate):
    "A limit of 20 MiB more than there is, but where it is lifted."
    @contextlib.contextmanager
    def lifted(self):
        with super().lifted():
            unlimited()
            yield
        if not self.inside:
            leave(20)
libraries = Libraries()
"""


@pytest.fixture
def room() -> FakeGate:
    return FakeGate()


@pytest.fixture
def installed(room: FakeGate) -> Iterator[Libraries]:
    made = Libraries()
    made.install(room)
    yield made
    made.uninstall()


# -- OpenBLAS ---------------------------------------------------------------------------------------------------------


def _multiply(prepare: str, product: str) -> str:
    program = f"{PROGRAM}\n{prepare}\nimport numpy\na, c = numpy.ones((600, 600)), numpy.empty((600, 600))\n{product}"
    try:
        done = python(program, timeout=15)
    except subprocess.TimeoutExpired:
        return "OpenBLAS asks for ever"  # 0.3.29, in numpy 2.2
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="OpenBLAS is lazy with several cores only")
def test_without_warming_up_the_first_product_ends_the_process():
    pytest.importorskip("numpy")
    said = _multiply("", "leave(8); numpy.matmul(a, a, out=c); print('survived')")
    assert "OpenBLAS" in said


@pytest.mark.parametrize("when", ["before", "after"])
def test_once_warmed_up_the_first_product_needs_nothing_more(when):
    pytest.importorskip("numpy")
    install = "libraries.install(Gate())"
    prepare = install if when == "before" else f"import numpy\n{install}"
    assert _multiply(prepare, "leave(2); numpy.matmul(a, a, out=c); print('survived')") == "survived"


def test_scipy_has_an_openblas_of_its_own():
    pytest.importorskip("scipy")
    product = """
import scipy.linalg
from scipy.linalg.blas import dgemm
a = numpy.asfortranarray(a); c = numpy.asfortranarray(c)
leave(2)
dgemm(1.0, a, a, c=c, overwrite_c=1)
print('survived')
"""
    assert _multiply("libraries.install(Gate())", product) == "survived"


def test_without_room_nothing_is_warmed_up(monkeypatch):
    pytest.importorskip("numpy")
    room = FakeGate(left=16 * MIB)
    made = Libraries()
    made.install(room)
    made.uninstall()
    assert room.lifts == 0


# -- pandas -----------------------------------------------------------------------------------------------------------

THREADS = "mode.max_threads"


@pytest.fixture
def pandas():
    found = pytest.importorskip("pandas", minversion="3.1")
    yield found
    found.set_option(THREADS, None)


def test_pandas_reads_in_one_thread_while_installed(pandas, room):
    made = Libraries()
    made.install(room)
    made.install(room)
    assert pandas.get_option(THREADS) == 1
    made.uninstall()
    assert pandas.get_option(THREADS) is None


def test_what_the_user_has_chosen_stays(pandas, room):
    pandas.set_option(THREADS, 4)
    made = Libraries()
    made.install(room)
    assert pandas.get_option(THREADS) == 4
    made.uninstall()
    assert pandas.get_option(THREADS) == 4


def test_what_the_user_chooses_later_stays(pandas, room):
    made = Libraries()
    made.install(room)
    pandas.set_option(THREADS, 2)
    made.uninstall()
    assert pandas.get_option(THREADS) == 2


def test_an_older_pandas_without_the_option_is_left_alone(monkeypatch, room):
    class Older:
        __name__ = "pandas"

        def get_option(self, name: str) -> object:
            raise KeyError(name)

    Libraries()._adapt_pandas(Older())


def test_reading_a_table_that_does_not_fit_ends_in_an_exception():
    """Several threads end the process instead, or go on for seconds."""
    pytest.importorskip("pandas", minversion="3.1")
    done = python(f"""{PROGRAM}
import io
text = io.StringIO("a,b,c\\n" + "1.5,2.5,hello\\n" * 2000000)
libraries.install(Gate())
import pandas
leave(16)
try:
    pandas.read_csv(text)
except Exception as error:
    unlimited()
    print(type(error).__name__)
""")
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip() in ("ParserError", "MemoryError", "_ArrayMemoryError")


# -- torch and safetensors --------------------------------------------------------------------------------------------


def test_files_mapped_by_torch_and_safetensors_may_be_larger_than_the_limit(tmp_path: Path):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    done = python(f"""{PROGRAM}
import torch, safetensors.torch
folder = {str(tmp_path)!r}
safetensors.torch.save_file({{"w": torch.ones(2**24)}}, folder + "/w.safetensors")
torch.save({{"w": torch.ones(2**24)}}, folder + "/w.pt")
def load():
    yield lambda: torch.load(folder + "/w.pt", mmap=True)["w"]
    yield lambda: safetensors.torch.load_file(folder + "/w.safetensors")["w"]
    yield lambda: safetensors.safe_open(folder + "/w.safetensors", "pt").get_tensor("w")
    yield lambda: torch.from_file(folder + "/w.pt", size=2**24)
    yield lambda: torch.FloatStorage.from_file(folder + "/w.pt", False, 2**24)
def tried():
    for one in load():
        leave(20)
        try:
            yield len(one())
        except RuntimeError:
            yield "refused"
print(*tried())
unlimited()
libraries.install(Gate())
print(*tried())
unlimited()
libraries.uninstall()
print(*tried(), "from_file" in vars(torch.UntypedStorage))
""")
    assert done.stdout.splitlines() == [
        "refused " * 4 + "refused",
        "16777216 " * 4 + "16777216",
        "refused " * 5 + "False",
    ]


# -- copies on write --------------------------------------------------------------------------------------------------


@pytest.fixture
def numpy():
    return pytest.importorskip("numpy")


@pytest.fixture
def mapped(numpy, tmp_path: Path):
    """400 MiB of a sparse file, mapped with mode "c"."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(400 * MIB)
    return numpy.memmap(tmp_path / "large", dtype="u1", mode="c")


def test_a_change_that_does_not_fit_is_refused_before_it_is_made(mapped, installed, room, numpy):
    room.left = 100 * MIB
    changes = [
        lambda: mapped.__setitem__(slice(None), 1),
        lambda: mapped.__setitem__(Ellipsis, 1),
        lambda: mapped.__setitem__(slice(None, None, 2), 1),
        lambda: mapped.__setitem__(numpy.ones(mapped.shape, bool), 1),
        lambda: mapped.__setitem__(numpy.arange(0, mapped.size, 4096), 1),
        lambda: mapped.fill(1),
        lambda: mapped.sort(),
        lambda: mapped.__iadd__(1),
        lambda: mapped[10:].__imul__(2),
        lambda: mapped.reshape(4, -1)[:2].fill(1),
    ]
    for change in changes:
        with pytest.raises(MemoryGuardError, match="changing this part of a mapped file"):
            change()
    assert mapped[0] == mapped[-1] == 0


def test_a_change_that_fits_is_made(mapped, installed, room):
    room.left = 100 * MIB
    mapped[7] = 1
    mapped[: 10 * MIB] = 2
    mapped[5:90] += 1
    mapped[[1, 2, 3]] = 9
    assert (mapped[7], mapped[4], mapped[2], mapped[10 * MIB]) == (3, 2, 9, 0)


def test_what_was_changed_already_needs_nothing_more(mapped, installed, room):
    mapped[: 64 * MIB] = 1
    room.left = 10 * MIB
    mapped[: 64 * MIB] = 2
    assert mapped[0] == 2


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_other_modes_take_no_memory_and_pass(mode, numpy, tmp_path, installed, room):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 * MIB)
    array = numpy.memmap(tmp_path / "large", mode=mode)
    room.left = 0
    if mode == "r+":
        array[:] = 1
        array += 1
    else:
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 1


def test_results_and_types_are_as_without_it(mapped, installed, numpy):
    part = mapped[:10]
    part += 1
    assert type(part) is numpy.memmap
    assert type(part + 1) is numpy.ndarray or type(part + 1) is numpy.memmap
    with pytest.raises(IndexError):
        mapped["x"] = 1


def test_uninstalled_numpy_is_as_it_was(numpy, room):
    before = dict(vars(numpy.memmap))
    made = Libraries()
    made.install(room)
    assert dict(vars(numpy.memmap)) != before
    made.uninstall()
    assert dict(vars(numpy.memmap)) == before


def test_the_real_thing_ends_in_an_exception(tmp_path):
    """With a real limit on what may be taken, which nothing else would hold here."""
    pytest.importorskip("numpy")
    done = python(f"""{PROGRAM}
import numpy
with open({str(tmp_path / "large")!r}, "wb") as file:
    file.truncate(2**29)
libraries.install(Gate(left=2**28))
array = numpy.memmap({str(tmp_path / "large")!r}, mode="c")
try:
    array[:] = 1
except MemoryError as error:
    print(error)
print(array[0])
""")
    assert "512.0 MiB; 256.0 MiB are left" in done.stdout
    assert done.stdout.endswith("0\n")
