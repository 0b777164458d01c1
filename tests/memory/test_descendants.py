"""Memory of child processes, pretended and real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memkit.memory.descendants import descendants, private_bytes
from memkit.units import MIB
from tests.memory import trees

_FORKED = 0x40


def test_children_of_all_threads_and_their_children_are_found(tmp_path: Path) -> None:
    trees.put(tmp_path, "1/task/1/children", "2 3 ")
    trees.put(tmp_path, "1/task/9/children", "4")
    trees.put(tmp_path, "2/task/2/children", "5")
    assert descendants(str(tmp_path), 1) == {2, 3, 4, 5}


def test_a_kernel_that_lists_no_children_says_so(tmp_path: Path) -> None:
    (tmp_path / "1/task/1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        descendants(str(tmp_path), 1)


def test_a_program_of_its_own_counts_whole(tmp_path: Path) -> None:
    trees.process(tmp_path, 7, anonymous=50 * MIB, private=MIB)
    assert private_bytes(str(tmp_path / "proc"), 7) == 50 * MIB


def test_a_forked_copy_counts_only_what_it_no_longer_shares(tmp_path: Path) -> None:
    trees.process(tmp_path, 7, anonymous=50 * MIB, flags=_FORKED, private=MIB)
    assert private_bytes(str(tmp_path / "proc"), 7) == MIB


def test_a_forked_copy_that_may_not_be_looked_into_counts_whole(tmp_path: Path) -> None:
    trees.process(tmp_path, 7, anonymous=50 * MIB, flags=_FORKED)
    assert private_bytes(str(tmp_path / "proc"), 7) == 50 * MIB


def test_one_that_has_ended_counts_nothing(tmp_path: Path) -> None:
    assert private_bytes(str(tmp_path), 7) == 0


_SCRIPT = """
import os, subprocess, sys
from memkit.memory.descendants import descendants, private_bytes
MIB = 2**20
block = bytearray(b"x") * (150 * MIB)
ready, tell = os.pipe(); wait, leave = os.pipe()
copy = os.fork()
if copy == 0:
    os.close(leave)
    block[: 30 * MIB] = b"y" * (30 * MIB)
    os.write(tell, b"1"); os.read(wait, 1); os._exit(0)
program = subprocess.Popen([sys.executable, "-c", "b = bytearray(b'x') * (60 << 20); print(1, flush=True); input()"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
os.read(ready, 1); program.stdout.readline()
found = descendants("/proc", os.getpid())
print(found == {copy, program.pid}, private_bytes("/proc", copy) // MIB, private_bytes("/proc", program.pid) // MIB)
program.communicate(b"\\n"); os.close(leave); os.waitpid(copy, 0)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads the real /proc")
def test_a_real_copy_costs_what_it_rewrote_and_a_real_program_what_it_took() -> None:
    """The copy holds 150 MiB of its parent's pages and rewrote 30."""
    result = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=30, check=True)
    all_found, copy, program = result.stdout.split()
    assert all_found == "True"
    assert 25 <= int(copy) <= 70  # the slice on the right was another 30 MiB for a moment
    assert 60 <= int(program) <= 85
