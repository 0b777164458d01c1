"""Where a picture of the variables cannot be taken, and why."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from memkit.config import Settings
from memkit.errors import DemotionError
from memkit.lifecycle.rescue.cause import own_groups
from memkit.lifecycle.store.folder import choose_base, users_folder
from memkit.memory.files import read


def lasting(settings: Settings, keys: tuple[str, ...]) -> str:
    """What will not change while this kernel lives; empty where there is nothing in the way."""
    if not settings.guard.rescue:
        return "switched off (guard.rescue)"
    if not hasattr(os, "fork"):
        return "this system has no fork"
    if sys.platform == "darwin":
        return "on macOS a process with threads cannot be forked safely"
    if not keys:
        return "this is no Jupyter kernel: without a connection file no next one could find the variables"
    if _killed_as_one():
        return "memory.oom.group=1: for want of memory the system would kill all processes of this group together"
    return _no_folder(settings.store.directory)


def passing() -> str:
    """What is in the way now; empty where there is nothing."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and getattr(cuda, "is_initialized", bool)():
        return "CUDA is in use: a process that uses it cannot be forked"
    return ""


def _killed_as_one() -> bool:
    for group in own_groups():
        if group.version == 2:
            try:
                if read(f"{group.folder}/memory.oom.group").strip() == b"1":
                    return True
            except OSError:  # the root group has none
                continue
    return False


def _no_folder(directory: Path | None) -> str:
    try:
        users_folder(choose_base(directory))
    except (DemotionError, OSError) as error:
        return f"no private folder: {error}"
    return ""
