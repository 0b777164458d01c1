"""Whose code runs: a walk from a frame to those that called it."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType


def any_of(frame: FrameType | None, wanted: Callable[[FrameType], bool]) -> bool:
    """Whether the frame or one of its callers is wanted."""
    while frame is not None:
        if wanted(frame):
            return True
        frame = frame.f_back
    return False


def within(frame: FrameType | None, package: str, until: Callable[[FrameType], bool]) -> bool:
    """Whether a module of the package runs, called by the nearest frame that `until` knows, or by nobody it knows."""
    while frame is not None and not until(frame):
        if str(frame.f_globals.get("__name__", "")).startswith(package):
            return True
        frame = frame.f_back
    return False
