"""RLIMIT_DATA of this process: the hard stop. Only the soft limit moves, so that it can always be raised again."""

from __future__ import annotations

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

import sys


class DataLimit:
    """Sets and lifts the soft limit; `works` is False where the system does not hold it, as only Linux does."""

    def __init__(self) -> None:
        self.works = resource is not None and sys.platform.startswith("linux")
        self.before = resource.getrlimit(resource.RLIMIT_DATA) if self.works else (-1, -1)

    def set(self, soft: int) -> None:
        """Allow data segments of `soft` bytes; never more than there was before."""
        if self.works:
            resource.setrlimit(resource.RLIMIT_DATA, (within(soft, self.before[0]), self.before[1]))

    def lift(self) -> None:
        """As it was before memkit."""
        if self.works:
            resource.setrlimit(resource.RLIMIT_DATA, self.before)

    @property
    def soft(self) -> int | None:
        """Bytes; None where nothing is limited."""
        soft = resource.getrlimit(resource.RLIMIT_DATA)[0] if self.works else -1
        return None if soft < 0 else soft


def widen(size: int) -> bool:
    """Raise this process' soft limit by `size` bytes, for a mapping that is counted as data and takes no memory.

    The guard's next look finds the mapping in place and computes the limit anew. False where there is nothing to raise.
    """
    if resource is None:
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft < 0 or (0 <= hard < soft + size):
        return False
    resource.setrlimit(resource.RLIMIT_DATA, (soft + size, hard))
    return True


def set_for(pid: int, soft: int, before: tuple[int, int]) -> None:
    """Set the soft limit of another process of the same user; raises OSError."""
    resource.prlimit(pid, resource.RLIMIT_DATA, (within(soft, before[0]), before[1]))


def within(soft: int, most: int) -> int:
    """The soft limit, or the one there was before where that is lower; below 0 is no limit."""
    return most if soft < 0 else soft if most < 0 else min(soft, most)
