"""Forking while other threads work: the child finds every table in order and every lock free."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def keep_in_order_through_forks(lock: threading.RLock, owner: T, in_child: Callable[[T], object]) -> None:
    """Fork only while no other thread holds the lock; `in_child(owner)` runs in the child before it is freed there.

    Does not keep the owner alive. Does nothing where there is no fork.
    """
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(owner)

    def before() -> None:
        if reference() is not None:
            lock.acquire()

    def parent() -> None:
        if reference() is not None:
            lock.release()

    def child() -> None:
        if (live := reference()) is not None:
            in_child(live)
            lock.release()

    os.register_at_fork(before=before, after_in_parent=parent, after_in_child=child)
