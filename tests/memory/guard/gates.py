"""Stand-ins for the guard, and Python processes with little memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

MIB = 2**20

LIMITED = """
import re, resource
def data():
    return int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
def leave(mebibytes):
    "Let this process have so much more."
    resource.setrlimit(resource.RLIMIT_DATA, (data() + int(mebibytes * 2**20), resource.RLIM_INFINITY))
def unlimited():
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@dataclass
class FakeGate:
    """`left` bytes can be had, and `more` after making room."""

    left: int = 2**40
    more: int = 0
    on: bool = True
    asked: list[int] = field(default_factory=list)
    lifts: int = 0
    inside: int = 0

    def free(self) -> int:
        return self.left

    def make_room(self, needed: int) -> int:
        self.asked.append(needed)
        self.left += self.more
        return self.left

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        self.lifts += 1
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def importing(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def python(source: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may call `leave(mebibytes)` and `unlimited()` in a process of its own."""
    program = LIMITED + textwrap.dedent(source)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, check=False,
        env={"PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "2", "RUST_BACKTRACE": "0", **environment},
    )  # fmt: skip
