"""What one cell took, as it is kept and written down."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CellRecord:
    """What one cell took: bytes and seconds, all of the whole process.

    `before` and `after` count what only this process can give back: anonymous, shared and swapped-out memory. `peak` is
    the highest RSS while the cell ran and `rss_before`, `rss_after` the RSS around it; RSS counts file-backed pages
    too. None where it cannot be read. `method` tells how the peak is known: by the "kernel high-water mark" (exact,
    spikes inside one C call included), "sampled" (what was between two readings may be missing) or "not available".
    `overlapped`: another thread (a subshell) ran a cell meanwhile, whose memory counts too. `depth` is 0 for a cell of
    the notebook and more for what a cell runs with `run_cell`; `in_history` is false for what a front end runs behind
    the scenes. `ran` is false where it was not run at all: it could not be parsed, or a variable not be restored.
    `vram_peak` is the highest that torch has allocated on all GPUs, at least where `vram_exact` is false.
    """

    number: int
    cell_id: str | None
    source: str
    started: float
    seconds: float
    before: int
    after: int
    peak: int | None
    method: str
    gc_seconds: float
    error: str | None
    gc_runs: int = 0
    rss_before: int | None = None
    rss_after: int | None = None
    execution_count: int | None = None
    depth: int = 0
    in_history: bool = True
    overlapped: bool = False
    ran: bool = True
    vram_peak: int | None = None
    vram_exact: bool = True

    @property
    def delta(self) -> int:
        """Bytes by which the process has grown; negative where it has shrunk."""
        return self.after - self.before

    @property
    def needed(self) -> int | None:
        """Bytes by which the peak stood above the beginning: what the cell needed to be free."""
        return None if self.peak is None or self.rss_before is None else max(0, self.peak - self.rss_before)

    @property
    def freed(self) -> int | None:
        """Bytes by which the peak stood above the end: what the cell took and gave back."""
        return None if self.peak is None or self.rss_after is None else max(0, self.peak - self.rss_after)

    @property
    def mapped(self) -> int | None:
        """Bytes by which file-backed pages have grown: libraries, mapped files. The system can take them back."""
        if self.rss_before is None or self.rss_after is None:
            return None
        return self.rss_after - self.rss_before - self.delta

    @property
    def title(self) -> str:
        """The first line that says something about the cell."""
        lines = (line.strip() for line in self.source.splitlines())
        return next((line for line in lines if line and not line.startswith(("#", "%%memkit"))), "")[:60]

    @property
    def label(self) -> str:
        """The cell as its front end numbers it: ``[7]``."""
        return f"[{'-' if self.execution_count is None else self.execution_count}]"

    @property
    def of_notebook(self) -> bool:
        """Whether a user would say that it is a cell of theirs."""
        return self.in_history and self.depth == 0

    @property
    def note(self) -> str:
        """What restricts the figures, in words; empty for exact ones of a cell that ran alone."""
        said = [
            "not run" * (not self.ran),
            "peak of several cells that ran at once" * self.overlapped,
            "peak sampled" * (self.method == "sampled"),
            "no peak here" * (self.peak is None),
            "VRAM at least" * (not self.vram_exact),
        ]
        return ", ".join(filter(None, said))

    def to_dict(self) -> dict[str, Any]:
        """All fields and the differences, as plain data."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"delta": self.delta, "needed": self.needed, "freed": self.freed}
