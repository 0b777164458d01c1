"""Names that say which process made a box, so that one whose maker was killed can be told from one in use."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass

from memkit.memory.files import read

_NAME = re.compile(r"memkit-run-(\d+)-(\d+)-(\d+)-(\d+)")
PATTERN = "memkit-run-*"
_STARTED_FIELD = 19  # proc_pid_stat(5) numbers `starttime` 22nd; here counted after the program's name
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Maker:
    """A process: its id, the tick it started at (ids are used again), and the namespace the id is valid in."""

    pid: int
    started: int
    namespace: int

    @classmethod
    def of_name(cls, name: str) -> Maker | None:
        """Who made the box of this name; None where it is no box of ours."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(int(match[1]), int(match[2]), int(match[3]))

    @classmethod
    def this(cls, proc: str = "/proc") -> Maker:
        """This process; raises OSError without /proc."""
        return cls(os.getpid(), _started(proc, os.getpid()), os.stat(f"{proc}/self/ns/pid").st_ino)

    def new_name(self) -> str:
        """A name no other box has."""
        return f"memkit-run-{self.pid}-{self.started}-{self.namespace}-{next(_numbers)}"

    def is_dead(self, proc: str = "/proc") -> bool:
        """Whether it has certainly ended; of another namespace nothing is certain."""
        if self.namespace != os.stat(f"{proc}/self/ns/pid").st_ino:
            return False
        try:
            return _started(proc, self.pid) != self.started
        except (FileNotFoundError, ProcessLookupError):
            return True


def _started(proc: str, pid: int) -> int:
    return int(read(f"{proc}/{pid}/stat").rpartition(b") ")[2].split()[_STARTED_FIELD])
