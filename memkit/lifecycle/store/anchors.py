"""Which parts of a value somebody else holds too: they stay in memory, so that everything shared stays shared.

Each object that can be reached from the values is met once, and the references to it from there are counted. One
that has more references than that is held from outside - an *anchor* - and is kept as it is. What an anchor refers
to is held from outside as well, so the count is made again without the anchors until no new one shows.

An object with a single reference needs no entry in any table: it can be reached in no other way and by nobody else.
So the memory taken is about 100 bytes per object that is referred to twice or more, not a share of the graph. The time
is comparable to that of pickling it.

Text of less than 64 KiB, numbers, enumerations, functions, classes and modules are no anchors: immutable, or kept by
name; nor is a tuple of nothing else. Memory that C++ libraries share behind Python's back (two arrow arrays on one
buffer) is not seen; it is immutable, so only the estimate of what is freed suffers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memkit.errors import DemotionError
from memkit.lifecycle.store import failures
from memkit.lifecycle.store.failures import Cancel
from memkit.lifecycle.store.graph import Kinds
from memkit.lifecycle.store.reducers import arrays
from memkit.lifecycle.store.walk import Round
from memkit.units import KIB

# Each round finds what the anchors of the one before refer to; real values need one or two.
_ROUNDS = 8
# Less than this kept is not worth a refusal: a shared index, a dtype.
_NEGLIGIBLE = 64 * KIB


@dataclass(frozen=True, slots=True)
class Survey:
    """`kept` maps the id of each anchor to it; sizes are bytes, estimated."""

    kept: dict[int, Any]
    total: int
    freed: int


def survey(values: Mapping[str, Any], exempt: Mapping[str, int], cancelled: Cancel) -> Survey:
    """Find the anchors below the values.

    `exempt` tells for each name how many references to its value the caller answers for, besides `values` itself; 1
    where nothing is said. Raises SharedMemoryError where a value itself, or more than half of the memory, is held
    elsewhere, and DemotionError where a value's memory is not its own.
    """
    kinds, kept, total = Kinds(), dict[int, Any](), 0
    accounted = {name: 1 + exempt.get(name, 1) for name in values}
    _refuse_foreign(values)
    for index in range(_ROUNDS):
        tour = Round(kept, kinds, cancelled)
        tour.walk(values, accounted)
        found = tour.held()
        total = tour.size if index == 0 else total
        if any(id(value) in found for value in values.values()):
            raise failures.shared(values, tuple(v for v in values.values() if id(v) in found), total, total)
        if not found:
            _check_worth(values, kept, tour.size, total)
            return Survey(kept, total, tour.size)
        kept.update(found)
    raise failures.shared(values, tuple(kept.values()), total, total)


def _check_worth(values: Mapping[str, Any], kept: Mapping[int, Any], freed: int, total: int) -> None:
    held = total - freed
    if kept and held > freed and held >= _NEGLIGIBLE:
        raise failures.shared(values, tuple(kept.values()), held, total)


def _refuse_foreign(values: Mapping[str, Any]) -> None:
    np = sys.modules.get("numpy")
    for name, value in values.items():
        if np is not None and isinstance(value, np.ndarray) and arrays.is_foreign(arrays.root_of(value)):
            owner = type(arrays.exporter_of(arrays.root_of(value)))
            where = (
                "a mapped file, already on disk" if owner.__module__ == "mmap" else f"held by a {owner.__qualname__}"
            )
            raise DemotionError(f"{name}: its memory is {where}; it stays where it is")
