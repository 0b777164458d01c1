"""The place where demoted values rest."""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from memkit.errors import CorruptedError, DemotionError, NotPicklableError
from memkit.lifecycle.store import pickling
from memkit.lifecycle.store.accounts import Accounts
from memkit.lifecycle.store.anchors import Survey, survey
from memkit.lifecycle.store.disk import FileSource, StoreFile
from memkit.lifecycle.store.failures import Cancel, never
from memkit.lifecycle.store.folder import SessionFolder, choose_base, sweep_leftovers
from memkit.lifecycle.store.packed import PackedBlocks, PackedSource
from memkit.lifecycle.store.stored import Cancelled, Compress, Layout, Stored
from memkit.lifecycle.store.writing import DiskChoice, MemoryChoice, Writer
from memkit.units import MIB

_NONE: Mapping[str, int] = MappingProxyType({})
# What a rehearsal may read into memory: most objects take a few times the bytes of their pickle.
_REHEARSED = 16 * MIB
_REHEARSED_ALWAYS = MIB
_MOSTLY = 0.9


class Store:
    """Keeps demoted values, compressed in memory or on disk, until they are discarded; thread-safe.

    `directory` is where the session's folder is made, at the first spill; `max_bytes` is the most it may hold. No
    lock is held while anything is pickled, written or read. In a forked child `load` works, and nothing of the
    parent's is ever removed.
    """

    def __init__(self, directory: Path | None = None, *, max_bytes: int | None = None) -> None:
        self._base = directory
        self._accounts = Accounts(max_bytes)
        self._folder: SessionFolder | None = None
        self._keys = itertools.count(1)
        self._packed: dict[int, list[bytes]] = {}
        self._closed = False
        self._put_off: list[Path] | None = None

    @property
    def directory(self) -> Path | None:
        """The session's folder; None before the first spill."""
        return self._folder.path if self._folder is not None else None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The open files that mark the folder as a living session's; none before the first spill."""
        return self._folder.descriptors if self._folder is not None else ()

    @property
    def bytes_on_disk(self) -> int:
        return self._accounts.total

    @property
    def bytes_compressed(self) -> int:
        return sum(len(block) for blocks in list(self._packed.values()) for block in blocks)

    def spill(
        self,
        values: Mapping[str, object],
        *,
        compress: Compress = "auto",
        cancelled: Cancel = never,
        exempt_refs: Mapping[str, int] = _NONE,
    ) -> Stored:
        """Write the values to one file as a group; they are complete on the disk when this returns.

        `exempt_refs` tells for each name how many references to its value the caller answers for besides `values`
        itself (a name, IPython's caches); 1 where nothing is said. Raises SharedMemoryError, NotPicklableError,
        StoreFullError, Cancelled or another DemotionError; the values are then as they were, and nothing is left.
        """
        found = survey(values, exempt_refs, cancelled)
        with self._file(found.freed) as file:
            writer = Writer(file, DiskChoice(compress), cancelled)
            writing = pickling.dump(values, writer, found.kept)
            file.sync()
            with contextlib.closing(file.source()) as source:
                _rehearse(values, source, writer, writing)
            file.commit()
            return self._watched(_stored(file.key, values, found, writer, writing, file))

    def pack(
        self,
        values: Mapping[str, object],
        *,
        cancelled: Cancel = never,
        exempt_refs: Mapping[str, int] = _NONE,
        minimum_saving: float = 0.2,
    ) -> Stored:
        """Compress the values in memory; raises as `spill` does, or NotWorthwhileError as soon as it cannot pay.

        It pays where at least `minimum_saving` of the bytes that the values hold in memory is saved.
        """
        self._check_open()
        found = survey(values, exempt_refs, cancelled)
        blocks = PackedBlocks()
        choice = MemoryChoice(tuple(values), (1 - minimum_saving) * found.freed)
        writer = Writer(blocks, choice, cancelled)
        writing = pickling.dump(values, writer, found.kept)
        choice.check(writer.stored_bytes)
        _rehearse(values, PackedSource(blocks.blocks), writer, writing)
        key = next(self._keys)
        stored = self._watched(_stored(key, values, found, writer, writing, None))
        self._packed[key] = blocks.blocks
        return stored

    def move_to_disk(self, stored: Stored, *, cancelled: Cancel = never) -> Stored:
        """Write what is compressed in memory to disk as it is, and give up the copy in memory.

        Raises as `spill` does; the copy in memory then stays.
        """
        with self._file(stored.stored_bytes) as file:
            layout = self.write_packed(stored, file, cancelled)
            moved = self._watched(
                replace(stored, key=file.key, tier="disk", layout=layout, path=file.path, head=file.head)
            )
        self.discard(stored)
        return moved

    def write_packed(self, stored: Stored, file: StoreFile, cancelled: Cancel = never) -> Layout:
        """Write what is compressed in memory to a file as it is; answers where everything then is."""
        offsets = []
        for block in self._blocks(stored):
            if cancelled():
                raise Cancelled(f"{', '.join(stored.names)}: cancelled; still compressed in memory")
            offsets.append(file.put(block))
        file.sync()
        file.commit()
        return stored.layout.moved(offsets)

    def load(self, stored: Stored, *, cancelled: Cancel = never) -> dict[str, object]:
        """The values, new and equal, with what was kept being the same objects; the stored form stays.

        Every byte is checked. Raises CorruptedError naming the values, Cancelled, or MemoryError.
        """
        names = ", ".join(stored.names)
        try:
            with contextlib.closing(self._source(stored, cancelled)) as source:
                return pickling.load(source, stored.layout, stored.kept)
        except CorruptedError as error:
            raise CorruptedError(f"{names} cannot be restored: {error}{_place(stored)}") from error
        except OSError as error:
            raise CorruptedError(f"{names} cannot be restored: {error}{_place(stored)}") from error

    def discard(self, stored: Stored) -> None:
        """Remove the stored form; harmless when it is gone, and in a forked child, whose parent still needs it.

        Values restored as a mapping keep their memory: the disk's space comes back when the last of them is gone.
        """
        self._remove(stored.key, stored.path, stored.owner)

    def _remove(self, key: int, path: Path | None, owner: int) -> None:
        if owner != os.getpid():
            return
        self._packed.pop(key, None)
        if path is not None and self._put_off is not None:
            self._put_off.append(path)
            self._accounts.drop(key)
        elif path is not None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError:  # Windows: still mapped. It counts as there, and goes when the store is closed
                return
            self._accounts.drop(key)

    def put_off_removals(self, begin: bool) -> None:
        """Remove the files whose removal was put off; from now on put it off again, or not.

        A forked child that would save the values that are stored now needs their files until another takes its place.
        """
        waiting, self._put_off = self._put_off or [], [] if begin else None
        for path in waiting:
            with contextlib.suppress(OSError):  # the folder goes at the latest when the store is closed
                os.unlink(path)

    def _watched(self, stored: Stored) -> Stored:
        """What nobody refers to any more, for instance because an interrupt came in between, is removed."""
        end = weakref.finalize(stored, _forgotten, weakref.ref(self), stored.key, stored.path, stored.owner)
        end.atexit = False
        return stored

    def close(self) -> None:
        """Remove the session's folder and what is compressed; idempotent, and a no-op in a forked child."""
        with self._accounts.lock:
            folder = self._folder
            if folder is not None and folder.pid != os.getpid():
                return
            self._closed, self._folder = True, None
        self._packed.clear()
        self._accounts.clear()
        if folder is not None:
            folder.remove()

    def _check_open(self) -> None:
        if self._closed:
            raise DemotionError("the store is closed")

    def _session(self) -> SessionFolder:
        """This process' folder; leftovers of dead sessions are removed when it is made."""
        with self._accounts.lock:
            self._check_open()
            if self._folder is None or self._folder.pid != os.getpid():
                base = choose_base(self._base)
                sweep_leftovers(base)
                self._folder = SessionFolder(base)
            return self._folder

    def _file(self, needed: int) -> StoreFile:
        folder = self._session()
        return StoreFile(folder.path, folder.token, next(self._keys), self._accounts, needed)

    def _blocks(self, stored: Stored) -> list[bytes]:
        blocks = self._packed.get(stored.key)
        if blocks is None:
            raise CorruptedError("it is not in this store any more")
        return blocks

    def _source(self, stored: Stored, cancelled: Cancel) -> FileSource | PackedSource:
        if stored.path is None:
            return PackedSource(self._blocks(stored), cancelled)
        return FileSource.open(stored.path, stored.head, stored.layout.end, cancelled)


def _forgotten(store: weakref.ref[Store], key: int, path: Path | None, owner: int) -> None:
    if (live := store()) is not None:
        live._remove(key, path, owner)


def _place(stored: Stored) -> str:
    return "" if stored.path is None else f"; its file is kept: {stored.path}"


def _rehearse(values: Mapping[str, object], source: Any, writer: Writer, writing: pickling.Writing) -> None:
    """Read a small value back: some, above all of classes that pickle in their own way, are written and never read."""
    if writer.raw_bytes - writer.mapped_bytes > (_REHEARSED if writing.exotic else _REHEARSED_ALWAYS):
        return
    try:
        pickling.load(source, writer.layout(), tuple(writing.kept))
    except CorruptedError as error:
        names = ", ".join(values)
        raise NotPicklableError(f"{names} can be written down but not read back: {error}; left in memory") from error


def _stored(
    key: int,
    values: Mapping[str, object],
    found: Survey,
    writer: Writer,
    writing: pickling.Writing,
    file: StoreFile | None,
) -> Stored:
    return Stored(
        key=key,
        names=tuple(values),
        tier="disk" if file is not None else "compressed",
        raw_bytes=writer.raw_bytes,
        stored_bytes=writer.stored_bytes,
        freed_bytes=found.freed,
        mapped=writer.mapped_bytes >= _MOSTLY * writer.raw_bytes,
        kept=tuple(writing.kept),
        layout=writer.layout(),
        path=file.path if file is not None else None,
        head=file.head if file is not None else b"",
    )
