"""Ending threads that a cell has started."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from types import FrameType

from memkit.memory.guard import stack

_KERNELS = frozenset({"IPython", "ipykernel", "zmq"})


def running() -> frozenset[int]:
    """The identifiers of all Python threads."""
    return frozenset(sys._current_frames())


def end(before: frozenset[int], error: type[BaseException], only: Callable[[FrameType], bool] | None = None) -> int:
    """Raise `error` in every thread that was not there before, and runs code that `only` knows; how many there were.

    It is raised between two bytecodes: a thread inside a long C call sees it afterwards.
    """
    spared = before | {threading.get_ident(), threading.main_thread().ident} | _ours()
    frames = sys._current_frames().items()
    started = [ident for ident, frame in frames if ident not in spared and (only is None or stack.any_of(frame, only))]
    for ident in started:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))
    return len(started)


def _ours() -> set[int | None]:
    """memkit's own threads and the kernel's: without them nothing would be saved, shown or heard any more."""
    return {
        thread.ident
        for thread in threading.enumerate()
        if thread.name.startswith("memkit") or type(thread).__module__.partition(".")[0] in _KERNELS
    }
