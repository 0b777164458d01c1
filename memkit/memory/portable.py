"""macOS, Windows and other systems, through psutil.  The only file that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memkit.errors import ReadingError
from memkit.memory.source import Machine, Process

if TYPE_CHECKING:
    from memkit.memory.limits import Constraint


class PortableSource:
    """Reads what psutil tells cheaply. `library` stands in for psutil in tests. Any thread may call it."""

    def __init__(self, pid: int | None = None, library: Any = None) -> None:
        self._pid = pid
        self._library = library if library is not None else _psutil()

    def process(self) -> Process:
        info = self._ask("the memory of this process", lambda: self._library.Process(self._pid).memory_info())
        # Windows alone tells private bytes cheaply (committed, so also those paged out); macOS would need a full walk.
        private = getattr(info, "private", None)
        return Process(rss=info.rss, vms=info.vms, anonymous=private, peak=getattr(info, "peak_wset", None))

    def machine(self) -> Machine:
        memory = self._ask("the memory of this machine", self._library.virtual_memory)
        swap = self._swap()
        return Machine(memory.total, memory.available, getattr(swap, "total", None), getattr(swap, "used", None))

    def groups(self, total: int) -> tuple[Constraint, ...]:
        return ()

    def offspring(self) -> int:
        return 0  # finding children means listing every process here: 10 ms and more. The notes say so.

    def open_files(self) -> int | None:
        try:
            return int(self._library.Process(self._pid).num_fds())
        except (AttributeError, OSError, self._library.Error):
            return None  # Windows counts handles, which are not files

    @property
    def notes(self) -> tuple[str, ...]:
        return ("processes started from here are not counted: this platform does not list them cheaply",)

    def _swap(self) -> Any:
        try:
            return self._library.swap_memory()
        except (OSError, RuntimeError, self._library.Error):
            return None

    def _ask(self, what: str, question: Any) -> Any:
        try:
            return question()
        except (OSError, self._library.Error) as error:
            raise ReadingError(f"{what} cannot be read: {error!r}") from error


def _psutil() -> Any:
    import psutil

    return psutil
