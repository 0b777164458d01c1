"""What every way of limiting memory has in common: it says whether it is permitted, and gives a box of some size."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol


class Box(Protocol):
    """Bounded memory for one kernel and everything it starts; sizes in bytes, None for what cannot be told.

    Figures are true while the box is open, also after the kernel's death.
    """

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that goes into the box and then executes what comes after it, in the same process."""
        ...

    @property
    def environ(self) -> Mapping[str, str]:
        """What is added to the kernel's environment."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the box differs from a machine of its size, in sentences."""
        ...

    @property
    def measure(self) -> str:
        """What `peak` counts, in words."""
        ...

    def started(self, pid: int) -> None:
        """The process that the prefix began has this id."""
        ...

    def look(self) -> None:
        """Take what would be lost with the process; called a few times a second while it lives."""
        ...

    def held(self) -> int | None:
        """What is in use now and counts against the limit, without what the system would give up."""
        ...

    def peak(self) -> int | None:
        """The highest use so far of everything in the box together."""
        ...

    def kills(self) -> int | None:
        """How often the system has killed a process in the box for want of memory."""
        ...


class Limit(Protocol):
    """One way of limiting memory."""

    @property
    def name(self) -> str: ...

    def available(self) -> str | None:
        """None where it works here, else the reason why not; leaves nothing behind."""
        ...

    def box(self, size: int) -> AbstractContextManager[Box]:
        """A box of `size` bytes; at its end every process in it is killed and it is gone. Raises LimitError.

        Also removes boxes whose maker was killed before it could do so.
        """
        ...


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and termination wait until the end of the block: what cleans up is not to be left half done."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
