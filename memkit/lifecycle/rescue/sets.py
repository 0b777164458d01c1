"""The folders of rescues: made, found by a kernel's key, locked by whoever writes or uses one, and cleared away."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from memkit.errors import DemotionError, RescueError
from memkit.lifecycle.rescue import manifest as manifests
from memkit.lifecycle.rescue.keys import folder_name, is_of
from memkit.lifecycle.rescue.manifest import Manifest
from memkit.lifecycle.store import lock
from memkit.lifecycle.store.folder import RESCUED, choose_base, delete, new_locked, users_folder, users_path


@dataclass(frozen=True, slots=True)
class Found:
    """One rescue on disk. `writing`: the process that saves it is still at it."""

    folder: Path
    manifest: Manifest
    writing: bool


def create(base: Path, of: tuple[str, ...]) -> tuple[Path, int]:
    """A new locked folder for a kernel's rescue; answers it and the lock's descriptor."""
    return new_locked(users_folder(base), folder_name(of, secrets.token_hex(8)))


def matching(directory: Path | None, of: tuple[str, ...]) -> list[Path]:
    """Folders of rescues with one of the keys: one listing of one folder."""
    return [path for path in folders(directory) if is_of(path.name, of)]


def folders(directory: Path | None) -> list[Path]:
    """All rescues of this user, whosever kernel's; empty where nothing was ever saved."""
    try:
        users = users_path(choose_base(directory))
        with os.scandir(users) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(RESCUED)]
    except (OSError, DemotionError):
        return []
    if names:
        users_folder(users.parent)  # raises where somebody else could have put them there
    return [users / name for name in names]


def look(folder: Path) -> Found:
    """Read what is there; raises RescueError."""
    fd = lock.take_over(folder)
    if fd is not None:
        os.close(fd)
    return Found(folder, manifests.read(folder), fd is None)


def size(folder: Path) -> int:
    """Bytes on disk."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def sweep(directory: Path | None, keep: float, most: int | None, now: float) -> int:
    """Remove rescues that nobody wants any more; answers how many. Never one that is being written or used.

    Gone are those older than `keep` seconds, those cut short before anything was saved, and the oldest of those that
    together take more than `most` bytes.
    """
    removed, kept = 0, list[tuple[float, Path]]()
    for folder in folders(directory):
        try:
            age = now - folder.stat().st_mtime
        except OSError:  # another sweep was quicker
            continue
        if age > keep or _is_worthless(folder, age):
            removed += remove(folder)
        else:
            kept.append((age, folder))
    return removed + sum(remove(folder) for folder in _beyond(sorted(kept), most))


def _is_worthless(folder: Path, age: float) -> bool:
    try:
        return not (found := look(folder)).writing and not found.manifest.entries and not found.manifest.modules
    except RescueError:
        return age > 60 and not (folder / manifests.NAME).exists()


def _beyond(aged: Iterable[tuple[float, Path]], most: int | None) -> Iterator[Path]:
    total = 0
    for _, folder in aged:
        total += size(folder)
        if most is not None and total > most:
            yield folder


def remove(folder: Path) -> bool:
    """Delete a rescue unless somebody has it locked; whether it is gone."""
    fd = lock.take_over(folder)
    if fd is None and (folder / lock.NAME).exists():
        return False
    delete(folder)
    if fd is not None:
        os.close(fd)
    return True


def now() -> float:
    return time.time()


def clear(folder: Path) -> None:
    """Delete a rescue that this process, or the kernel it was forked from, has locked."""
    delete(folder)
