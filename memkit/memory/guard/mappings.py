"""Mappings: what could not be kept is refused before it is made, and a private map of a file stands outside the limit.

Anonymous shared memory, `SharedMemory` and the arrays of `multiprocessing` count in no limit and fail in no call: the
process is killed when it touches them. Private writable maps of files count in full although the system can take back
every page that was not changed.
"""

from __future__ import annotations

import mmap as library
import os
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from memkit.errors import MemoryGuardError
from memkit.memory.guard.gate import Gate, Post, demand
from memkit.memory.guard.patch import Patch
from memkit.memory.guard.shared import promised, room_on
from memkit.units import MIB, format_bytes

_FOLDER = "/dev/shm"
_SMALL = MIB  # a mapping below this is not worth asking for
_ANONYMOUS = getattr(library, "MAP_ANONYMOUS", 0)
_SHARED = getattr(library, "MAP_SHARED", 0)
_PRIVATE = getattr(library, "MAP_PRIVATE", 0)
_WRITE = getattr(library, "PROT_WRITE", 2)
_READ_WRITE = _WRITE | getattr(library, "PROT_READ", 1)
_C_TYPE: Any = library.mmap.__mro__[-2]  # the class just above object, whoever stands before it


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call of `mmap.mmap` asks for, in bytes."""

    length: int
    anonymous: bool
    private: bool
    writable: bool


def wish(args: tuple[Any, ...], options: dict[str, Any]) -> Wish | None:
    """Read the arguments of `mmap.mmap`; None where they are wrong, which the real one says best, or not worth it."""
    names = ("fileno", "length", "flags", "prot", "access") if _SHARED else ("fileno", "length", "tagname", "access")
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **options}
    given = {"access": library.ACCESS_DEFAULT, "flags": _SHARED, "prot": _READ_WRITE, **given}
    used: list[Any] = [given.get(name) for name in ("fileno", "length", "access", "flags", "prot")]
    if not all(isinstance(one, int) for one in used) or given["length"] < 0:
        return None
    file, length, access, flags, protection = used
    anonymous = file == -1 or bool(flags & _ANONYMOUS)
    private = access == library.ACCESS_COPY or bool(flags & _PRIVATE)
    writable = access != library.ACCESS_READ and (access != library.ACCESS_DEFAULT or bool(protection & _WRITE))
    return Wish(length or _rest_of(file, given.get("offset", 0)), anonymous, private, writable)


def _rest_of(file: int, offset: int) -> int:
    """Length 0 means to the end of the file."""
    try:
        return max(0, os.fstat(file).st_size - offset)
    except (OSError, TypeError, OverflowError):
        return 0


class Mappings:
    """Stands before `mmap.mmap`, `SharedMemory` and `multiprocessing`'s arenas from install to uninstall."""

    def __init__(self) -> None:
        self._post = Post()
        self._patches: list[Patch] = []
        self._adapted: set[str] = set()

    def install(self, gate: Gate) -> None:
        """Idempotent. The two modules of `multiprocessing` are attended to by `adapt`, once they are loaded."""
        self._post.take(gate)
        if not self._patches:
            self._patches.append(Patch(library, "mmap", lambda before: _stand_in(self._post, before)))

    def uninstall(self) -> None:
        """Idempotent. Mappings that exist stay what they are, and are instances of `mmap.mmap` before and after."""
        self._post.leave()
        for patch in reversed(self._patches):
            patch.undo()
        self._patches.clear()
        self._adapted.clear()

    def adapt(self, module: ModuleType) -> None:
        """Attend to `multiprocessing.shared_memory` or `multiprocessing.heap`; idempotent."""
        owner, make = ADAPTED[module.__name__]
        if self._patches and module.__name__ not in self._adapted:
            self._adapted.add(module.__name__)
            self._patches.append(Patch(getattr(module, owner), "__init__", lambda before: make(self._post, before)))


class _Instances(type):
    """Whatever is a mapping of the C type is one of the class that stands before it: they are told apart by nobody."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return type.__instancecheck__(_real(cls), instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return type.__subclasscheck__(_real(cls), subclass)


def _real(cls: type) -> type:
    return _C_TYPE if "_stands_before" in vars(cls) else cls


def _stand_in(post: Post, before: Any) -> Any:
    """`mmap.mmap` cannot be changed, being of C; this class makes its instances, and looks at what they ask for."""

    def new(cls: Any, *args: Any, **options: Any) -> Any:
        gate = post.gate
        wanted = wish(args, options) if gate is not None else None
        if gate is None or wanted is None or not wanted.writable or wanted.length < _SMALL:
            return before.__new__(cls, *args, **options)
        if wanted.anonymous:
            _demand(gate, wanted.length, "an anonymous mapping")
        with gate.lifted() if wanted.private and not wanted.anonymous else nullcontext():
            return before.__new__(cls, *args, **options)

    def representation(self: Any) -> str:
        text: str = before.__repr__(self)
        return text.replace("<mmap ", "<mmap.mmap ", 1)

    body = {
        "__slots__": (), "__new__": new, "__repr__": representation, "__doc__": before.__doc__,
        "__module__": "mmap", "_stands_before": before,
    }  # fmt: skip
    return _Instances("mmap", (before,), body)


def _demand(gate: Gate, length: int, what: str) -> None:
    demand(gate, length, what, besides=promised(length), because="for shared memory made before and not used yet")


def _shared_memory(post: Post, before: Any) -> Any:
    def __init__(self: Any, name: Any = None, create: bool = False, size: int = 0, **options: Any) -> None:  # noqa: N807
        gate = post.gate
        if gate is not None and create and isinstance(size, int) and size >= _SMALL:
            _demand(gate, size, "shared memory")
            _fits_on(_FOLDER, size)
        before(self, name, create, size, **options)

    return __init__


def _arena(post: Post, before: Any) -> Any:
    def __init__(self: Any, size: int, *file: int) -> None:  # noqa: N807
        gate = post.gate
        if gate is not None and not file and size >= _SMALL:
            _demand(gate, size, "an array of multiprocessing")
            if hasattr(self, "_choose_dir") and self._choose_dir(size) == _FOLDER:
                _fits_on(_FOLDER, size)
        before(self, size, *file)

    return __init__


def _fits_on(folder: str, size: int) -> None:
    """Making the file takes nothing; touching a page that finds no room ends the process."""
    room = room_on(folder)
    if room is not None and size + promised(size) > room:
        raise MemoryGuardError(
            f"shared memory of {format_bytes(size)} does not fit on {folder}, where {format_bytes(room)} are left; "
            "touching it would kill the kernel. Unlink shared memory that is no longer used, or enlarge it"
        )


ADAPTED = {
    "multiprocessing.shared_memory": ("SharedMemory", _shared_memory),
    "multiprocessing.heap": ("Arena", _arena),
}
