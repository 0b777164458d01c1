"""What a rescue has saved: names, types, sizes, places, checksums and reasons, as JSON beside the values' files."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from memkit.errors import RescueError
from memkit.lifecycle.rescue.journal import Doing
from memkit.lifecycle.store.stored import Block, Chunk, Layout

VERSION = 1
NAME = "manifest.json"
Kind = Literal["values", "recipe"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file with one value, or a group that shares memory; `layout` is the checksum of the file's description."""

    names: tuple[str, ...]
    kind: Kind
    file: str
    head: str
    raw: int
    stored: int
    mapped: bool
    layout: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A variable that could not be saved, and why."""

    name: str
    type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Kept:
    """How a name was tracked in the dead kernel: `ttl` in seconds, None = never; `demoted` as it was then."""

    type: str
    ttl: float | None
    priority: int
    hold: str
    size: int
    tags: tuple[str, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Times are seconds since the epoch, sizes bytes; `peak` is the highest usage of the
    kernel's memory group, where that is limited."""

    pid: int
    taken: float
    died: float
    provisional: bool = False
    cause: str = ""
    doing: Doing = field(default_factory=Doing)
    peak: int | None = None
    total: int = 0
    entries: tuple[Entry, ...] = ()
    lost: tuple[Lost, ...] = ()
    pending: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, Kept] = field(default_factory=dict)
    complete: bool = False
    python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)
    version: int = VERSION

    @property
    def saved(self) -> tuple[str, ...]:
        """The names of all variables that are on disk."""
        return tuple(name for entry in self.entries if entry.kind == "values" for name in entry.names)

    @property
    def bytes(self) -> int:
        return sum(entry.raw for entry in self.entries)


def checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def write_private(path: Path, data: bytes) -> None:
    """Replace a file that only its owner can read, in one step."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, its checksum in front; raises OSError."""
    data = json.dumps(asdict(manifest)).encode()
    write_private(folder / NAME, checksum(data).encode() + b"\n" + data)


def read(folder: Path) -> Manifest:
    """The manifest in a folder; raises RescueError where it is another user's, damaged, or of another version."""
    try:
        sum_, _, data = _private_bytes(folder / NAME).partition(b"\n")
    except OSError as error:
        raise RescueError(f"{folder}: what was rescued there cannot be read: {error}") from error
    if checksum(data).encode() != sum_:
        raise RescueError(f"{folder}: its manifest is damaged; nothing of it is used")
    content = json.loads(data)
    if content.get("version") != VERSION:
        raise RescueError(f"{folder}: written by another version of memkit ({content.get('version')}, not {VERSION})")
    if tuple(content["python"]) != sys.version_info[:2]:
        raise RescueError(f"{folder}: written by Python {'.'.join(map(str, content['python']))}; start a kernel of it")
    return _manifest(content)


def _private_bytes(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
            raise RescueError(f"{path} is not private to you (owner, or mode not 0600); nothing of it is used")
        return file.read()


def _manifest(content: dict[str, Any]) -> Manifest:
    known = {f.name for f in fields(Manifest)}
    given = {key: value for key, value in content.items() if key in known}
    given["doing"] = Doing(**given["doing"])
    given["entries"] = tuple(Entry(**{**e, "names": tuple(e["names"])}) for e in given["entries"])
    given["lost"] = tuple(Lost(**one) for one in given["lost"])
    given["pending"] = tuple(given["pending"])
    given["python"] = tuple(given["python"])
    given["kept"] = {name: Kept(**{**k, "tags": tuple(k["tags"])}) for name, k in given["kept"].items()}
    return Manifest(**given)


# -- where everything is in a value's file -----------------------------------------------------------------------------


def write_layout(path: Path, layout: Layout) -> str:
    """Describe a value's file beside it; answers the description's checksum."""
    content = {
        "stream": [_plain(block) for block in layout.stream],
        "chunks": [[chunk.raw, [_plain(block) for block in chunk.blocks]] for chunk in layout.chunks],
        "foreign": list(layout.foreign),
    }
    data = json.dumps(content).encode()
    write_private(path, data)
    return checksum(data)


def read_layout(path: Path, expected: str) -> Layout:
    """Raises RescueError where the description is not the one that was written."""
    try:
        data = _private_bytes(path)
    except OSError as error:
        raise RescueError(f"{path} cannot be read: {error}") from error
    if checksum(data) != expected:
        raise RescueError(f"{path} is damaged; the value it describes is not used")
    content = json.loads(data)
    return Layout(
        tuple(_block(one) for one in content["stream"]),
        tuple(Chunk(tuple(_block(one) for one in blocks), raw) for raw, blocks in content["chunks"]),
        tuple(content["foreign"]),
    )


def _plain(block: Block) -> list[Any]:
    return [block.offset, block.stored, block.raw, block.packed, block.digests.hex()]


def _block(plain: list[Any]) -> Block:
    return Block(plain[0], plain[1], plain[2], plain[3], bytes.fromhex(plain[4]))
