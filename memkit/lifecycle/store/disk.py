"""One value's file: written under another name, synced, then renamed; read back with every byte checked."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

from memkit.errors import CorruptedError, DemotionError
from memkit.lifecycle.store.accounts import Accounts
from memkit.lifecycle.store.codec import DIGEST_BYTES, PIECE, ZERO_DIGEST, check, digest, pieces, unpack_into
from memkit.lifecycle.store.failures import Cancel, OnDisk, full, never
from memkit.lifecycle.store.region import MAPPED_FROM, alignment, fresh, map_file, populate, start_writeback
from memkit.lifecycle.store.stored import Block, Cancelled, Chunk
from memkit.units import MIB

_MAGIC = b"memkit1\n"
# Dirty pages may not pile up where memory is scarce. Measured: with the disk kept busy from every 8 MiB on, waiting for
# it every 64 MiB takes two thirds of the time of one sync at the end.
_START_EVERY = 8 * MIB
_SYNC_EVERY = 64 * MIB
_WINDOW = 8 * MIB
_SYNC = getattr(os, "fdatasync", os.fsync)


def _write_at(fd: int, view: memoryview, offset: int) -> None:
    while view:
        if hasattr(os, "pwrite"):
            count = os.pwrite(fd, view, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            count = os.write(fd, view)
        view, offset = view[count:], offset + count


def _read_at(fd: int, view: memoryview, offset: int) -> None:
    """Fill the view; raises CorruptedError at the end of the file."""
    while view:
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [view], offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            data = os.read(fd, min(len(view), PIECE))
            count = len(data)
            view[:count] = data
        if not count:
            raise CorruptedError("its file is shorter than it was")
        view, offset = view[count:], offset + count


class StoreFile:
    """A file being written, of which `accounts` are kept; `needed` is about how many bytes it will take.

    Use as a context manager: where that is left by an exception, nothing remains of it, in the folder or the accounts.
    """

    def __init__(self, folder: Path, token: bytes, key: int, accounts: Accounts, needed: int) -> None:
        self.key = key
        self.path = folder / f"{key}.values"
        self.head = _MAGIC + token + key.to_bytes(8, "little")
        self._temporary = folder / f"{key}.part"
        self._accounts = accounts
        self._needed = needed
        self._dirty = self._started = 0
        self._file: io.FileIO | None = None
        self._end = 0

    def __enter__(self) -> StoreFile:
        try:
            with OnDisk(self.path.parent, self._needed):
                # A file object rather than a bare descriptor: closed by whatever drops it, also when an interrupt
                # comes between its opening and the next line.
                self._file = io.FileIO(self._temporary, "xb+")
                os.chmod(self._temporary, 0o600)
            self.put(self.head)
        except BaseException:
            self._abort()
            raise
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is not None:
            self._abort()

    def _abort(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # the file is given up: what its last write says does not matter
                self._file.close()
        for path in (self._temporary, self.path):
            with contextlib.suppress(OSError):  # never made; anything else goes with the folder
                os.unlink(path)
        self._accounts.drop(self.key)

    def put(self, data: bytes | memoryview) -> int:
        offset = self._end
        self._write(memoryview(data), offset)
        self._end = offset + len(data)
        return offset

    def put_raw(self, view: memoryview, cancelled: Cancel) -> Block:
        start = self._end
        self._check_room(len(view))
        if len(view) >= MAPPED_FROM:
            start = -(-start // alignment()) * alignment()
        parts = []
        for index, piece in enumerate(pieces(view)):
            if cancelled():
                raise Cancelled("cancelled while it was being written; left in memory")
            parts.append(self._put_piece(piece, start + index * PIECE))
        self._end = start + len(view)
        return Block(start, len(view), len(view), False, b"".join(parts))

    def _check_room(self, size: int) -> None:
        """A large buffer that cannot fit is refused before it has filled the disk for everybody."""
        if size >= _WINDOW and size > shutil.disk_usage(self.path.parent).free:
            raise full(self.path.parent, max(size, self._needed), self._end)

    def _put_piece(self, piece: memoryview, offset: int) -> bytes:
        """Write a piece straight from the value's memory; a piece of zeros becomes a hole in the file."""
        before = digest(piece)
        if before != ZERO_DIGEST or len(piece) != PIECE:
            self._write(piece, offset)
        if digest(piece) != before:
            raise DemotionError("it was changed while it was being written; left in memory")
        return before

    def _write(self, view: memoryview, offset: int) -> None:
        self._accounts.claim(self.key, len(view), self.path.parent, self._needed)
        with OnDisk(self.path.parent, self._needed, self._end):
            _write_at(self._fd, view, offset)
            self._dirty += len(view)
            if self._dirty >= _SYNC_EVERY:
                self._dirty = self._started = 0
                _SYNC(self._fd)
            elif self._dirty - self._started >= _START_EVERY:
                self._started = self._dirty
                start_writeback(self._fd)

    def sync(self, *, wait: bool = True) -> None:
        """Everything is on the disk: an error that the system had put off shows here, while the value still exists.

        Without `wait` it is only complete: enough to outlive this process, not a power failure.
        """
        with OnDisk(self.path.parent, self._needed):
            os.ftruncate(self._fd, self._end)
            if wait:
                _SYNC(self._fd)

    def source(self) -> FileSource:
        """Reads what was written so far, without checking again what is mapped."""
        return FileSource(io.FileIO(self._temporary), self.head, self._end, verify=False)

    @property
    def _fd(self) -> int:
        assert self._file is not None
        return self._file.fileno()

    def commit(self) -> None:
        """Give the file its name; to be synced before."""
        with OnDisk(self.path.parent, self._needed):
            assert self._file is not None
            self._file.close()
            os.replace(self._temporary, self.path)


class FileSource:
    """A file being read; owns it. Regions it hands out outlive it, and the file's name."""

    def __init__(self, file: io.FileIO, head: bytes, end: int, cancelled: Cancel = never, verify: bool = True) -> None:
        self._file = file
        self._fd = file.fileno()
        self._verify = verify
        self._cancelled = cancelled
        try:
            self._check(head, end)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: Path, head: bytes, end: int, cancelled: Cancel) -> FileSource:
        return cls(io.FileIO(path), head, end, cancelled)

    def close(self) -> None:
        self._file.close()

    def _check(self, head: bytes, end: int) -> None:
        if os.fstat(self._fd).st_size < end:
            raise CorruptedError("its file is shorter than it was")
        found = bytearray(len(head))
        _read_at(self._fd, memoryview(found), 0)
        if found != head:
            raise CorruptedError("its file was not written by this session")

    def read(self, block: Block) -> memoryview:
        """The raw bytes of one block of the stream."""
        target = memoryview(bytearray(block.raw))
        self._fill(block, target)
        return target

    def buffer(self, chunk: Chunk) -> Any:
        """The memory of one buffer: mapped where it lies in the file as it was and is large, else read."""
        block = chunk.blocks[0]
        if chunk.mappable and chunk.raw >= MAPPED_FROM and block.offset % alignment() == 0:
            return self._map(block)
        memory = fresh(chunk.raw)
        view = memoryview(memory).cast("B")
        for part in chunk.blocks:
            self._fill(part, view[: part.raw])
            view = view[part.raw :]
        return memory

    def _fill(self, block: Block, target: memoryview) -> None:
        if self._cancelled():
            raise Cancelled("cancelled while it was being restored; it stays stored")
        if not block.packed:
            _read_at(self._fd, target, block.offset)
            check(target, block.digests)
            return
        packed = memoryview(bytearray(block.stored))
        _read_at(self._fd, packed, block.offset)
        check(packed, block.digests)
        unpack_into(packed, target)

    def _map(self, block: Block) -> Any:
        region = map_file(self._fd, block.offset, block.raw)
        if self._verify:
            self._check_region(region, block)
        return region

    def _check_region(self, region: Any, block: Block) -> None:
        view = memoryview(region).cast("B")
        for start in range(0, block.raw, _WINDOW):
            if self._cancelled():
                raise Cancelled("cancelled while it was being restored; it stays stored")
            part = view[start : start + _WINDOW]
            if not populate(region, start, len(part)):
                part = memoryview(bytearray(len(part)))
                _read_at(self._fd, part, block.offset + start)
            check(part, block.digests[start // PIECE * DIGEST_BYTES :][: -(-len(part) // PIECE) * DIGEST_BYTES])
