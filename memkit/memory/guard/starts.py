"""Threads: room for their stacks, and an end for the cell that waits for one which has run out of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from memkit.errors import MemoryGuardError
from memkit.memory.guard.datalimit import widen
from memkit.memory.guard.patch import Patch
from memkit.memory.guard.untouched import stack_size

_TO_BEGIN = 512 * 1024  # bytes that a thread takes for itself before its first line


class Starts:
    """`end_cell_for(why)` is told of a thread that died of a MemoryError; `is_new(ident)` tells the cell's threads."""

    def __init__(
        self,
        end_cell_for: Callable[[str], object],
        is_new: Callable[[int | None], bool],
        free: Callable[[], int],
    ) -> None:
        self._end_cell_for, self._is_new, self._free = end_cell_for, is_new, free
        self._patches: list[Patch] = []

    def install(self) -> None:
        """Idempotent."""
        if not self._patches:
            self._patches = [
                Patch(threading.Thread, "start", self._start),
                Patch(threading, "excepthook", self._excepthook),
            ]

    def uninstall(self) -> None:
        """Idempotent."""
        for patch in reversed(self._patches):
            patch.undo()
        self._patches = []

    def _excepthook(self, before: Any) -> Any:
        def excepthook(args: Any) -> None:
            before(args)
            wanted = issubclass(args.exc_type, MemoryError) and not issubclass(args.exc_type, MemoryGuardError)
            if wanted and args.thread is not None and self._is_new(args.thread.ident):
                # A pool whose reader has died would be waited for without end.
                self._end_cell_for(f"{args.thread.name}, which it had started, ran out of memory and has ended.")

        return excepthook

    def _start(self, before: Any) -> Any:
        def start(thread: threading.Thread) -> None:
            # A stack counts as data with all its size although hardly any of it is ever taken; and a thread that cannot
            # be set up, once the system has begun it, is waited for without end.
            if self._free() < _TO_BEGIN:
                raise MemoryGuardError(f"starting {thread.name} takes more memory than is left")
            widen(threading.stack_size() or stack_size())
            before(thread)

        return start
