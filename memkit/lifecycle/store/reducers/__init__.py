"""How the values of each library are taken apart exactly, and put together again.

A *reducer* gets a value and a `Writing` and answers what `__reduce__` would, or NotImplemented for pickle's own way.
A *rebuilder* is a function of this package that such an answer names; it is called with the `Reading` first.
A library is looked up in `sys.modules`: a value of it can only exist if it is loaded.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Writing

    Reducer = Callable[[Any, Writing], Any]
else:
    Reducer = Callable

F = TypeVar("F", bound=Callable[..., Any])

REBUILDERS: set[Callable[..., Any]] = set()
_LIBRARIES = {
    "numpy": "arrays",
    "torch": "tensors",
    "pandas": "frames",
    "pyarrow": "arrow",
    "PIL": "images",
}


def rebuilder(function: F) -> F:
    """Marks a function that is called with the `Reading` as its first argument."""
    REBUILDERS.add(function)
    return function


def find_reducer(cls: type) -> Reducer | None:
    """The reducer for values of exactly this class; None leaves it to pickle."""
    from memkit.lifecycle.store.reducers import by_reference

    for base in cls.__mro__:
        library = base.__module__.partition(".")[0] if isinstance(base.__module__, str) else ""
        if library in _LIBRARIES and library in sys.modules:
            module = importlib.import_module(f"{__name__}.{_LIBRARIES[library]}")
            found: Reducer | None = module.reducer(cls)
            if found is not None:
                return found
    return by_reference.reducer(cls)
