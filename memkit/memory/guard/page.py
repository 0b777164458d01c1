"""What the kernel and its watcher tell each other: one page of memory that both have mapped.

Each field is one aligned 8-byte number, written at once; no lock is needed, and a fork or a death leaves it readable.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

OFF, ON, LIFTED = 0, 1, 2
_SIZE = 4096
_FIELDS = (
    "mode",  # OFF, ON or LIFTED
    "cell",  # odd while a cell runs
    "trip",  # bytes left at which the cell is signalled
    "floor",  # bytes that no allocation may take
    "private_ceiling",  # of a budget: private bytes, 0 = no budget
    "data_ceiling",  # of a budget: RLIMIT_DATA, 0 = no budget
    "user_limit",  # bytes, 0 = none
    "reserves",  # untouched memory that libraries keep for themselves
    "spared",  # a process that is never stopped, the rescue; -1 while it is being forked
    "free",  # the watcher's last reading
    "limit",
    "private",
    "peak",  # the highest RSS since the cell began
    "signalled",  # how often the watcher has signalled
    "handled",  # the value of `signalled` that has been dealt with
    "readings",
    "refused",  # the watcher may not set the limit
    "read_at",  # time.time() in ms
)
_INDEX = {name: index for index, name in enumerate(_FIELDS)}


class Page:
    """The fields above, as attributes. Made by the kernel; the watcher opens it by its descriptor."""

    __slots__ = ("_map", "_words", "fd")

    def __init__(self, fd: int | None = None) -> None:
        created = fd is None and hasattr(os, "memfd_create")
        self.fd: int | None = os.memfd_create("memkit-guard", os.MFD_CLOEXEC) if created else fd
        if created and self.fd is not None:
            os.ftruncate(self.fd, _SIZE)
        self._map = mmap.mmap(-1 if self.fd is None else self.fd, _SIZE)
        self._words = memoryview(self._map).cast("q")

    def __getattr__(self, name: str) -> int:
        try:
            return self._words[_INDEX[name]]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _INDEX:
            self._words[_INDEX[name]] = value
        else:
            object.__setattr__(self, name, value)

    def close(self) -> None:
        """Unmap it; the other side keeps its own mapping."""
        self._words.release()
        self._map.close()
        if self.fd is not None:
            os.close(self.fd)
