"""A box that is a control group of its own, of either version."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from memkit.memory import cgroup
from memkit.memory.files import read
from memkit.notebook.limited.counters import Counters
from memkit.notebook.limited.enter import joining


class GroupBox:
    """See `limit.Box`. The group outlives its processes, so its counters are exact to the end."""

    measure = "all processes together and what they read from files"

    def __init__(self, group: cgroup.Group, notes: tuple[str, ...] = ()) -> None:
        self.environ: Mapping[str, str] = {}
        self.notes = notes
        self.prefix = joining(f"{group.folder}/cgroup.procs")
        self._counters = Counters(group)

    def started(self, pid: int) -> None:
        """The group knows."""

    def look(self) -> None:
        self._counters.look()

    def held(self) -> int | None:
        return self._counters.held()

    def peak(self) -> int | None:
        self._counters.look()
        return self._counters.highest

    def kills(self) -> int | None:
        self._counters.look()
        return self._counters.killed


def own_groups(root: Path, version: cgroup.Version, pid: int | str = "self") -> list[str]:
    """Folders of the groups of one version that a process is in, its own first; raises OSError."""
    proc = f"{str(root).rstrip('/')}/proc/{pid}"
    found = cgroup.groups(read(f"{proc}/cgroup"), read(f"{proc}/mountinfo"), str(root).rstrip("/"))
    return [group.folder for group in found if group.version == version and os.path.isdir(group.folder)]
