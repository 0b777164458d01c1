"""How big is it: a walk over what a value holds, boxed in time, in which shared memory counts once.

No code of the value runs: see `peek`. Where the time runs out inside a large collection, the rest of it is taken to be
like the part that was seen, which is spread over the whole collection.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from memkit.lifecycle import peek
from memkit.lifecycle.contents import Children, Kind, children_of, is_namespace, kind_of, pairs

_CHUNK = 512  # children looked at between two looks at the clock
_DEEPEST = 40  # nested calls; what lies deeper waits in a queue, so that no chain of objects is too long
_TRIES = 5
_SMALL = 16  # elements of a collection that the quick path still adds up one by one
_WORTH_SHARING = 4096  # bytes from which a text or bytes object is recognised in several values
# How often an object held by one list only is counted when `getrefcount` is mapped over that list.
_HELD_ONCE = max(map(sys.getrefcount, [object()]))

# Since Python 3.11 an int of one digit takes the whole of its struct, 4 bytes more than it reports (by tracemalloc);
# nothing else that is plain has its size.
_SMALL_INT = sys.getsizeof(1)
_UNREPORTED = 4 if sys.version_info >= (3, 11) else 0


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes a value keeps in memory beyond what `seen` had already; `shared` are those. Not `exact`: extrapolated."""

    bytes: int
    exact: bool
    shared: int


def size_of(
    value: object,
    *,
    budget: float = 0.05,
    seen: set[int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Size:
    """Measure a value in about `budget` seconds (at most about twice that).

    `seen` holds addresses of objects and buffers already counted and is added to; hand the same set to several calls
    to count memory that values share once, and keep the values alive meanwhile. A view counts as all the memory that
    it keeps alive. Files mapped into memory count as 0. Functions, modules and classes count as themselves only.
    Any thread; takes no lock; never raises on a strange value.
    """
    quick = _quick(value, seen)
    if quick is not None:
        return Size(quick, True, 0)
    known = seen if seen is not None else set()
    walk = _measured(value, budget, known, clock)
    known |= walk.mine
    return Size(int(walk.new), walk.exact, int(walk.shared))


def buffers_in(value: object, budget: float = 0.05, clock: Callable[[], float] = time.perf_counter) -> dict[int, int]:
    """Where buffers in a value start (as in `buffers.Buffer`), and their bytes; those that `budget` seconds find."""
    return _measured(value, budget, set(), clock).buffers


def _measured(value: object, budget: float, seen: set[int], clock: Callable[[], float]) -> _Walk:
    """Time is shared out evenly among a value's parts, most of which are small: what they leave goes into a new try."""
    start, allowed = clock(), budget
    for _ in range(_TRIES):
        walk = _Walk(clock, start + 2 * budget, seen)
        walk.measure(value, clock() + allowed)
        walk.finish(clock() + allowed)
        if walk.exact or clock() - start > budget / 3:
            break
        allowed *= 4
    return walk


def _quick(value: Any, seen: set[int] | None) -> int | None:
    """The size of what needs no walk, as registering thousands of small values asks for it; else None."""
    kind = type(value)
    if id(kind) in peek.ATOMS:
        size = _total_size([value])
        return size if seen is None or size < _WORTH_SHARING else None
    if seen is not None:
        return None
    if (kind is list or kind is tuple) and len(value) <= _SMALL:
        return _quick_collection(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and value.base is None and value.dtype.kind not in "OV":
        return sys.getsizeof(value)
    return None


def _quick_collection(value: Any) -> int | None:
    total = sys.getsizeof(value)
    different = {id(one): one for one in value}
    for one in different.values():
        if id(type(one)) not in peek.ATOMS:
            return None
    return total + _total_size(list(different.values()))


@dataclass(slots=True)
class _Walk:
    clock: Callable[[], float]
    last_call: float  # nothing new is begun after this time
    seen: set[int]
    new: float = 0.0
    shared: float = 0.0
    exact: bool = True
    mine: set[int] = field(default_factory=set)
    buffers: dict[int, int] = field(default_factory=dict)
    _atoms: set[int] = field(default_factory=set)
    _kinds: dict[int, Kind] = field(default_factory=dict)
    # What a library makes when asked must not die during the walk: the next such object would get its id.
    _kept: list[Children] = field(default_factory=list)
    _later: list[tuple[Any, bool]] = field(default_factory=list)

    def measure(self, value: Any, deadline: float, depth: int = 0, known: bool = False) -> None:
        """Count a value and what it holds; `known` where it lies inside something that `seen` has."""
        kind = self._kind(type(value))
        key = id(value)
        if key in self.mine:
            return
        if depth > _DEEPEST:
            self._later.append((value, known))
            return
        self.mine.add(key)
        known = known or key in self.seen
        self._count(kind.shallow(value), known)
        if kind.is_alone or (kind.is_machinery and depth) or (type(value) is dict and is_namespace(value)):
            return
        if kind.is_plain and len(value) <= _CHUNK:
            self._measure_chunk(_all_of(value), 1, deadline, 1, depth + 1, known)
        else:
            children = children_of(value, kind)
            if kind.read is not None and children.count:
                self._kept.append(children)
            self._measure_parts(children, deadline, depth + 1, known)

    def _measure_parts(self, children: Children, deadline: float, depth: int, known: bool) -> None:
        self._count(children.extra, known)
        self.exact = self.exact and children.exact
        for address, size in children.buffers:
            if address not in self.mine:
                self.mine.add(address)
                self.buffers[address] = size
                self._count(size, known or address in self.seen)
        self._measure_children(children, deadline, depth, known)

    def finish(self, deadline: float) -> None:
        """Measure what lay too deep."""
        while self._later:
            if self.clock() > self.last_call:
                self.exact = False
                break
            value, known = self._later.pop()
            self.measure(value, deadline, 1, known)

    def _kind(self, kind: type) -> Kind:
        found = self._kinds.get(id(kind))
        if found is None:
            found = self._kinds[id(kind)] = kind_of(kind)
        return found

    def _count(self, size: float, known: bool) -> None:
        if known:
            self.shared += size
        else:
            self.new += size

    def _measure_children(self, children: Children, deadline: float, depth: int, known: bool) -> None:
        """Chunk by chunk, in an order that jumps about the collection, so that a part of it stands for the whole."""
        new, shared, visited = self.new, self.shared, 0
        chunks = math.ceil(children.count / _CHUNK)
        step = _coprime_step(chunks)
        for turn in range(chunks):
            if turn and self.clock() > deadline:
                break
            start = turn * step % chunks * _CHUNK
            items = children.take(start, start + _CHUNK)
            visited += len(items)
            self._measure_chunk(items, children.holders, deadline, chunks - turn, depth, known)
        if visited < children.total:
            self._scale(new, shared, children.total, visited)

    def _scale(self, new: float, shared: float, total: int, visited: int) -> None:
        self.exact = False
        factor = total / visited if visited else 1.0
        self.new = new + (self.new - new) * factor
        self.shared = shared + (self.shared - shared) * factor

    def _measure_chunk(
        self, items: list[Any], holders: int, deadline: float, chunks_left: int, depth: int, known: bool
    ) -> None:
        plain = list(map(peek.ATOMS.__contains__, map(id, map(type, items))))
        if all(plain):
            self._measure_atoms(items, holders, known)
            return
        others = [item for item, atom in zip(items, plain, strict=True) if not atom]
        self._measure_atoms(list(compress(items, plain)), holders + 1, known)
        new, shared, done = self.new, self.shared, 0
        for item in others:
            now = self.clock()
            if (now > self.last_call and depth > 1) or (now > self.last_call and done):
                break
            share = max(deadline - now, 0.0) / (len(others) * chunks_left - done)
            done += 1
            self.measure(item, now + share, depth, known)
        if done < len(others):
            self._scale(new, shared, len(others), done)

    def _measure_atoms(self, items: list[Any], holders: int, known: bool) -> None:
        """At the speed of C: what only this collection holds cannot turn up again and needs no remembering."""
        if not items:
            return
        once = _HELD_ONCE + holders
        counts = list(map(sys.getrefcount, items))
        if max(counts) <= once:
            self._count(_total_size(items), known)
            return
        self._count(_total_size(list(compress(items, [count <= once for count in counts]))), known)
        often = {id(item): item for item, count in zip(items, counts, strict=True) if count > once}
        for key in often.keys() - self._atoms:
            self._count_shared_atom(key, _total_size([often[key]]), known)

    def _count_shared_atom(self, key: int, size: int, known: bool) -> None:
        self._atoms.add(key)
        if size >= _WORTH_SHARING:
            if key in self.mine:
                return
            self.mine.add(key)
            known = known or key in self.seen
        self._count(size, known)


def _all_of(value: Any) -> list[Any]:
    return pairs(value) if type(value) is dict else gc.get_referents(value)


def _total_size(atoms: list[Any]) -> int:
    sizes = list(map(sys.getsizeof, atoms))
    return sum(sizes) + _UNREPORTED * sizes.count(_SMALL_INT)


def _coprime_step(count: int) -> int:
    """A stride of about the golden ratio that visits each of `count` places once."""
    step = max(1, int(count * 0.618))
    while math.gcd(step, count) > 1:
        step += 1
    return step
