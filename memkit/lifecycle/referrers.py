"""Who still holds a value, or the memory in it, in words that lead to the place."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from types import ModuleType
from typing import Any

from memkit.lifecycle import backwards, buffers, edges, frames, sizing
from memkit.lifecycle.edges import Path

_MOST_NAMED = 8
# Of the buffers in a value those count that make it up; an index shared with another frame does not.
_WORTH = 0.1
_HUGE = 1000
_INTERNAL = re.compile(r"\._(?!_)|\.<")  # private attributes, and members that have no name
_HIDDEN = ("_oh", "_dh", "In", "_ih")  # IPython's second names for its own lists


def holders_of(
    value: object,
    *,
    roots: Mapping[str, Any],
    ignore: Collection[int | str] = (),
    budget: float = 0.3,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[str, ...]:
    """Readable places that keep `value`, or the memory it owns, alive; at most 8, then how many more.

    Looks downwards from `roots` (the notebook's names), from the user's own modules and from the variables of running
    functions, then backwards through the collector, for about `budget` seconds in all. `ignore` are ids of holders and
    names of roots that do not count. Objects are told apart by identity; no code of theirs runs.
    memkit's own frames do not count. Any thread; takes no lock.
    """
    started = clock()
    search = _Search(_Targets.of(value, budget / 6, clock), frozenset(ignore), clock)
    search.walk(_named(roots), started + budget * 0.6)
    search.walk(_of_modules(roots), started + budget * 0.75)
    found = [*search.found, *_in_frames(search)]
    excluded = search.holders | {one for one in ignore if type(one) is int} | {id(roots), id(search)}
    del search
    found += backwards.holders(value, excluded, lambda: clock() > started + budget)
    return _shortened(tuple(dict.fromkeys(found)))


def _shortened(found: tuple[str, ...]) -> tuple[str, ...]:
    more = len(found) - _MOST_NAMED
    return (*found[:_MOST_NAMED], f"and {more} more") if more > 0 else found


@dataclass(frozen=True, slots=True)
class _Targets:
    """The value by its id, and the memory in it by where it lies."""

    ident: int
    addresses: frozenset[int]

    @classmethod
    def of(cls, value: object, budget: float, clock: Callable[[], float]) -> _Targets:
        found = sizing.buffers_in(value, budget, clock)
        enough = max(found.values(), default=0) * _WORTH
        return cls(id(value), frozenset(address for address, size in found.items() if size and size >= enough))


@dataclass(slots=True)
class _Node:
    """A place in the walk; the way to it is told only when something is found there."""

    value: Any
    parent: _Node | None
    path: Path | None = None

    def ways(self) -> Iterator[Path]:
        """The ways to the places from the root down to here."""
        chain: list[_Node] = [self]
        while chain[-1].parent is not None:
            chain.append(chain[-1].parent)
        path = chain[-1].path or Path("?")
        yield path
        for before, node in pairwise(reversed(chain)):
            path = edges.step(path, before.value, node.value)
            yield path

    def way(self) -> Path:
        """The way here."""
        return list(self.ways())[-1]

    def public_way(self) -> Path:
        """The way as far as it has names a user knows: what a library keeps inside its objects has none."""
        return list(takewhile(lambda path: not _is_internal(path), self.ways()))[-1]


@dataclass(slots=True)
class _Search:
    """Breadth first, so that the first way found to a holder is a short one."""

    targets: _Targets
    ignore: frozenset[int | str]
    clock: Callable[[], float]
    found: list[str] = field(default_factory=list)
    holders: set[int] = field(default_factory=set)
    _seen: set[int] = field(default_factory=set)
    # What a library makes when asked must not die during the search: the next such object would get its id.
    _kept: list[Any] = field(default_factory=list)
    _readers: dict[int, buffers.Reader | None] = field(default_factory=dict)

    def walk(self, roots: Iterator[tuple[Path, Any]], deadline: float) -> None:
        """Huge collections come last, with what they hold: one place in them is seldom worth more than another."""
        near: deque[_Node] = deque()
        far: deque[_Node] = deque()
        for path, value in roots:
            if self._is_new_root(path, value):
                (far if _is_huge(value) else near).append(_Node(value, None, path))
        while near or far:
            if self.clock() > deadline:
                return
            is_near = bool(near)
            for node in self._enter(near.popleft() if is_near else far.popleft()):
                (near if is_near and not _is_huge(node.value) else far).append(node)

    def _is_new_root(self, path: Path, value: Any) -> bool:
        if path.text in self.ignore or id(value) in self.ignore:
            return False
        if id(value) == self.targets.ident:
            self.found.append(str(path))
            return False
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        return bool(edges.without_ends([value]))

    def _enter(self, node: _Node) -> list[_Node]:
        reader = self._reader(type(node.value))
        if reader is None:
            held = edges.children(node.value)
        else:
            memory, inside = edges.of_library(node.value, reader)
            if any(buffer.address in self.targets.addresses for buffer in memory):
                self._add(node, _sharing(node))
                return []
            self._kept.append(inside)
            held = edges.without_ends(inside)
        return self._look_at(node, held)

    def _look_at(self, node: _Node, held: list[Any]) -> list[_Node]:
        wanted, seen, following = self.targets.ident, self._seen, []
        for child in held:
            key = id(child)
            if key == wanted:
                self._add(node, self._direct(node, child))
            elif key not in seen and key not in self.ignore:
                seen.add(key)
                following.append(_Node(child, node))
        return following

    def _direct(self, node: _Node, child: Any) -> str:
        path = edges.step(node.way(), node.value, child)
        if not _is_internal(path):
            return str(path)
        way = node.public_way().quoted()
        return f"{way} shares its memory" if self.targets.addresses else f"{way} holds it inside"

    def _add(self, node: _Node, words: str) -> None:
        self.holders |= edges.between(node.value)
        self.found.append(words)

    def _reader(self, kind: type) -> buffers.Reader | None:
        if id(kind) not in self._readers:
            self._readers[id(kind)] = buffers.reader_for(kind)
        return self._readers[id(kind)]


def _is_huge(value: Any) -> bool:
    kind = type(value)
    return any(kind is one for one in (dict, list, tuple, set)) and len(value) > _HUGE


def _is_internal(path: Path) -> bool:
    return path.is_code and _INTERNAL.search(path.text) is not None


def _sharing(node: _Node) -> str:
    way = node.public_way()
    is_view = way == node.way() and edges.is_view(node.value)
    return f"{'view ' if is_view else ''}{way.quoted()} shares its memory"


def _named(roots: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The notebook's names, the user's own before those that IPython makes."""
    for name, value in sorted(dict(roots).items(), key=lambda item: str(item[0]).startswith("_")):
        if name not in _HIDDEN:
            yield Path(str(name), is_root=True), value


def _of_modules(roots: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Globals of the user's own modules."""
    for name, module in sorted(sys.modules.items()):
        if type(module) is ModuleType and vars(module) is not roots and is_users(name):
            for attribute, value in list(vars(module).items()):
                yield Path(f"module `{name}`.{attribute}", is_code=False), value


def is_users(module: str) -> bool:
    """Whether a module is neither Python's nor installed nor memkit's."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package in ("memkit", "__main__", "__mp_main__"):
        return False
    return not buffers.is_installed(module) and getattr(sys.modules[module], "__file__", None) is not None


def _in_frames(search: _Search) -> Iterator[str]:
    wanted = frozenset({search.targets.ident})
    for frame, thread in frames.running():
        name = frames.variable_holding(frame, wanted) if id(frame) not in search.ignore else None
        if name is not None:
            search.holders.add(id(frame))
            yield frames.describe(frame, name, thread)
