"""One walk over everything that can be reached from some values, counting the references met on the way."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from memkit.lifecycle.store.failures import Cancel
from memkit.lifecycle.store.graph import ARRAY, ATOM, CONTAINER, TENSOR, TEXT, Kinds, elements, longest_text, members
from memkit.lifecycle.store.reducers import tensors
from memkit.lifecycle.store.reducers.arrays import flat_elements, is_foreign, root_of
from memkit.lifecycle.store.stored import Cancelled
from memkit.units import KIB

_BATCH = 512
# A container longer than this is gone through in batches; all neighbours of a batch of shorter ones are listed at once.
_LONG = 512
LONG_TEXT = 64 * KIB
_NUMBER = 28  # bytes of a small int; a float has 24
_PROBES = 32


def _counts(objects: list[Any]) -> list[int]:
    return list(map(sys.getrefcount, objects))


def _count_of_single() -> int:
    """What `_counts` says of an object with one reference besides the list's; the number differs between Pythons."""
    owner = [object()]
    return _counts(list(owner))[0]


_SINGLE = _count_of_single()


class Round:
    """One walk, which does not enter what is already known to be kept. `size` is the bytes met, estimated."""

    def __init__(self, kept: Mapping[int, Any], kinds: Kinds, cancelled: Cancel) -> None:
        self._kept = kept
        self._kinds = kinds
        self._cancelled = cancelled
        self._edges: dict[int, int] = {}
        self._by_tensors: dict[int, int] = {}
        self._shared: list[Any] = []
        self._pending: list[Any] = []
        self._long: list[Iterator[list[Any]]] = []
        self._foreign: dict[int, Any] = {}
        self.size = 0

    def walk(self, values: Mapping[str, Any], accounted: Mapping[str, int]) -> None:
        """Go through everything below the values; `accounted` is the number of references to each that is explained."""
        for name in values:
            self._meet(values[name], accounted[name])
            self.size += sys.getsizeof(values[name]) if self._kinds[type(values[name])] <= TEXT else 0
        while self._pending or self._long:
            if self._cancelled():
                raise Cancelled("cancelled before anything was written")
            if self._pending:
                batch = self._pending[-_BATCH:]
                del self._pending[-_BATCH:]
                self._take(self._neighbours(batch))
            else:
                self._take_long()

    def _take_long(self) -> None:
        children = next(self._long[-1], None)
        if children is None:
            self._long.pop()
        else:
            self._take(children)

    def held(self) -> dict[int, Any]:
        """What has more references than were met, by id. To be asked when the walk is over and its frames are gone."""
        counts = _counts(self._shared)
        held = {id(item): item for item, count in zip(self._shared, counts, strict=True) if self._is_held(item, count)}
        return held | self._foreign

    def _is_held(self, item: Any, count: int) -> bool:
        key, kind = id(item), self._kinds[type(item)]
        if tensors.is_storage(item):
            return tensors.references(item) > self._edges[key] + 1  # one is the Python object we have of it
        if kind == TENSOR and tensors.references(item) > 1 + self._by_tensors.get(key, 0):
            return True
        if count <= _SINGLE - 1 + self._edges[key]:
            return False
        return type(item) not in (tuple, frozenset) or any(self._kinds[type(part)] > TEXT for part in item)

    def _meet(self, item: Any, references: int = 1) -> None:
        """An object that may be referred to more than once: enter it once, count each."""
        key, kind = id(item), self._kinds[type(item)]
        if key in self._kept:
            return
        if key in self._edges:
            self._edges[key] += references
            return
        if kind == ATOM or (kind == TEXT and len(item) < LONG_TEXT):
            return
        self._edges[key] = references
        self._shared.append(item)
        if kind != TEXT:
            self._pending.append(item)

    def _neighbours(self, batch: list[Any]) -> list[Any]:
        """What the objects of the batch refer to; what long ones refer to is put off."""
        groups: dict[type, list[Any]] = {}
        for item in batch:
            groups.setdefault(type(item), []).append(item)
        plain: list[Any] = []
        found: list[Any] = []
        for cls, group in groups.items():
            self._enter(cls, group, plain, found)
        found += gc.get_referents(*plain)
        return found

    def _enter(self, cls: type, group: list[Any], plain: list[Any], found: list[Any]) -> None:
        kind = self._kinds[cls]
        self.size += sum(map(self._kinds.sizers[cls], group))
        if kind == CONTAINER and max(map(len, group)) > _LONG:
            self._long += [members(item) for item in group if len(item) > _LONG]
            plain += [item for item in group if len(item) <= _LONG]
            return
        plain += group
        for item in group if kind >= ARRAY else ():
            if kind == ARRAY:
                self._enter_array(item, found)
            else:
                self._enter_tensor(item, found)

    def _enter_array(self, array: Any, found: list[Any]) -> None:
        if array.base is not None:
            found.append(array.base)
        if array.dtype.hasobject and root_of(array) is array:
            self._enter_objects(array)
        if root_of(array) is array and is_foreign(array):
            self._foreign[id(array)] = array

    def _enter_objects(self, array: Any) -> None:
        longest = longest_text(array)
        if longest is None or longest >= LONG_TEXT:
            self._long.append(elements(array))
            return
        some = flat_elements(array)[:: max(1, array.size // _PROBES)].tolist()
        single = [text for text, count in zip(some, _counts(some), strict=True) if count <= _SINGLE]
        self.size += int(sum(map(sys.getsizeof, single)) / max(1, len(some)) * array.size)

    def _enter_tensor(self, tensor: Any, found: list[Any]) -> None:
        for other in tensors.held_by(tensor):
            self._by_tensors[id(other)] = self._by_tensors.get(id(other), 0) + 1
            found.append(other)
        if tensors.is_plain(tensor):
            storage = tensor.untyped_storage()
            if id(storage) not in self._kept and id(storage) not in self._edges:
                self.size += storage.nbytes()
                self._edges[id(storage)] = 0
                self._shared.append(storage)
            if id(storage) in self._edges:
                self._edges[id(storage)] += 1

    def _take(self, children: list[Any]) -> None:
        kinds = self._kinds
        types = set(map(type, children))
        present = {kinds[cls] for cls in types}
        if TEXT in present:
            self._weigh_texts([c for c in children if kinds[type(c)] == TEXT] if len(types) > 1 else children)
        elif ATOM in present:
            self.size += _NUMBER * len(_single(children)) * _step(children)
        if max(present, default=ATOM) > TEXT:
            self._take_nodes([child for child in children if kinds[type(child)] > TEXT], TENSOR in present)

    def _take_nodes(self, nodes: list[Any], tensors_too: bool) -> None:
        counts = _counts(nodes)
        most = 0 if tensors_too else _SINGLE + 1  # one reference is the list's that `nodes` was made of
        if max(counts) <= most:
            self._pending += nodes
            return
        for node, count in zip(nodes, counts, strict=True):
            if count <= most:
                self._pending.append(node)
            else:
                self._meet(node)

    def _weigh_texts(self, texts: list[Any]) -> None:
        """Add the bytes of texts, as far as nobody else has them, and meet the long ones, which can be anchors."""
        self.size += sum(map(sys.getsizeof, _single(texts))) * _step(texts)
        if max(map(len, texts)) >= LONG_TEXT:
            for text in texts:
                self._meet(text)


def _step(objects: list[Any]) -> int:
    return max(1, len(objects) // _PROBES)


def _single(objects: list[Any]) -> list[Any]:
    """Of a few of the objects, spread evenly, those that have one owner, as far as can be told."""
    some = objects[:: _step(objects)]
    # Two or three lists have them too: this one, `objects`, and the one that `objects` may have been made of.
    return [item for item, count in zip(some, _counts(some), strict=True) if count <= _SINGLE + 2]
