"""RLIMIT_DATA: the hard stop."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.memory.guard.conftest import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds RLIMIT_DATA")


def run(code: str) -> str:
    prelude = "import mmap, os, resource\nfrom memkit.memory.guard.datalimit import DataLimit, set_for, widen, within\n"
    done = subprocess.run([sys.executable, "-c", prelude + code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_allocation_beyond_the_limit_fails_and_lifting_it_helps() -> None:
    out = run("""
limit = DataLimit()
limit.set(200 * 2**20)
try: x = bytearray(2**30)
except MemoryError: print("refused", limit.soft // 2**20)
limit.lift()
x = bytearray(2**30)
print(limit.soft)
""")
    assert out == "refused 200\nNone\n"


def test_a_limit_that_was_there_before_is_never_exceeded_and_the_hard_one_never_touched() -> None:
    out = run("""
resource.setrlimit(resource.RLIMIT_DATA, (300 * 2**20, 400 * 2**20))
limit = DataLimit()
limit.set(2**40)
set_for(os.getpid(), 2**40, limit.before)
print([value // 2**20 for value in resource.getrlimit(resource.RLIMIT_DATA)])
limit.set(100 * 2**20); limit.lift()
print([value // 2**20 for value in resource.getrlimit(resource.RLIMIT_DATA)])
""")
    assert out == "[300, 400]\n[300, 400]\n"


def test_a_restored_value_is_mapped_although_the_limit_is_reached(tmp_path) -> None:  # type: ignore[no-untyped-def]
    out = run(f"""
from memkit.lifecycle.store.region import fresh, map_file
path = {str(tmp_path / "file")!r}
with open(path, "wb") as file: file.truncate(2**30)
limit = DataLimit()
limit.set(200 * 2**20)
with open(path, "rb") as file: region = map_file(file.fileno(), 0, 2**30)
print(len(region) == 2**30)
try: fresh(2**31)
except MemoryError: print("but no more memory than before")
""")
    assert out == "True\nbut no more memory than before\n"


def test_nothing_is_widened_where_nothing_limits_or_the_hard_limit_is_in_the_way() -> None:
    out = run("""
print(widen(2**20))
resource.setrlimit(resource.RLIMIT_DATA, (300 * 2**20, 300 * 2**20))
print(widen(2**20))
""")
    assert out == "False\nFalse\n"
