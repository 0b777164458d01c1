"""A real control group with a real limit, where this machine lets one be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memkit.units import MIB

_LIMIT = 512 * MIB
_SCRIPT = """
import json, os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
import mmap
from memkit.memory.monitor import Monitor
from memkit.memory.sample import Reader
monitor = Monitor(Reader(environ={}))
told = []
monitor.subscribe(lambda notice: told.append(notice.level))
def look(name):
    sample = monitor.sample_now()
    out[name] = [sample.limit, sample.binding, sample.used, monitor.level]
out = {}
look("start")
with open(sys.argv[2], "wb") as file:
    for _ in range(400):
        file.write(bytes(2**20))
open(sys.argv[2], "rb").read
with open(sys.argv[2], "rb") as file:
    while file.read(2**20): pass
look("page cache")
shared = mmap.mmap(-1, 200 * 2**20)
for i in range(0, len(shared), 4096): shared[i] = 1
look("shared")
block = bytearray(b"x") * (220 * 2**20)
look("private")
more = bytearray(b"x") * (56 * 2**20)
look("more")
del block, more
shared.close()
look("freed")
out["told"] = told
print(json.dumps(out))
"""


def _parent() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
    pytest.skip("no cgroup v1 memory controller here")


@pytest.fixture
def group() -> Iterator[Path]:
    """A new group of 512 MiB with a child group, removed afterwards."""
    if not os.path.exists("/proc/self/cgroup"):
        pytest.skip("no control groups here")
    folder = _parent() / f"memkit-test-{os.getpid()}"
    made: list[Path] = []
    try:
        for path in (folder, folder / "inner"):
            path.mkdir()
            made.append(path)
        (folder / "memory.limit_in_bytes").write_text(str(_LIMIT))
    except OSError as error:
        for path in reversed(made):
            path.rmdir()
        pytest.skip(f"a control group cannot be made here: {error}")
    yield folder
    for path in reversed(made):
        path.rmdir()


@pytest.mark.parametrize("inner", [False, True], ids=["in the limited group", "in a group below it"])
def test_a_real_limit_sets_the_level_and_page_cache_does_not(group: Path, inner: bool, tmp_path: Path) -> None:
    place = group / "inner" if inner else group
    command = [sys.executable, "-c", _SCRIPT, str(place), str(tmp_path / "file")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    seen = json.loads(result.stdout)
    assert seen["told"] == ["warning", "emergency", "normal"]
    assert {figures[0] for name, figures in seen.items() if name != "told"} == {_LIMIT}
    assert {figures[1] for name, figures in seen.items() if name != "told"} == {"cgroup"}
    levels = {name: figures[3] for name, figures in seen.items() if name != "told"}
    assert levels == {
        "start": "normal",
        "page cache": "normal",
        "shared": "normal",
        "private": "warning",
        "more": "emergency",
        "freed": "normal",
    }
    assert seen["page cache"][2] - seen["start"][2] < 40 * MIB
    assert seen["shared"][2] - seen["page cache"][2] == pytest.approx(200 * MIB, rel=0.15)


_INSIDE = """
import sys
from memkit.memory.sample import Reader
sample = Reader(environ={})()
print(sample.limit, sample.binding)
"""
_ENTER = """
echo $$ > "$1/cgroup.procs"
exec unshare --cgroup --mount sh -c 'mount -t cgroup -o memory none "$0" && exec "$1" -c "$2"' "$2" "$3" "$4"
"""


def test_in_a_real_cgroup_namespace_the_limit_is_found_at_the_top_of_the_mount(group: Path, tmp_path: Path) -> None:
    """As in a container: the process sees itself in "/", and its group mounted as the root."""
    command = ["sh", "-c", _ENTER, "sh", str(group), str(tmp_path), sys.executable, _INSIDE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if not result.stdout and ("unshare" in result.stderr or "mount" in result.stderr):
        pytest.skip(f"no namespace can be made here: {result.stderr.strip()}")
    assert result.stdout.split() == [str(_LIMIT), "cgroup"], result.stderr
