"""Whether memory that a tensor shows is also somebody else's: a numpy array's, or a file's.

`torch.from_numpy` keeps the array where Python cannot see it, and `tensor.numpy()` marks a storage just as that does;
so only looking for the array tells the two apart. Arrays that only a running function's locals hold are not found.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkit.lifecycle.store.reducers.arrays import exporter_of, is_tensor, root_of


def array_ranges() -> list[tuple[int, int]]:
    """Where the arrays lie that something in this process refers to, except those that show a tensor's memory."""
    np = sys.modules.get("numpy")
    if np is None:
        return []
    roots = {id(root): root for root in (root_of(a) for a in _arrays(np.ndarray)) if not is_tensor(exporter_of(root))}
    return [np.lib.array_utils.byte_bounds(root) for root in roots.values() if root.nbytes]


def _arrays(cls: type) -> Iterator[Any]:
    for owner in gc.get_objects():
        yield from _within(gc.get_referents(owner), cls)


def _within(items: list[Any], cls: type, depth: int = 2) -> Iterator[Any]:
    """Also inside dicts and tuples that the collector leaves out, as it does those that hold arrays alone."""
    for item in items:
        if issubclass(type(item), cls):  # never `isinstance`: it may run a lazy object's `__class__`
            yield item
        elif depth and type(item) in (dict, tuple) and not gc.is_tracked(item):
            yield from _within(gc.get_referents(item), cls, depth - 1)


def in_file(address: int, maps: Path = Path("/proc/self/maps")) -> bool:
    """Whether the memory at the address is a mapped file; False where the system does not tell."""
    try:
        lines = maps.read_text(errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:  # proc(5): address perms offset dev inode pathname
        fields = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if start <= address < end:
            return fields[4] != "0"
    return False
