"""Looking into an object without running any of its code.

Everything here goes through slots and descriptors that CPython itself implements, found by walking the real
type's `__mro__`. No `__getattr__`, property, `__class__`, `__len__`, `__eq__` or `__hash__` of the object or of its
metaclass runs.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Mapping
from types import (
    BuiltinFunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
)
from typing import Any

_mro_of: Any = type.__dict__["__mro__"].__get__
_namespace_of: Any = type.__dict__["__dict__"].__get__
_SEQUENCES: tuple[Any, ...] = (list, tuple)
_COLLECTIONS: tuple[Any, ...] = (*_SEQUENCES, dict, set, frozenset, deque)

# Types that refer to nothing but their class. Kept by id: a set of types would call a metaclass's __hash__.
ATOMS = frozenset(
    map(
        id,
        (
            *(int, float, complex, bool, str, bytes, bytearray, range, slice, BuiltinFunctionType),
            *map(type, (None, ..., NotImplemented)),
        ),
    )
)


def mro(kind: type) -> tuple[type, ...]:
    """The classes of a type in resolution order."""
    classes: tuple[type, ...] = _mro_of(kind)
    return classes


def class_namespace(kind: type) -> Mapping[str, Any]:
    """What a class itself defines."""
    namespace: Mapping[str, Any] = _namespace_of(kind)
    return namespace


def is_kind(kind: type, *wanted: type) -> bool:
    """Whether a type is, or inherits from, one of the wanted ones by its real `__mro__`."""
    return any(base is one for base in _mro_of(kind) for one in wanted)


def module_of(kind: type) -> str:
    """Name of the module that defined a class; empty where the class hides it."""
    name = _namespace_of(kind).get("__module__", "builtins")
    return name if type(name) is str else ""


def class_name(kind: type) -> str:
    """Name of a class, whatever its metaclass says."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name


def type_name(value: object) -> str:
    """Name of the value's type as people write it."""
    return class_name(type(value))


def found_in_class(kind: type, name: str) -> Any:
    """What the type's classes define under a name, as it is stored (no descriptor called), or None."""
    for base in _mro_of(kind):
        namespace = _namespace_of(base)
        if name in namespace:
            return namespace[name]
    return None


def instance_dict(value: object) -> dict[str, Any] | None:
    """The attributes of an instance, or None where it has no `__dict__` of CPython's own.

    Asking makes CPython build the dict for an instance that kept its attributes inline, so do not ask in bulk.
    """
    descriptor = found_in_class(type(value), "__dict__")
    if type(descriptor) is not GetSetDescriptorType:
        return None
    try:
        attributes = descriptor.__get__(value)
    except (AttributeError, TypeError):
        return None
    return attributes if type(attributes) is dict else None


def slots(value: object) -> dict[str, Any]:
    """The filled `__slots__` of an instance, by name."""
    filled: dict[str, Any] = {}
    for base in _mro_of(type(value)):
        for name, descriptor in list(_namespace_of(base).items()):
            if type(descriptor) is MemberDescriptorType and name not in filled:
                try:
                    filled[name] = descriptor.__get__(value)
                except (AttributeError, TypeError, SystemError):
                    continue  # the slot is empty
    return filled


def attribute(value: object, name: str) -> Any:
    """An attribute out of the instance's `__dict__` or slots, or None."""
    attributes = instance_dict(value)
    return attributes[name] if attributes is not None and name in attributes else slots(value).get(name)


def referents(value: object) -> list[Any]:
    """What an object refers to as the collector's own traversal reports it, its class left out."""
    kind = type(value)
    return [item for item in gc.get_referents(value) if item is not kind]


def length(value: Any) -> int:
    """The real number of elements of a builtin collection, whatever its `__len__` says; 0 for anything else."""
    for base in _mro_of(type(value)):
        if any(base is one for one in _COLLECTIONS):
            count: int = base.__len__(value)
            return count
    return 0


def is_ours(kind: type) -> bool:
    """Whether it is a class of memkit's: its objects lead to all that is tracked, and say nothing of who holds it."""
    return module_of(kind).partition(".")[0] == "memkit"
