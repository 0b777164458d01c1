"""A lock on an open file, held as long as a process has it open: how a live session is told from a dead one.

Process numbers say nothing across containers that share a folder. A forked child inherits the lock, on purpose: a
child that outlives its kernel may still be saving what is spilled here. A program that is started instead does not.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

NAME = "lock"
_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


if sys.platform == "win32":
    import msvcrt

    def _try(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def create(folder: Path) -> int:
    """Make the folder's lock file and lock it, where the file system can; answers the descriptor, not inherited."""
    fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        _try(fd)
    except OSError as error:
        # Without locks a sweep cannot lock either, and leaves the folder alone: safe, if untidy after a crash.
        if error.errno in _TAKEN:
            os.close(fd)
            raise
    return fd


def take_over(folder: Path) -> int | None:
    """The lock's descriptor if nobody alive has it; None where somebody has, or it cannot be told."""
    try:
        fd = os.open(folder / NAME, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        _try(fd)
    except OSError:
        os.close(fd)
        return None
    return fd


def keep(folder: Path) -> int | None:
    """Lock the folder itself too, where possible: systemd-tmpfiles(8) spares such folders when it clears old files."""
    if sys.platform == "win32":
        return None
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        _try(fd)
    except OSError:
        os.close(fd)
        return None
    return fd
