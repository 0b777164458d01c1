"""Writing one variable after the other, in a process of its own: a value that hangs or crashes it costs only itself."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memkit.errors import MemkitError
from memkit.lifecycle.rescue.manifest import Entry, write_layout
from memkit.lifecycle.rescue.pickler import maker
from memkit.lifecycle.rescue.picture import NOBODY, Picture
from memkit.lifecycle.rescue.sharing import Sharing, grouped
from memkit.lifecycle.store import Stored, pickling
from memkit.lifecycle.store.accounts import Accounts
from memkit.lifecycle.store.disk import StoreFile
from memkit.lifecycle.store.stored import Layout
from memkit.lifecycle.store.writing import DiskChoice, Writer
from memkit.units import MIB

Emit = Callable[[Mapping[str, Any]], None]
_TICK = 0.5  # seconds between signs of life
_MOSTLY = 0.9


@dataclass(frozen=True, slots=True)
class Unit:
    """What goes into one file: values that share something, a stored form that is moved, or a recipe."""

    number: int
    names: tuple[str, ...]
    kind: str  # "values", "stored", "recipe"


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of a rescue, the mark its files begin with, and the most bytes they may take."""

    folder: Path
    token: bytes
    most: int


class Work:
    """Saves units and tells `emit` of each step; in a process that may be lost."""

    def __init__(self, picture: Picture, place: Place, emit: Emit) -> None:
        self._picture = picture
        self._place = place
        self._emit = emit
        self._accounts = Accounts(place.most, "guard.rescue_max_bytes")
        self._named = picture.named_code()
        self._told = 0.0
        self.lost: set[str] = set()  # names whose stored form could not be loaded

    def plan(self) -> list[Unit]:
        """Group what shares memory, the smallest first, and tell of it; what must be loaded for that, is."""
        picture = self._picture
        self.load_tied()
        sharing = Sharing(self._named, picture.source.stops, self._alive)
        groups, sizes = grouped(picture.values, sharing)
        groups.sort(key=lambda group: sum(sizes[name] for name in group))
        planned = units(picture, groups)
        self._emit({"plan": [(unit.number, unit.names, unit.kind) for unit in planned], "sizes": sizes})
        return planned

    def load_tied(self) -> None:
        """Load what is stored but tied to objects in memory: these do not outlive the kernel on their own."""
        for key, (stored, names) in [*self._picture.stored.items()]:
            if is_tied(stored):
                del self._picture.stored[key]
                self._load(stored, names)

    def _load(self, stored: Stored, names: list[str]) -> None:
        store = self._picture.source.store
        try:
            assert store is not None
            loaded = store.load(stored, cancelled=self._alive)
        except (MemkitError, MemoryError) as error:
            self.lost.update(names)
            self._emit({"lost": names, "reason": str(error)})
        else:
            self._picture.values.update({name: loaded[name] for name in names})

    def save(self, unit: Unit) -> None:
        """Save one unit, and tell how that went."""
        self._emit({"start": unit.number})
        try:
            entry = self._save(unit)
        except Exception as error:  # noqa: BLE001 - whatever comes out of a value's own pickling costs this value only
            self._emit({"failed": unit.number, "reason": self._why(unit, error)})
        else:
            self._emit({"done": unit.number, "entry": asdict(entry)})

    def _save(self, unit: Unit) -> Entry:
        if unit.kind == "stored":
            stored = next(s for s, names in self._picture.stored.values() if tuple(names) == unit.names)
            return self._move(unit, stored)
        source = self._picture.recipes if unit.kind == "recipe" else self._picture.values
        return self._pickle(unit, {name: source[name] for name in unit.names})

    def _file(self, unit: Unit, needed: int) -> StoreFile:
        return StoreFile(self._place.folder, self._place.token, unit.number, self._accounts, needed)

    def _pickle(self, unit: Unit, values: dict[str, Any]) -> Entry:
        source = self._picture.source
        with self._file(unit, 0) as file:
            writer = Writer(file, DiskChoice("auto"), self._alive)
            make = maker(self._named, frozenset(unit.names), source.globals, source.session)
            pickling.dump(values, writer, {}, make)
            # Waiting for the disk costs milliseconds for each; a dead kernel is no power failure.
            file.sync(wait=writer.stored_bytes >= MIB)
            file.commit()
        mapped = writer.mapped_bytes >= _MOSTLY * writer.raw_bytes
        size = (writer.raw_bytes, writer.stored_bytes)
        return self._entry(unit, file.path, file.head, writer.layout(), size, mapped)

    def _entry(self, unit: Unit, path: Path, head: bytes, layout: Layout, size: tuple[int, int], mapped: bool) -> Entry:
        described = write_layout(path.with_suffix(".layout"), layout)
        kind = "recipe" if unit.kind == "recipe" else "values"
        return Entry(unit.names, kind, path.name, head.hex(), *size, mapped, described)  # type: ignore[arg-type]

    def _move(self, unit: Unit, stored: Stored) -> Entry:
        """Take over a stored form as it is: its file by another name, or its compressed blocks."""
        size = (stored.raw_bytes, stored.stored_bytes)
        if stored.path is None:
            store = self._picture.source.store
            assert store is not None
            with self._file(unit, stored.stored_bytes) as file:
                layout = store.write_packed(stored, file, self._alive)
            return self._entry(unit, file.path, file.head, layout, size, False)
        path = self._place.folder / f"{unit.number}.values"
        try:
            os.link(stored.path, path)
        except OSError:  # another file system, or one without links
            self._accounts.claim(unit.number, stored.stored_bytes, path.parent, stored.stored_bytes)
            self._copy(stored.path, path)
        return self._entry(unit, path, stored.head, stored.layout, size, stored.mapped)

    def _copy(self, source: Path, target: Path) -> None:
        with open(source, "rb") as old, io.FileIO(target, "xb") as new:
            os.chmod(target, 0o600)
            while part := old.read(8 * MIB):
                self._alive()
                view = memoryview(part)
                while view:
                    view = view[new.write(view) :]

    def _alive(self) -> bool:
        """The store's `cancelled`, asked at every piece: never, and now and then a sign of life."""
        now = time.monotonic()
        if now - self._told > _TICK:
            self._told = now
            self._emit({"tick": 1})
        return False

    def _why(self, unit: Unit, error: Exception) -> str:
        """The reason in a few words, naming what a value is that belongs to its process."""
        values = self._picture.values
        if unit.kind == "values" and len(unit.names) == 1 and (word := plain_word(values.get(unit.names[0]))):
            return word
        text = str(error).removesuffix("; left in memory")
        return text if isinstance(error, MemkitError) else f"{type(error).__name__}: {text}"


def units(picture: Picture, groups: Iterable[tuple[str, ...]]) -> list[Unit]:
    """One unit for each group of values, each stored form that can be moved, and each recipe."""
    moved = [tuple(names) for stored, names in picture.stored.values() if not is_tied(stored)]
    work = [(names, "stored") for names in moved]
    work += [((name,), "recipe") for name in picture.recipes]
    work += [(names, "values") for names in groups]
    return [Unit(number, names, kind) for number, (names, kind) in enumerate(work, 1)]


def is_tied(stored: Stored) -> bool:
    """Whether the stored form refers to objects that stayed in the dead kernel's memory."""
    return bool(stored.kept) and stored.owner != NOBODY


def free_for(folder: Path, limit: int | None) -> int:
    """The most bytes a rescue may take: what is set, or half of what is free."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        free = 0
    return min(limit, free) if limit is not None else free // 2


_WORDS = (
    ("builtins", "memoryview", "memoryview"),
    ("io", "IOBase", "open file"),
    ("socket", "socket", "socket"),
    ("sqlite3", "Connection", "database connection"),
    ("sqlite3", "Cursor", "database cursor"),
    ("threading", "Thread", "thread"),
    ("types", "GeneratorType", "generator"),
    ("types", "CoroutineType", "coroutine"),
    ("types", "AsyncGeneratorType", "generator"),
    ("asyncio", "Future", "task of the event loop"),
    ("subprocess", "Popen", "running program"),
    ("multiprocessing.process", "BaseProcess", "running process"),
    ("multiprocessing.pool", "Pool", "pool of processes or threads"),
    ("concurrent.futures", "Executor", "pool of processes or threads"),
    ("weakref", "ref", "weak reference"),
)


def plain_word(value: object) -> str:
    """What a value is that cannot be saved because it belongs to its process; empty for any other."""
    for module, name, word in _WORDS:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(value, kind):
            return word
    if type(value).__module__ == "_thread":
        return "lock"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.device.type != "cpu":
        return f"tensor on {value.device}"
    return ""


def without(path: Path) -> None:
    """Remove what a lost writer left of a file."""
    for suffix in (".part", ".values", ".layout", ".layout.new"):
        with contextlib.suppress(OSError):
            os.unlink(path.with_suffix(suffix))
