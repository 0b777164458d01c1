"""What a cell mentions: the names of the notebook that running it will use."""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FunctionType, MethodType
from typing import Any

from memkit.lifecycle import peek
from memkit.notebook import codescan, magictext

# A mention may lead through objects that hold functions; beyond this many objects the search stops looking further.
_MOST_FOLLOWED = 2000
_MOST_ELEMENTS = 64
_WRAPPED = ("__wrapped__", "func", "py_func")  # functools, cached_property, numba
_COMPILE_ERRORS = (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError)


@dataclass(frozen=True, slots=True)
class Mentions:
    """Names of the notebook's namespace that a cell loads, stores and deletes."""

    loads: frozenset[str]
    stores: frozenset[str]
    deletes: frozenset[str]


def mentions(
    tree: ast.AST, namespace: Mapping[str, Any], interesting: Callable[[str], bool] | Collection[str]
) -> Mentions:
    """Interesting names that a cell uses, itself or through what it calls that is defined in the notebook.

    `tree` is the cell as IPython transformed it; it is not changed. Locals, comprehension variables and texts are no
    mention. Followed are functions, classes and their instances, partials, bound and decorated functions, small
    containers of these, and the text of magics and shell lines.

    Not seen: names in `eval`, `exec`, `globals()[...]` and `getattr`; what functions of imported modules reach on
    their own; what `import *` brings; functions held deeper than `_MOST_FOLLOWED` objects away. A name that a class
    body both assigns and reads counts as read. Never raises on odd trees: what does not compile is read by its names.
    """
    found = _Found(namespace)
    found.read_tree(tree)
    wanted = interesting if callable(interesting) else frozenset(interesting).__contains__
    return Mentions(*(frozenset(filter(wanted, names)) for names in (found.loads, found.stores, found.deletes)))


@contextmanager
def _no_syntax_warnings() -> Iterator[None]:
    """The cell is compiled again by IPython, which shows its warnings.

    `warnings.catch_warnings` would make every "once per place" warning of the process appear again after each cell.
    """
    rules: Any = warnings.filters
    rule = ("ignore", None, SyntaxWarning, None, 0)
    rules.insert(0, rule)
    try:
        yield
    finally:
        rules.remove(rule)


def _compiled(tree: Any) -> CodeType | None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        with _no_syntax_warnings():
            code = compile(tree, "<cell>", "exec", flags=flags, dont_inherit=True)
    except _COMPILE_ERRORS:
        return None
    return code if isinstance(code, CodeType) else None


@dataclass(slots=True)
class _Found:
    namespace: Mapping[str, Any]
    loads: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    deletes: set[str] = field(default_factory=set)
    _followed: dict[int, Any] = field(default_factory=dict)
    _waiting: list[Any] = field(default_factory=list)

    def read_tree(self, tree: ast.AST) -> None:
        code = _compiled(tree)
        uses = codescan.scan(code) if code is not None else None
        if uses is not None:
            self._add(uses)
        else:
            self._read_syntax(tree)
        if uses is None or magictext.may_call(uses.names, uses.loads):
            for method, texts in magictext.calls(tree):
                self._read_pieces(method, texts)
        self._follow_all()

    def _add(self, uses: codescan.Uses) -> None:
        self.stores |= uses.stores
        self.deletes |= uses.deletes
        for name in uses.loads:
            self._load(name)

    def _load(self, name: str) -> None:
        if name not in self.loads:
            self.loads.add(name)
            self._waiting.append(self.namespace.get(name))

    def _read_syntax(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                self._name_node(node)

    def _name_node(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.stores.add(node.id)
        elif isinstance(node.ctx, ast.Del):
            self.deletes.add(node.id)
        else:
            self._load(node.id)

    def _read_pieces(self, method: str, texts: list[str]) -> None:
        for piece in magictext.pieces(method, texts):
            if isinstance(piece, str):
                self._load(piece)
            else:
                self.read_tree(piece)

    def _follow_all(self) -> None:
        while self._waiting and len(self._followed) < _MOST_FOLLOWED:
            value = self._waiting.pop()
            if id(type(value)) in peek.ATOMS or id(value) in self._followed:
                continue
            self._followed[id(value)] = value  # kept, so that its id stays its own
            self._waiting += self._leads(value)

    def _leads(self, value: Any) -> list[Any]:
        """Objects whose code a use of `value` may run."""
        kind = type(value)
        if kind is FunctionType:
            return self._of_function(value)
        if kind is MethodType:
            return [value.__func__, value.__self__]
        if peek.is_kind(kind, type):
            return self._of_class(value)
        if kind is staticmethod or kind is classmethod:
            return [value.__func__]
        if kind is property:
            return [value.fget, value.fset, value.fdel]
        if peek.is_kind(kind, functools.partial):
            return [value.func, *value.args, *value.keywords.values()]
        return _of_container(value, kind) or self._of_instance(value, kind)

    def _of_function(self, function: FunctionType) -> list[Any]:
        if function.__globals__ is self.namespace:
            uses = codescan.scan_cached(function.__code__)
            self._add(uses)
            if magictext.may_call(uses.names, uses.loads):
                self._read_strings(function.__code__)
        held = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        return [*held, *(function.__dict__.get(name) for name in _WRAPPED if function.__dict__)]

    def _read_strings(self, code: CodeType) -> None:
        """A function that calls a magic: which of its texts goes there is not known, so all count."""
        for text in codescan.strings(code):
            for name in magictext.identifiers(text):
                self._load(name)

    def _is_ours(self, kind: type) -> bool:
        return peek.module_of(kind) == self.namespace.get("__name__")

    def _of_class(self, kind: type) -> list[Any]:
        if not self._is_ours(kind):
            return []
        bases = [base for base in peek.mro(kind)[1:] if base is not object]
        return [*peek.class_namespace(kind).values(), *bases, type(kind)]

    def _of_instance(self, value: Any, kind: type) -> list[Any]:
        attributes = peek.instance_dict(value) or {}
        if any(self._is_ours(base) for base in peek.mro(kind)):
            return [*peek.mro(kind), *attributes.values(), *peek.slots(value).values()]
        return [attributes.get(name) for name in _WRAPPED if name in attributes]


def _is_filled(cell: Any) -> bool:
    try:
        return id(type(cell.cell_contents)) not in peek.ATOMS
    except ValueError:
        return False


def _of_container(value: Any, kind: type) -> list[Any]:
    if kind is dict and len(value) <= _MOST_ELEMENTS:
        return list(value.values())
    if any(kind is one for one in (list, tuple, set, frozenset)) and len(value) <= _MOST_ELEMENTS:
        return list(value)
    return []
