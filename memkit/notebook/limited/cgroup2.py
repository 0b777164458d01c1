"""Limiting memory by a control group of version 2, beside our own where that is handed to us, else below it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from memkit.errors import LimitError
from memkit.memory.cgroup import Group
from memkit.memory.files import number, read
from memkit.notebook.limited.groupbox import GroupBox, own_groups
from memkit.notebook.limited.limit import Box, uninterrupted
from memkit.notebook.limited.parking import gives_memory, park, unpark
from memkit.notebook.limited.tree import Tree
from memkit.units import GIB

_TRIED = GIB
_NO_SWAP_LIMIT = "swap could not be forbidden here (no memory.swap.max), so more than this may be in use"


class CgroupV2:
    """A group in a part of the tree that this user may change ("delegated": root's, or a user's own systemd's)."""

    name = "cgroup v2"

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
        with uninterrupted():
            parent, folder = self._made()
        try:
            try:
                notes = self._bound(folder, size)
            except OSError as error:
                raise LimitError(f"{folder} takes no limit: {error.strerror or error}") from error
            yield GroupBox(Group(2, folder), notes)
        finally:
            with uninterrupted():
                self._tree.destroy(folder)
                unpark(self._tree, parent)

    def _made(self) -> tuple[str, str]:
        """A new group and the one it is in; raises LimitError with every reason."""
        own, *above = self._own()
        reasons = []
        for prepare in ([_beside] if above else []) + [self._below]:
            try:
                parent = prepare(own, *above[:1])
                self._tree.sweep(parent)
                return parent, self._new(parent)
            except LimitError as error:
                reasons.append(str(error))
            except OSError as error:
                reasons.append(f"no group can be made for {own}: {error.strerror or error}")
        raise LimitError("; ".join(reasons))

    def _own(self) -> list[str]:
        try:
            found = own_groups(self._root, 2)
            controllers = read(f"{found[0]}/cgroup.controllers").split() if found else []
        except (OSError, ValueError, IndexError):
            found, controllers = [], []
        if not found:
            raise LimitError("this system has no control groups of version 2")
        if b"memory" not in controllers:
            raise LimitError(f"{found[0]} has no memory controller of version 2")
        return found

    def _below(self, own: str, above: str = "") -> str:
        if not gives_memory(own):
            park(self._tree, own)
        return own

    def _new(self, parent: str) -> str:
        try:
            return self._tree.new(parent)
        except OSError:
            unpark(self._tree, parent)
            raise

    def _bound(self, folder: str, size: int) -> tuple[str, ...]:
        """Set the limit; what it cannot do is returned in sentences. Raises OSError."""
        self._tree.write(f"{folder}/memory.max", str(size))
        if number(f"{folder}/memory.max") > size:
            raise OSError("the limit was not taken")
        if os.path.exists(f"{folder}/memory.swap.max"):
            self._tree.write(f"{folder}/memory.swap.max", "0")
            return ()
        return (_NO_SWAP_LIMIT,)


def _beside(own: str, above: str) -> str:
    """The group above, if a group in it is limited, is ours to join, and leaves no limit of our own group behind."""
    if not gives_memory(above):
        raise LimitError(f"{above} gives groups below it no memory controller")
    if read(f"{own}/memory.max").strip() != b"max":
        raise LimitError(f"{own} has a limit of its own, which a group beside it would escape")
    if not os.access(f"{above}/cgroup.procs", os.W_OK):
        raise LimitError(f"{above} is not handed to this user: its list of processes may not be written")
    return above
