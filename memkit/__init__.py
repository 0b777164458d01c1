"""memkit keeps notebook kernels alive on machines with little memory.

In a notebook: ``%load_ext memkit``, then ``%memkit help``. From Python: the names below. Nothing heavy is imported
until one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memkit.api import (
        budget,
        compress,
        expire,
        guard,
        handle,
        pin,
        reclaim,
        release,
        report,
        restore,
        session,
        spill,
        status,
        top,
        touch,
        track,
        unload,
        unpin,
    )
    from memkit.notebook.plots import plot

__version__ = "0.1.0"
__all__ = [
    "budget", "compress", "expire", "guard", "handle", "pin", "plot", "reclaim", "release", "report", "restore",
    "session", "spill", "status", "top", "touch", "track", "unload", "unpin",
]  # fmt: skip


_HOMES = {"plot": "memkit.notebook.plots"}  # all others live in memkit.api


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'memkit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "memkit.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext memkit``"""
    from memkit.memory.sample import anonymous_now

    before = anonymous_now()
    from memkit.notebook import extension

    extension.load(shell, before)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext memkit``"""
    from memkit.notebook import extension

    extension.unload(shell)
