"""Where spilled values go: a private folder for this session, inside one for this user, off memory-backed disks."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from memkit.errors import DemotionError
from memkit.lifecycle.store import lock
from memkit.lifecycle.store.failures import SETTING, OnDisk

VARIABLE = "MEMKIT_STORE_DIR"
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_UNFINISHED = "new-"
RESCUED = "rescue-"
# A folder that is still being set up has no lock yet; nobody needs an hour for that.
_SETUP_SECONDS = 3600.0


class SessionFolder:
    """A folder that is this session's alone until `remove`; made at once, and locked while the process lives."""

    def __init__(self, base: Path) -> None:
        self.pid = os.getpid()
        self.token = secrets.token_bytes(16)
        with OnDisk(base):
            users = users_folder(base)
            self.path, held = new_locked(users, f"{os.getpid()}-{secrets.token_hex(8)}")
        self._held = [fd for fd in (held, lock.keep(self.path)) if fd is not None]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The locked files: a forked child that keeps them open keeps the folder from being swept."""
        return tuple(self._held)

    def remove(self) -> None:
        """Delete the folder; a no-op in a forked child, whose parent still needs it."""
        if os.getpid() != self.pid or not self._held:
            return
        held, self._held = self._held, []
        delete(self.path)
        for fd in held:
            os.close(fd)


def choose_base(explicit: Path | None) -> Path:
    """The folder asked for, by setting or environment, or the first fit of the usual ones. Raises DemotionError."""
    asked = explicit or os.environ.get(VARIABLE)
    if asked:
        return Path(asked).expanduser()
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp"), _cache()]
    for candidate in candidates:
        if os.access(candidate, os.W_OK | os.X_OK) and not is_in_memory(candidate):
            return candidate
    tried = ", ".join(map(str, candidates))
    raise DemotionError(f"no writable folder on a disk among {tried}; {SETTING}")


def _cache() -> Path:
    """The user's folder for what can be lost, as each system has it; the nearest part of it that exists."""
    homes = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": "~/Library/Caches"}
    path = Path(homes.get(sys.platform) or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return path if path.exists() else Path.home()


def is_in_memory(path: Path, mounts: Iterable[str] | None = None) -> bool:
    """Whether the folder lies on a file system that is itself memory; False where /proc/mounts does not tell."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
        except OSError:
            return False
    real, kind, depth = Path(os.path.realpath(path)), "", -1
    for line in mounts:
        fields = line.split()
        # proc(5): blanks in a path are written as octal escapes; a later mount hides an earlier one.
        where = Path(fields[1].replace("\\040", " ").replace("\\011", "\t"))
        if len(where.parts) >= depth and (where == real or where in real.parents):
            kind, depth = fields[2], len(where.parts)
    return kind in _IN_MEMORY


def users_path(base: Path) -> Path:
    """Where the user's own folder in the base is, or would be."""
    return base / f"memkit-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def users_folder(base: Path) -> Path:
    """The user's own folder in the base, made where it is missing; DemotionError where it is not theirs alone."""
    path = users_path(base)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise DemotionError(f"{path} is no folder (a link?); remove it, or {SETTING}")
    if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077):
        raise DemotionError(f"{path} is not private to you (owner, or mode not 0700); remove it, or {SETTING}")
    return path


def new_locked(users: Path, name: str) -> tuple[Path, int]:
    """A new locked folder: complete, with its lock held, before it has the name under which a sweep would look."""
    # An open file stops a folder from being renamed on Windows: there it is new under its own name.
    first = users / (name if sys.platform == "win32" else _UNFINISHED + name)
    first.mkdir(mode=0o700)
    fd = lock.create(first)
    try:
        os.rename(first, users / name)
    except BaseException:
        os.close(fd)
        delete(first)
        raise
    return users / name, fd


def sweep_leftovers(directory: Path | None = None) -> int:
    """Remove what sessions left behind that ended without doing so; answers the bytes freed.

    Never touches a live session's folder, nor one whose state cannot be told. Safe to call from several processes.
    """
    users = users_path(choose_base(directory))
    return sum(_sweep(folder) for folder in _own_folders(users))


def _own_folders(users: Path) -> Iterator[Path]:
    try:
        entries = list(os.scandir(users))
    except OSError:  # nothing was ever spilled
        return
    for entry in entries:
        with contextlib.suppress(OSError):  # another sweep was quicker
            if entry.name.startswith(RESCUED):  # a dead kernel's variables wait there to be asked for
                continue
            if entry.is_dir(follow_symlinks=False) and _is_finished(Path(entry.path), time.time()):
                yield Path(entry.path)


def _is_finished(folder: Path, now: float) -> bool:
    """Whether the folder was ever set up; one that never was may be removed after an hour."""
    setting_up = folder.name.startswith(_UNFINISHED) or not (folder / lock.NAME).exists()
    return not setting_up or now - folder.lstat().st_mtime > _SETUP_SECONDS


def _sweep(folder: Path) -> int:
    fd = lock.take_over(folder)
    if fd is None and (folder / lock.NAME).exists():
        return 0
    try:
        size = sum(_size(entry) for entry in folder.glob("*"))
        delete(folder)
    finally:
        if fd is not None:
            os.close(fd)
    return size


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:  # another sweep was quicker
        return 0
    return int(getattr(found, "st_blocks", 0) * 512 or found.st_size)


def delete(folder: Path) -> None:
    """Delete the folder, its lock last: without one it would look as if it were being set up."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name != lock.NAME:
                with contextlib.suppress(OSError):  # in use on Windows: the next start's sweep removes it
                    os.unlink(entry.path)
    shutil.rmtree(folder, ignore_errors=True)
