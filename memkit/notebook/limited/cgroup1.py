"""Limiting memory by a control group of version 1."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from memkit.errors import LimitError
from memkit.memory.cgroup import Group
from memkit.memory.files import number
from memkit.notebook.limited.groupbox import GroupBox, own_groups
from memkit.notebook.limited.limit import Box, uninterrupted
from memkit.notebook.limited.tree import Tree
from memkit.units import GIB

_TRIED = GIB
_SWAP = "memory.memsw.limit_in_bytes"
_NO_SWAP_LIMIT = "swap could not be forbidden here (no memory.memsw files), so more than this may be in use"


class CgroupV1:
    """A group below our own one in the memory hierarchy."""

    name = "cgroup v1"

    def __init__(self, root: Path = Path("/"), tree: Tree | None = None) -> None:
        self._root, self._tree = root, tree or Tree()

    def available(self) -> str | None:
        """Tries it with a group that is removed at once."""
        try:
            with self.box(_TRIED):
                return None
        except LimitError as error:
            return str(error)

    @contextlib.contextmanager
    def box(self, size: int) -> Iterator[Box]:
        """See `limit.Limit.box`."""
        parent = self._parent()
        folder = None
        try:
            try:
                with uninterrupted():
                    self._tree.sweep(parent)
                    folder = self._tree.new(parent)
                notes = self._bound(folder, size)
            except OSError as error:
                raise LimitError(f"no group can be made in {parent}: {error.strerror or error}") from error
            yield GroupBox(Group(1, folder), notes)
        finally:
            if folder is not None:
                with uninterrupted():
                    self._tree.destroy(folder)

    def _parent(self) -> str:
        try:
            own = own_groups(self._root, 1)
        except (OSError, ValueError, IndexError):
            own = []
        if not own:
            raise LimitError("this system has no memory controller of version 1")
        return own[0]

    def _bound(self, folder: str, size: int) -> tuple[str, ...]:
        """Set the limit; what it cannot do is returned in sentences. Raises OSError."""
        self._tree.write(f"{folder}/memory.limit_in_bytes", str(size))
        if number(f"{folder}/memory.limit_in_bytes") > size:
            raise OSError("the limit was not taken")
        # Inherited from the group above: a kernel would then stand still at its limit for ever.
        with contextlib.suppress(OSError):
            self._tree.write(f"{folder}/memory.oom_control", "0")
        return self._forbid_swap(folder, size)

    def _forbid_swap(self, folder: str, size: int) -> tuple[str, ...]:
        if os.path.exists(f"{folder}/{_SWAP}"):
            self._tree.write(f"{folder}/{_SWAP}", str(size))
            return ()
        with contextlib.suppress(OSError):
            self._tree.write(f"{folder}/memory.swappiness", "0")
        return (_NO_SWAP_LIMIT,) if self._has_swap() else ()

    def _has_swap(self) -> bool:
        try:
            swaps = (self._root / "proc/swaps").read_text()
        except OSError:
            return False
        return len(swaps.splitlines()) > 1  # the first line is the heading
