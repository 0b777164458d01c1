"""Functions, classes and modules: never written down where a name would not lead back to the very same object.

A value returns to the process it left, so a function of the notebook - a lambda, one that a cell has since defined
anew - is kept in memory and is the same object afterwards. Code is small; what its closure holds is not freed.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from memkit.lifecycle.store.reducers import Reducer

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Writing


def reducer(cls: type) -> Reducer | None:
    if issubclass(cls, (types.FunctionType, type)):
        return _reduce_named
    if issubclass(cls, types.ModuleType):
        return _reduce_kept
    return None


def _is_importable(value: Any) -> bool:
    """Whether the name leads to this object, and will: the names of a notebook change."""
    module = getattr(value, "__module__", None)
    found: Any = sys.modules.get(module) if isinstance(module, str) and module != "__main__" else None
    for part in str(getattr(value, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found is value


def _reduce_named(value: Any, writing: Writing) -> Any:
    # pickle knows a few classes by other means (type(None), type(...)); they are importable nowhere.
    if _is_importable(value) or value in (type(None), type(NotImplemented), type(...)):
        return NotImplemented
    return _reduce_kept(value, writing)


def _reduce_kept(value: Any, writing: Writing) -> Any:
    from memkit.lifecycle.store.pickling import kept_object

    return kept_object, (writing.keep(value),)
