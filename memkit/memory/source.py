"""What a platform can be asked about memory, and the plain answers it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from memkit.memory.limits import Constraint


@dataclass(frozen=True, slots=True)
class Process:
    """Memory of one process in bytes; None where the platform does not tell."""

    rss: int
    vms: int
    anonymous: int | None = None
    file_backed: int | None = None
    swap: int | None = None
    peak: int | None = None

    @property
    def private(self) -> int:
        """Bytes that only this process can give back; the whole RSS where the platform does not split it."""
        return self.rss if self.anonymous is None else self.anonymous


@dataclass(frozen=True, slots=True)
class Zram:
    """Swap kept compressed in RAM: `original` bytes went in, `compressed` bytes of RAM hold them."""

    original: int
    compressed: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory of the whole machine in bytes; PSI as the share of the last 10 s that some or all tasks stalled."""

    total: int
    available: int
    swap_total: int | None = None
    swap_used: int | None = None
    zram: Zram | None = None
    psi_some: float | None = None
    psi_full: float | None = None


class Source(Protocol):
    """One platform. Every method may raise ReadingError; none keeps a file open between calls."""

    def process(self) -> Process: ...

    def machine(self) -> Machine: ...

    def groups(self, total: int) -> tuple[Constraint, ...]:
        """The control groups that allow less than `total` bytes, the machine's RAM."""
        ...

    def offspring(self) -> int:
        """Private bytes of all descendants of the process."""
        ...

    def open_files(self) -> int | None: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be told, in sentences."""
        ...
