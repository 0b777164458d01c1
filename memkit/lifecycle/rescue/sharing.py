"""Which variables share something that can be changed: they are saved as one group, and come back sharing it.

One walk over everything the variables lead to. An object with a single reference is led to by nobody else and needs
no entry; any other is remembered with the first variable that led to it, and a second one joins that one's group.
"""

from __future__ import annotations

import datetime
import logging
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from memkit.lifecycle.rescue import code
from memkit.lifecycle.store.failures import Cancel
from memkit.lifecycle.store.graph import ATOM, PLAIN, TEXT, Kinds
from memkit.lifecycle.store.reducers import tensors
from memkit.lifecycle.store.walk import LONG_TEXT, Round

# Immutable, or one for the whole process: held by many and shared by nobody.
_COMMON = (datetime.tzinfo, logging.Logger)


class _Kinds(Kinds):
    """Functions and classes are gone into here: a closure may hold what a variable holds too."""

    def __missing__(self, cls: type) -> int:
        common = _COMMON + tuple(filter(None, [_extension_dtype()]))
        if issubclass(cls, common):
            self[cls] = ATOM
            return ATOM
        if cls is types.FunctionType or issubclass(cls, type):
            self[cls] = PLAIN
            return PLAIN
        return super().__missing__(cls)


def _extension_dtype() -> type | None:
    pandas = sys.modules.get("pandas")
    return getattr(getattr(getattr(pandas, "api", None), "extensions", None), "ExtensionDtype", None)


class Sharing(Round):
    """`apart` are objects that count as nobody's (functions and classes with a name of their own). Whatever leads to
    one of `stops` (the shell, the kernel) leads to everything there is, and is grouped with nothing."""

    def __init__(self, apart: Iterable[int], stops: Iterable[Any], cancelled: Cancel) -> None:
        super().__init__({}, _Kinds(), cancelled)
        self._apart = frozenset(apart)
        self._stops = {id(stop): stop for stop in stops}
        self._owners: dict[int, str] = {}
        self._alive: list[Any] = []  # an id is its object's only while that lives
        self._joined: dict[str, str] = {}
        self._name = ""
        self._root = 0
        self._met: list[int] = []
        self._others: set[str] = set()
        self._stopped = False

    def visit(self, name: str, value: Any) -> int:
        """Walk over one variable; answers its bytes, estimated, less what variables before it have too."""
        before = self.size
        self._name, self._root, self._met, self._others, self._stopped = name, id(value), [], set(), False
        self.walk({name: value}, {name: 0})
        if self._stopped:
            for key in self._met:
                del self._owners[key]
            return 0
        for other in self._others:
            self._joined[self._find(other)] = self._find(name)
        return self.size - before

    def groups(self, names: Iterable[str]) -> list[tuple[str, ...]]:
        """The names, those that share something together."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self._find(name), []).append(name)
        return [tuple(group) for group in found.values()]

    def _find(self, name: str) -> str:
        while (parent := self._joined.get(name, name)) != name:
            name = parent
        return name

    def _meet(self, item: Any, references: int = 1) -> None:
        key, kind = id(item), self._kinds[type(item)]
        if key in self._stops:
            self._stopped = True
            self._pending.clear()
            self._long.clear()
        elif self._stopped or (key in self._apart and key != self._root):
            return
        elif key in self._owners:
            self._join(self._owners[key])
        elif kind > TEXT or (kind == TEXT and len(item) >= LONG_TEXT):
            self._owners[key] = self._name
            self._met.append(key)
            self._alive.append(item)
            if kind > TEXT:
                self._pending.append(item)

    def _join(self, owner: str) -> None:
        if owner != self._name:
            self._others.add(owner)

    def _enter(self, cls: type, group: list[Any], plain: list[Any], found: list[Any]) -> None:
        if self._stopped:
            return
        if cls is types.FunctionType or issubclass(cls, type):
            for item in group:
                found += code.parts(item)
            return
        super()._enter(cls, group, plain, found)

    def _enter_tensor(self, tensor: Any, found: list[Any]) -> None:
        found += tensors.held_by(tensor)
        if tensors.is_plain(tensor):
            storage = tensor.untyped_storage()
            new = id(storage) not in self._owners
            self.size += storage.nbytes() if new else 0
            self._meet(storage)


def grouped(values: Mapping[str, Any], sharing: Sharing) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """Groups of names that share something, and the bytes of each variable, estimated."""
    sizes = {name: sharing.visit(name, value) for name, value in values.items()}
    return sharing.groups(values), sizes
