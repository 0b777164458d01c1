"""What went wrong, said so that a person can act on it."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from memkit.errors import DemotionError, NotPicklableError, SharedMemoryError, StoreFullError
from memkit.units import format_bytes

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
SETTING = "choose another place with the setting store.directory or the environment variable MEMKIT_STORE_DIR"
_SEARCHED = 20_000


def _free(folder: Path, taken: int) -> str:
    try:
        return format_bytes(shutil.disk_usage(folder).free + taken)
    except OSError:
        return "unknown"


def full(folder: Path, needed: int, taken: int = 0, limit: str = "") -> StoreFullError:
    """The error for a disk or a quota without room; `taken` of it is by the unfinished file, which goes.

    `limit` says what else than the disk is full.
    """
    room = limit or f"{_free(folder, taken)} free"
    return StoreFullError(f"no room in {folder}: about {format_bytes(needed)} needed, {room}; free some, or {SETTING}")


class OnDisk:
    """Turns what the system says about a file into StoreFullError or DemotionError; a context manager.

    A class, because an exception that passes through a generator's frame ends up in a cycle with it (Python 3.13):
    the frames would then keep the values in memory until the garbage collector runs.
    """

    def __init__(self, folder: Path, needed: int = 0, taken: int = 0) -> None:
        self._folder = folder
        self._needed = needed
        self._taken = taken

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _FULL:
            raise full(self._folder, self._needed, self._taken) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DemotionError(f"cannot write in {self._folder}: {reason}; {SETTING}") from error


def not_written(values: Mapping[str, Any], error: Exception, last: object) -> DemotionError:
    """The error for a value that could not be pickled; `last` is the object pickle was at."""
    where = _path_to(values, last) or ", ".join(values)
    what = f"{where} (a {type(last).__module__}.{type(last).__qualname__})" if last is not None else where
    kind = NotPicklableError if _says_not_picklable(error) else DemotionError
    return kind(f"{what} cannot be written down: {type(error).__name__}: {error}; left in memory")


def _says_not_picklable(error: Exception) -> bool:
    return isinstance(error, (pickle.PicklingError, TypeError, AttributeError, RecursionError, NotImplementedError))


def shared(names: Iterable[str], objects: tuple[Any, ...], kept: int, total: int) -> SharedMemoryError:
    """The error for values that somebody else holds; `error.objects` are those that are held.

    Drop the error soon: while it lives, it holds them too.
    """
    kinds = ", ".join(sorted({type(o).__qualname__ for o in objects})[:3])
    message = (
        f"{', '.join(names)}: {format_bytes(kept)} of {format_bytes(total)} is also held elsewhere (as {kinds}), "
        "so moving it would free little; let go of the other holder, or move them together"
    )
    error = SharedMemoryError(message)
    error.objects = objects  # type: ignore[attr-defined]
    return error


def _path_to(values: Mapping[str, Any], target: object) -> str | None:
    """How to write the way from a name to the object, as `x['a'][3].lock`; searched breadth first, bounded."""
    waiting: deque[tuple[str, Any]] = deque(values.items())
    seen: set[int] = set()
    while waiting and len(seen) < _SEARCHED:
        path, value = waiting.popleft()
        if value is target:
            return path
        if id(value) not in seen:
            seen.add(id(value))
            waiting.extend(_parts(path, value))
    return None


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", part) for key, part in list(value.items())[:_SEARCHED])
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{i}]", part) for i, part in enumerate(value[:_SEARCHED]))
    elif type(getattr(value, "__dict__", None)) is dict:
        yield from ((f"{path}.{key}", part) for key, part in list(value.__dict__.items()))


def never() -> bool:
    """The default of `cancelled`."""
    return False


Cancel = Callable[[], bool]
