"""What each stored value takes on disk, while it grows and after, against the most that may be taken."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

from memkit.lifecycle.store import failures
from memkit.units import format_bytes


class Accounts:
    """Bytes on disk by key; thread-safe, also after a fork."""

    def __init__(self, most: int | None, setting: str = "store.max_bytes") -> None:
        self._most = most
        self._setting = setting
        self._sizes: dict[int, int] = {}
        self.lock = threading.Lock()
        _all.add(self)

    @property
    def total(self) -> int:
        return sum(list(self._sizes.values()))

    def claim(self, key: int, size: int, folder: Path, needed: int) -> None:
        """Account for bytes that are about to be written; raises StoreFullError where they would be too many."""
        with self.lock:
            total = self.total
            if self._most is not None and total + size > self._most:
                limit = f"{format_bytes(self._most - total)} left of {self._setting} = {format_bytes(self._most)}"
                raise failures.full(folder, needed, limit=limit)
            self._sizes[key] = self._sizes.get(key, 0) + size

    def drop(self, key: int) -> None:
        self._sizes.pop(key, None)

    def clear(self) -> None:
        self._sizes.clear()


_all: weakref.WeakSet[Accounts] = weakref.WeakSet()


def _renew_locks() -> None:
    """A lock that another thread held at the fork would stay locked in the child for ever."""
    for accounts in list(_all):
        accounts.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
