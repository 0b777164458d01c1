"""What an object holds on to, and how a person would write the way from the one to the other."""

from __future__ import annotations

import functools
import gc
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress, islice
from operator import not_
from types import (
    AsyncGeneratorType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any
from weakref import ref

from memkit.lifecycle import buffers, peek
from memkit.lifecycle.contents import is_namespace

_SUSPENDED = (GeneratorType, CoroutineType, AsyncGeneratorType)
_ENDS = frozenset(map(id, (ModuleType, CodeType, FrameType, ref)))
_ATOMS = peek.ATOMS
_MOST_IN_KEY = 40
# Of a larger collection only so many elements are looked at: listing them takes 8 bytes for each.
_MOST_ELEMENTS = 2_000_000


@dataclass(frozen=True, slots=True)
class Path:
    """The way from a name to an object: `text` is code as long as `is_code`, otherwise words.

    `is_root` where it is a name alone; `joins` where words go on as code does; `is_attributes` where it has come to the
    `__dict__` of the object that it names.
    """

    text: str
    is_code: bool = True
    is_root: bool = False
    joins: bool = True
    is_attributes: bool = False

    def __str__(self) -> str:
        if not self.is_code:
            return self.text
        return f"variable `{self.text}`" if self.is_root else f"`{self.text}`"

    def quoted(self) -> str:
        """The way within a sentence."""
        return f"`{self.text}`" if self.is_code else self.text

    def then(self, suffix: str) -> Path:
        """A subscript or attribute further."""
        text = self.text + suffix if self.joins else f"{self.text}, in it {suffix}"
        return Path(text, self.is_code, joins=self.joins)

    def said(self, words: str) -> Path:
        """The same way in words, `{}` being the way so far."""
        return Path(words.replace("{}", self.quoted()), is_code=False, joins=False)


def children(value: Any) -> list[Any]:
    """Objects that `value` keeps alive and that may hold others in turn; modules and the notebook's names left out."""
    return without_ends(_children(value))


def without_ends(held: Iterable[Any]) -> list[Any]:
    """Leave out what holds nothing (by id of its type: a metaclass may compare), modules, code and namespaces."""
    items = held if type(held) is list else list(held)
    plain = list(map(_ATOMS.__contains__, map(id, map(type, items))))
    if all(plain):
        return []
    rest = compress(items, map(not_, plain))
    return [one for one in rest if id(type(one)) not in _ENDS and not (type(one) is dict and is_namespace(one))]


def _children(value: Any) -> Iterable[Any]:
    kind = type(value)
    if kind is dict and len(value) <= _MOST_ELEMENTS:
        return [*value.values(), *value.keys()]
    if (kind is list or kind is tuple) and len(value) <= _MOST_ELEMENTS:
        return value  # type: ignore[no-any-return]
    if peek.length(value) > _MOST_ELEMENTS:
        base: Any = next(one for one in (list, tuple, dict, set, frozenset, deque) if peek.is_kind(kind, one))
        return islice(base.values(value) if base is dict else base.__iter__(value), _MOST_ELEMENTS)
    if peek.is_kind(kind, dict):
        return [*dict.values(value), *dict.keys(value), peek.instance_dict(value)]
    if kind is FunctionType:
        return [held for _, held in _of_function(value)]
    if kind is CellType:
        return _contents(value)
    if peek.is_kind(kind, type):
        return [] if _is_of_library(value) else list(peek.class_namespace(value).values())
    if is_suspended(value):
        return _of_suspended(value)
    reader = buffers.reader_for(kind)
    if reader is not None:
        return of_library(value, reader)[1]
    # The class is among them, whose attributes count.
    return [] if peek.is_ours(kind) else gc.get_referents(value)


def of_library(value: Any, reader: buffers.Reader) -> tuple[tuple[buffers.Buffer, ...], list[Any]]:
    """Buffers and Python objects of a library's value, a numpy view's base among them."""
    try:
        contents = reader(value)
    except Exception:  # noqa: BLE001 - a library's code; its references say the rest
        return (), gc.get_referents(value)
    held = list(contents.objects)
    if is_array(value):
        held += [_numpy().ndarray.base.__get__(value), *(elements(value) if contents.elements is not None else ())]
    return contents.buffers, held


def _numpy() -> Any:
    return sys.modules["numpy"]


def is_array(value: Any) -> bool:
    """Whether it is a numpy array."""
    return "numpy" in sys.modules and peek.is_kind(type(value), getattr(_numpy(), "ndarray", type(None)))


def is_view(value: Any) -> bool:
    """Whether it is a numpy array that borrows its memory."""
    return is_array(value) and _numpy().ndarray.base.__get__(value) is not None


def elements(array: Any) -> list[Any]:
    """Objects in an array of objects, in order."""
    plain = _numpy().ndarray.view(array, _numpy().ndarray)
    if plain.dtype.names is None:
        return plain.ravel().tolist() if plain.dtype.hasobject else []
    fields = [plain[name] for name in plain.dtype.names if plain.dtype[name].hasobject]
    return [one for field in fields for one in field.ravel().tolist()]


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _of_function(function: FunctionType) -> list[tuple[str, Any]]:
    """What a function holds, its globals apart, each with the words for it."""
    held: list[tuple[str, Any]] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        held += [(f"closure of {{}} (variable {name})", one) for one in _contents(cell)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    held += [("default argument of {}", one) for one in defaults]
    return held + [(f"attribute `{name}` of function {{}}", one) for name, one in function.__dict__.items()]


def _of_suspended(value: Any) -> list[Any]:
    frame = suspended_frame(value)
    inside = gc.get_referents(frame) if sys.version_info < (3, 11) and frame is not None else ()
    held = [*gc.get_referents(value), *inside]
    return [part for one in held for part in ([one] if type(one) is not CellType else _contents(one))]


def suspended_frame(value: Any) -> FrameType | None:
    """The frame of a generator or coroutine that waits."""
    for name in ("gi_frame", "cr_frame", "ag_frame"):
        frame = getattr(value, name, None)  # of exact builtin types only
        if frame is not None:
            return frame  # type: ignore[no-any-return]
    return None


def suspended_text(value: Any) -> str:
    """Where a generator or coroutine waits."""
    frame = suspended_frame(value)
    return f"a frame of `{value.__name__}`" + (f" at line {frame.f_lineno}" if frame is not None else "")


def is_suspended(value: Any) -> bool:
    """Whether it is a generator or coroutine."""
    return any(type(value) is one for one in _SUSPENDED)


def _is_of_library(cls: type) -> bool:
    module = peek.module_of(cls)
    return module.partition(".")[0] in sys.stdlib_module_names or module == "" or buffers.is_installed(module)


def step(path: Path, parent: Any, child: Any) -> Path:
    """The way to `child`, which `parent` holds and `path` leads to."""
    kind = type(parent)
    if path.is_attributes:
        return _step_to_attribute(path, parent, child)
    if peek.is_kind(kind, type):
        name = _name_in(peek.class_namespace(parent), child)
        return Path(f"class attribute `{peek.class_name(parent)}.{name}`", is_code=False, joins=False)
    if kind is FunctionType:
        words = next((words for words, held in _of_function(parent) if held is child), "{}")
        return path.said(words)
    if is_suspended(parent):
        return path.said(f"{suspended_text(parent)} (generator {{}})")
    if peek.is_kind(kind, dict) and child is not peek.instance_dict(parent):
        return path.then(f"[{_key_text(parent, child)}]")
    return _step_to_element(path, parent, child) or _step_to_attribute(path, parent, child)


def _step_to_element(path: Path, parent: Any, child: Any) -> Path | None:
    kind = type(parent)
    if peek.is_kind(kind, list, tuple, deque):
        base: Any = next(one for one in (list, tuple, deque) if peek.is_kind(kind, one))
        return next((path.then(f"[{i}]") for i, one in enumerate(base.__iter__(parent)) if one is child), None)
    if peek.is_kind(kind, set, frozenset):
        return path.said("the set {}") if child is not peek.instance_dict(parent) else None
    if is_array(parent):
        where = next((i for i, one in enumerate(elements(parent)) if one is child), None)
        flat = "" if _numpy().ndarray.ndim.__get__(parent) == 1 else ".flat"
        return path.then(f"{flat}[{where}]") if where is not None else path.then(".<base>")
    return None


def _step_to_attribute(path: Path, parent: Any, child: Any) -> Path:
    if path.is_attributes:
        return path.then(f".{_name_in(parent, child)}")
    if child is type(parent):
        return Path(peek.type_name(parent))
    attributes = peek.instance_dict(parent)
    if attributes is not None and child is attributes:
        return replace(path, is_root=False, is_attributes=True)
    for held in (attributes or {}, peek.slots(parent)):
        if any(one is child for one in held.values()):
            return path.then(f".{_name_in(held, child)}")
    return path.then(_known_member(parent, child))


def _known_member(parent: Any, child: Any) -> str:
    kind = type(parent)
    if kind is MethodType:
        return ".__self__" if parent.__self__ is child else ".__func__"
    if kind is memoryview:
        return ".obj"
    if peek.is_kind(kind, functools.partial):
        held = {"args": functools.partial.args, "keywords": functools.partial.keywords, "func": functools.partial.func}
        return "." + next((name for name, member in held.items() if member.__get__(parent) is child), "args")
    return f".<{peek.type_name(child)}>"


def between(holder: Any) -> set[int]:
    """Ids of a holder and of what Python puts between it and the values it holds: cells, attribute dicts, tuples."""
    direct = gc.get_referents(holder)
    inner = gc.get_referents(*(one for one in direct if type(one) is tuple))
    return {id(holder), *map(id, direct), *map(id, inner)}


def _name_in(names: Any, child: Any) -> str:
    return next((str(name) for name, one in list(names.items()) if one is child), "?")


def _key_text(mapping: Any, child: Any) -> str:
    """The key of a value; keys whose `repr` could run foreign code are named by their type."""
    for key, one in list(dict.items(mapping)):
        if one is child or key is child:
            return _plain_text(key) if one is child else "a key"
    return "?"


def _plain_text(key: Any) -> str:
    if id(type(key)) in _ATOMS:
        text = repr(key)
        return text if len(text) <= _MOST_IN_KEY else text[: _MOST_IN_KEY - 1] + "…"
    if type(key) is tuple and all(id(type(part)) in _ATOMS for part in key):
        return ", ".join(map(repr, key))
    return f"<{peek.type_name(key)}>"
