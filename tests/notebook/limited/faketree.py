"""Control groups as plain folders, with the kernel's rules: who may be where, which files there are, what is busy."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from memkit.notebook.limited.tree import Tree

_MEMORY = {
    2: {
        "memory.max": "max", "memory.high": "max", "memory.swap.max": "max", "memory.current": "4096",
        "memory.peak": "8192", "memory.stat": "file 0\nshmem 0\n", "memory.events": "oom 0\noom_kill 0\n",
    },
    1: {
        "memory.limit_in_bytes": str(2**63 - 4096), "memory.memsw.limit_in_bytes": str(2**63 - 4096),
        "memory.usage_in_bytes": "4096", "memory.max_usage_in_bytes": "8192", "memory.use_hierarchy": "1",
        "memory.stat": "cache 0\ntotal_cache 0\ntotal_shmem 0\n", "memory.swappiness": "60",
        "memory.oom_control": "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n",
    },
}  # fmt: skip


class FakeTree(Tree):
    """`forbidden` are paths below which nothing may be written, `immovable` processes that nobody may move."""

    def __init__(self, root: Path, version: int) -> None:
        self.root, self.version = root, version
        self.top = root / "sys/fs/cgroup"
        self.forbidden: list[Path] = []
        self.immovable: set[int] = set()
        self.killed: list[int] = []
        for folder in (root / "proc/self", self.top):
            folder.mkdir(parents=True)
        source = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        (root / "proc/self/mountinfo").write_text(f"30 20 0:26 / /sys/fs/cgroup rw - {source}\n")
        self._fill(self.top, ["memory"])

    def lives_in(self, *path: str) -> Path:
        """Make the groups on the way to our own, each handing memory down to the next."""
        folder = self.top
        for name in path:
            if self.version == 2:
                (folder / "cgroup.subtree_control").write_text("memory\n")
            folder = folder / name
            self.make(str(folder))
        identifier = "0::" if self.version == 2 else "4:memory:"
        (self.root / "proc/self/cgroup").write_text(f"{identifier}/{'/'.join(path)}\n")
        return folder

    def populate(self, folder: Path, *pids: int) -> None:
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    # -- what the kernel does --------------------------------------------------------------------------------------

    def make(self, folder: str) -> None:
        self._permit(Path(folder).parent)
        os.mkdir(folder)
        above = (
            (Path(folder).parent / "cgroup.subtree_control").read_text().split() if self.version == 2 else ["memory"]
        )
        self._fill(Path(folder), above)

    def remove(self, folder: str) -> None:
        self._permit(Path(folder).parent)
        if self.processes(folder) or any(entry.is_dir() for entry in os.scandir(folder)):
            raise OSError(errno.EBUSY, "Device or resource busy")
        shutil.rmtree(folder)

    def write(self, path: str, text: str) -> None:
        file = Path(path)
        self._permit(file.parent)
        if file.name == "cgroup.procs":
            self._move(int(text), file.parent)
        elif file.name == "cgroup.subtree_control":
            self._hand_down(file.parent, text)
        else:
            file.write_text(text)

    def kill(self, pid: int) -> None:
        self.killed.append(pid)
        for procs in self.top.rglob("cgroup.procs"):
            self._without(procs, pid)

    def pause(self) -> None:
        """Nobody takes time to die here."""

    def _permit(self, folder: Path) -> None:
        if any(folder == path or path in folder.parents for path in self.forbidden):
            raise PermissionError(errno.EACCES, "Permission denied")

    def _move(self, pid: int, target: Path) -> None:
        if pid in self.immovable:
            raise PermissionError(errno.EACCES, "Permission denied")
        if self.version == 2 and target != self.top and (target / "cgroup.subtree_control").read_text().split():
            raise OSError(errno.EBUSY, "Device or resource busy")
        for procs in self.top.rglob("cgroup.procs"):
            self._without(procs, pid)
        with (target / "cgroup.procs").open("a") as procs_file:
            procs_file.write(f"{pid}\n")

    def _without(self, procs: Path, pid: int) -> None:
        procs.write_text("".join(f"{line}\n" for line in procs.read_text().split() if line != str(pid)))

    def _hand_down(self, folder: Path, text: str) -> None:
        if "memory" not in (folder / "cgroup.controllers").read_text().split():
            raise OSError(errno.ENOENT, "No such file or directory")
        if text == "+memory" and folder != self.top and self.processes(str(folder)):
            raise OSError(errno.EBUSY, "Device or resource busy")
        (folder / "cgroup.subtree_control").write_text("memory\n" if text == "+memory" else "\n")

    def _fill(self, folder: Path, controllers: list[str]) -> None:
        (folder / "cgroup.procs").write_text("")
        if self.version == 2:
            (folder / "cgroup.controllers").write_text(" ".join(controllers) + "\n")
            (folder / "cgroup.subtree_control").write_text("\n")
        for name, content in _MEMORY[self.version].items() if "memory" in controllers else ():
            (folder / name).write_text(content)
