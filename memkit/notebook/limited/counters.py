"""What a control group has counted: use, highest use, and kills for want of memory; version 1 and 2."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memkit.errors import ReadingError
from memkit.memory.cgroup import Group, constraint
from memkit.memory.files import number, read

_KILLS = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_NO_LIMIT = 2**63
_USE = {1: "memory.usage_in_bytes", 2: "memory.current"}
_PEAK = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}  # the latter since Linux 5.19
_EVENTS = {1: "memory.oom_control", 2: "memory.events"}  # `oom_kill` in the former since Linux 4.13


@dataclass(slots=True)
class Counters:
    """Keeps the highest of what it has read, so that it can still tell when the group is gone. Bytes."""

    group: Group
    highest: int | None = None
    killed: int | None = None

    def look(self) -> None:
        """Read what there is to read; what cannot be read keeps its last value."""
        self.highest = _more(self.highest, self._number(_PEAK), self._number(_USE))
        self.killed = _more(self.killed, self._kills())

    def held(self) -> int | None:
        """Use without page cache that can be dropped; None where it cannot be read."""
        try:
            found = constraint(self.group, _NO_LIMIT)
        except ReadingError:
            return None
        return None if found is None else found.used

    def _number(self, names: dict[int, str]) -> int | None:
        try:
            return number(f"{self.group.folder}/{names[self.group.version]}")
        except (OSError, ValueError):
            return None

    def _kills(self) -> int | None:
        try:
            found = _KILLS.search(read(f"{self.group.folder}/{_EVENTS[self.group.version]}"))
        except OSError:
            return None
        return None if found is None else int(found[1])


def _more(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)
