"""Large numpy arrays whose size says little: untouched ones, and those in a mapped file that are being changed."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from memkit.memory.residency import private_share

_LARGE = 32 * 2**20  # bytes; smaller arrays cannot matter
_MOST = 8  # arrays looked at


@dataclass(frozen=True, slots=True)
class Residency:
    """Which share of each large array was this process' own memory, by the array's id."""

    shares: dict[int, float]

    @classmethod
    def of(cls, values: Iterable[Any]) -> Residency:
        """Look at the large arrays among some values, at most 8 of them."""
        kinds = _kinds()
        large = [value for value in values if id(type(value)) in kinds and value.nbytes >= _LARGE][:_MOST]
        return cls({id(value): share for value in large if (share := _share(value)) is not None})

    def has_grown(self, array: Any) -> bool:
        """Whether more of it is in memory now."""
        before = self.shares.get(id(array))
        return before is not None and (_share(array) or 0.0) > before


def changed_in_mapping(value: Any) -> int:
    """Bytes of a large array in a mapped file that have become this process' own memory; 0 for anything else."""
    if id(type(value)) not in _kinds() or value.nbytes < _LARGE or not _is_mapped(value):
        return 0
    return int((_share(value) or 0.0) * value.nbytes)


def _share(array: Any) -> float | None:
    return private_share(array.__array_interface__["data"][0], array.nbytes)


def _kinds() -> frozenset[int]:
    """Of the types by their ids, see `peek.ATOMS`."""
    numpy = sys.modules.get("numpy")
    return frozenset(id(vars(numpy).get(name)) for name in ("ndarray", "memmap")) if numpy else frozenset()


def _is_mapped(array: Any) -> bool:
    base = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base is not None
