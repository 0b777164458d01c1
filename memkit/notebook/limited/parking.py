"""The "no internal processes" rule of cgroup version 2: a group that limits groups below it holds no process itself.

Where nothing but our own group is ours, its processes are parked one level deeper for as long as a box is open there.
Nothing changes for them: the group they are parked in has no limit, and the limits above stay above.
"""

from __future__ import annotations

import os

from memkit.errors import LimitError
from memkit.memory.files import read
from memkit.notebook.limited.tree import Tree

_LEAF = "memkit-parked"
_ROUNDS = 50  # each moves who was there; a process that forks meanwhile needs another one


def gives_memory(folder: str) -> bool:
    """Whether groups below this one have the memory controller; raises OSError."""
    return b"memory" in read(f"{folder}/cgroup.subtree_control").split()


def park(tree: Tree, own: str) -> None:
    """Empty a group into a leaf below it and hand the memory controller down; raises LimitError, all as it was."""
    try:
        if not os.path.isdir(f"{own}/{_LEAF}"):
            tree.make(f"{own}/{_LEAF}")
        _move_all(tree, own, f"{own}/{_LEAF}")
        tree.write(f"{own}/cgroup.subtree_control", "+memory")
    except OSError as error:
        unpark(tree, own)
        raise LimitError(
            f"{own} holds processes, so it may not limit groups below it, and they cannot be moved: "
            f"{error.strerror or error}"
        ) from error


def unpark(tree: Tree, own: str) -> None:
    """Put everyone back, unless another box still needs it; its maker then does. Raises LimitError."""
    leaf = f"{own}/{_LEAF}"
    if not os.path.isdir(leaf) or tree.boxes(own):
        return
    try:
        if gives_memory(own):
            tree.write(f"{own}/cgroup.subtree_control", "-memory")
        _move_all(tree, leaf, own)
        tree.remove(leaf)
    except OSError as error:
        raise LimitError(f"processes parked in {leaf} could not be put back: {error.strerror or error}") from error


def _move_all(tree: Tree, source: str, target: str) -> None:
    for _ in range(_ROUNDS):
        pids = tree.processes(source)
        if not pids:
            return
        tree.move(pids, target)
    raise OSError("processes keep appearing in it")
