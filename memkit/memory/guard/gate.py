"""What the guard lets others ask of it: how much is left, to make room, and to stand aside for a moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from memkit.errors import MemoryGuardError
from memkit.units import format_bytes


class Gate(Protocol):
    """Bytes everywhere; any thread may ask."""

    def free(self) -> int:
        """What can still be had, read now (about 0.1 ms)."""

    def make_room(self, needed: int) -> int:
        """Let the lifecycle free what it may until `needed` bytes can be had; what can be had then."""

    def lifted(self) -> AbstractContextManager[None]:
        """Inside, the soft RLIMIT_DATA is out of the way; it is computed anew afterwards."""

    def importing(self) -> AbstractContextManager[None]:
        """What is mapped inside and not touched is a library's reserve, and no promise to anybody."""


class Post:
    """Holds the gate from install to uninstall, for the process that installed it: a forked child has none."""

    def __init__(self) -> None:
        self._held: tuple[Gate, int] | None = None

    def take(self, gate: Gate) -> None:
        """From now on `gate` is the one to ask."""
        self._held = gate, os.getpid()

    def leave(self) -> None:
        """There is no gate any more."""
        self._held = None

    @property
    def gate(self) -> Gate | None:
        """The gate to ask, or None where nothing is to be done."""
        held = self._held
        return held[0] if held is not None and held[1] == os.getpid() else None


@contextmanager
def let_in(gate: Gate) -> Iterator[None]:
    """While a library loads or sets itself up and was found to fit: what it merely reserves is not held against it."""
    with gate.lifted(), gate.importing():
        yield


def demand(gate: Gate, needed: int, what: str, *, besides: int = 0, because: str = "") -> None:
    """Go on only where `needed` bytes, and those `besides`, can be had or made; else raises MemoryGuardError.

    `what` is the subject of the message ("importing torch"); `because` says what the other bytes are for.
    """
    free = gate.free()
    if needed + besides > free:
        free = gate.make_room(needed + besides)
    if needed + besides > free:
        more = f" and {format_bytes(besides)} {because}" if besides else ""
        left = format_bytes(max(0, free))
        raise MemoryGuardError(f"{what} takes about {format_bytes(needed)}{more}; {left} are left")
