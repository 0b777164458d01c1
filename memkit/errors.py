"""Every error memkit raises.

    MemkitError
    ├── ConfigError             a setting is wrong; nothing was applied        (also ValueError)
    ├── UnitError               "512 MiX" is no size, "5 parsecs" no duration  (also ValueError)
    ├── ReadingError            the system could not be read; never "0 bytes"
    ├── UnknownResourceError    no resource of that name                       (also LookupError)
    ├── ReleasedError           it was there and was let go: when, why         (also LookupError)
    ├── PinnedError             it is in use
    ├── ReleaseError            one or more resources could not be let go
    ├── DemotionError           the value stays where it is
    │   ├── NotPicklableError   it cannot be written down
    │   ├── SharedMemoryError   something else holds it: nothing would be freed
    │   ├── NotWorthwhileError  packing would not make it smaller
    │   └── StoreFullError      no room on the disk
    ├── ReloadError             a reload recipe failed; the resource stays unloaded
    ├── CorruptedError          a stored value is damaged or missing
    ├── MemoryGuardError        a cell needs more memory than is left          (also MemoryError)
    ├── RescueError             variables of a dead kernel cannot be had
    ├── LimitError              this system lets nobody limit memory the way that was asked for
    └── MissingExtraError       an optional library is needed                  (also ImportError)

    MemoryGuardInterrupt        ends a cell that swallows MemoryGuardError     (a KeyboardInterrupt)

A message says what happened, to what, and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemkitError(Exception):
    """Base of every error that memkit raises on purpose."""


class ConfigError(MemkitError, ValueError):
    """One or more settings are wrong; `problems` lists them all, and none was applied."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class UnitError(MemkitError, ValueError):
    """A text is not a size, a duration or a share."""


class ReadingError(MemkitError):
    """The system could not be read."""


class UnknownResourceError(MemkitError, LookupError):
    """No resource of that name is tracked."""


class ReleasedError(MemkitError, LookupError):
    """The resource was released; the message says when, why and how to get it back."""


class PinnedError(MemkitError):
    """The resource is held by a pin, a lease or a running cell."""


class ReleaseError(MemkitError):
    """A resource could not be let go and is still tracked; `report` tells what was done."""

    def __init__(self, message: str, report: Any = None) -> None:
        self.report = report
        super().__init__(message)


class DemotionError(MemkitError):
    """A value could not be compressed or spilled; it stays where it is."""


class NotPicklableError(DemotionError):
    """The value cannot be written down, so it cannot leave memory without being lost."""


class SharedMemoryError(DemotionError):
    """Something else holds the value's memory: demoting it would free nothing."""


class NotWorthwhileError(DemotionError):
    """Packing the value would not make it smaller."""


class StoreFullError(DemotionError):
    """There is no room where demoted values are kept."""


class ReloadError(MemkitError):
    """A reload recipe raised; the resource stays unloaded and can be asked for again."""


class CorruptedError(MemkitError):
    """A stored value is damaged or missing and cannot be restored."""


class MemoryGuardError(MemkitError, MemoryError):
    """The cell was ended because it needs more memory than is left; every variable is kept."""


class MemoryGuardInterrupt(KeyboardInterrupt):
    """Ends a cell that goes on after MemoryGuardError; passes through `except Exception`, as an interrupt does."""


class RescueError(MemkitError):
    """What a dead kernel left cannot be read, or not by this one."""


class LimitError(MemkitError):
    """No way of limiting memory works here; the message names those that were tried."""


class MissingExtraError(MemkitError, ImportError):
    """An optional library is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed; it comes with: pip install 'memkit[{extra}]'")
