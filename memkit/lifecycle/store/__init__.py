"""Where demoted values rest: compressed in memory, or on disk; exact, atomic, private.

The names below are imported when they are first used: a session that has demoted nothing looks only for the leftovers
of dead ones, which needs no more than `folder`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memkit.lifecycle.store.folder import sweep_leftovers
    from memkit.lifecycle.store.store import Store
    from memkit.lifecycle.store.stored import Cancelled, Compress, Stored, StoredTier

_HOMES = {"Store": "store", "sweep_leftovers": "folder"}  # the others live in `stored`
__all__ = ["Cancelled", "Compress", "Store", "Stored", "StoredTier", "sweep_leftovers"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'stored')}"), name)
