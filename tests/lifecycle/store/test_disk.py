"""Whatever goes wrong on the disk or on the way there, the value is still somewhere, and nothing is left lying."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memkit.errors import CorruptedError, DemotionError, StoreFullError
from memkit.lifecycle.store import Cancelled, Store, Stored
from memkit.lifecycle.store import disk as disk_module


def value() -> dict[str, Any]:
    """Something of every way of resting: in the stream, read, mapped, packed."""
    rng = np.random.default_rng(0)
    return {
        "array": rng.random(400_000),
        "small": rng.random(20_000),
        "ones": np.ones(500_000),
        "rows": [{"n": i, "text": f"row {i}"} for i in range(100_000)],
    }


def assert_empty(store: Store) -> None:
    assert store.bytes_on_disk == 0
    if store.directory is not None:
        assert {path.name for path in store.directory.iterdir()} == {"lock"}


def blocks_of(stored: Stored) -> Iterator[Any]:
    yield from stored.layout.stream
    for chunk in stored.layout.chunks:
        yield from chunk.blocks


def test_every_changed_byte_is_noticed(store: Store) -> None:
    """In the header and at the start, middle and end of every block; the file is kept, and once whole is read."""
    stored = store.spill({"value": value()})
    assert stored.path is not None
    places = [0, 10] + [b.offset + o for b in blocks_of(stored) for o in (0, b.stored // 2, b.stored - 1)]
    for place in places:
        with stored.path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 0x40]))
        with pytest.raises(CorruptedError, match="value"):
            store.load(stored)
        assert stored.path.exists()
        with stored.path.open("r+b") as file:
            file.seek(place)
            file.write(byte)
    assert len(store.load(stored)["value"]) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [0, 5, 0.5, -1])
def test_a_truncated_file_is_noticed(store: Store, keep: float) -> None:
    stored = store.spill({"value": value()})
    assert stored.path is not None
    size = stored.path.stat().st_size
    os.truncate(stored.path, int(size * keep) if 0 < keep < 1 else size - 1 if keep < 0 else int(keep))
    with pytest.raises(CorruptedError, match="value cannot be restored"):
        store.load(stored)


def test_a_missing_file_is_noticed_and_names_the_value(store: Store) -> None:
    stored = store.spill({"a": value(), "b": [1]})
    assert stored.path is not None
    stored.path.unlink()
    with pytest.raises(CorruptedError, match="a, b cannot be restored"):
        store.load(stored)


def test_another_sessions_file_is_not_read(store: Store, tmp_path: Path) -> None:
    """Not even one that looks right in every other way."""
    other = Store(tmp_path)
    mine, theirs = store.spill({"value": value()}), other.spill({"value": value()})
    assert mine.path is not None
    assert theirs.path is not None
    shutil.copy(theirs.path, mine.path)
    with pytest.raises(CorruptedError, match="not written by this session"):
        store.load(mine)
    other.close()


def test_the_file_is_private(store: Store) -> None:
    stored = store.spill({"value": value()})
    assert stored.path is not None
    assert stored.path.stat().st_mode & 0o777 == 0o600
    assert stored.path.parent.stat().st_mode & 0o777 == 0o700
    assert stored.path.parent.parent.stat().st_mode & 0o777 == 0o700


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str, fail_at: int, error: BaseException) -> list[int]:
    """Have the n-th call of a function of `os` fail."""
    real: Callable[..., Any] = getattr(os, name)
    calls = [0]

    def call(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == fail_at:
            raise type(error)(*error.args)  # a new one: that holds nobody's frames
        return real(*args)

    monkeypatch.setattr(os, name, call)
    if name == "fdatasync":
        monkeypatch.setattr(disk_module, "_SYNC", call)
    return calls


POINTS = [("chmod", 1), ("pwrite", 1), ("pwrite", 2), ("pwrite", 5), ("ftruncate", 1), ("fdatasync", 1), ("replace", 1)]


@pytest.mark.parametrize(("name", "at"), POINTS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_an_error_at_any_point_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, at: int, code: int
) -> None:
    """A full disk says so, in bytes; anything else names the folder and the setting."""
    store.discard(store.spill({"first": [1]}))  # the folder is there
    held = value()
    with monkeypatch.context() as patch:
        count_calls(patch, name, at, OSError(code, os.strerror(code)))
        full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        with pytest.raises(StoreFullError if full else DemotionError, match=r"store\.directory") as caught:
            store.spill({"held": held})
    assert str(store.directory) in str(caught.value)
    if full:
        assert "needed" in str(caught.value)
        assert "free" in str(caught.value)
    del caught
    assert_empty(store)
    again: Any = store.load(store.spill({"held": held}))["held"]
    np.testing.assert_array_equal(again["array"], held["array"])


@pytest.mark.parametrize(("name", "at"), POINTS)
def test_an_interrupt_at_any_point_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    store.discard(store.spill({"first": [1]}))
    held = value()
    with monkeypatch.context() as patch:
        count_calls(patch, name, at, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            store.spill({"held": held})
    assert_empty(store)
    store.discard(store.spill({"held": held}))


@pytest.mark.parametrize(("name", "at"), [("preadv", 1), ("preadv", 2), ("preadv", 4)])
def test_an_interrupted_restoration_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    stored = store.spill({"value": value()})
    with monkeypatch.context() as patch:
        count_calls(patch, name, at, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            store.load(stored)
    assert len(store.load(stored)["value"]) == 4  # type: ignore[arg-type]


def test_a_disk_that_cannot_be_read_is_damage_not_death(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store.spill({"value": value()})
    with monkeypatch.context() as patch:
        count_calls(patch, "preadv", 2, OSError(errno.EIO, "I/O error"))
        with pytest.raises(CorruptedError, match="value"):
            store.load(stored)


def test_mapped_buffers_are_checked_without_populate_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an older kernel and on other systems."""
    monkeypatch.setattr(disk_module, "populate", lambda *_: False)
    stored = store.spill({"value": value()})
    assert len(store.load(stored)["value"]) == 4  # type: ignore[arg-type]
    block = stored.layout.chunks[0].blocks[0]
    assert stored.path is not None
    with stored.path.open("r+b") as file:
        file.seek(block.offset + block.stored - 1)
        file.write(b"\x00")
    with pytest.raises(CorruptedError):
        store.load(stored)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelled_at_any_point(store: Store, after: int) -> None:
    held, asked = value(), [0]

    def cancelled() -> bool:
        asked[0] += 1
        return asked[0] > after

    with pytest.raises(Cancelled):
        store.spill({"held": held}, cancelled=cancelled)
    assert_empty(store)
    stored = store.spill({"held": held})
    asked[0] = 0
    with pytest.raises(Cancelled):
        store.load(stored, cancelled=cancelled)
    assert len(store.load(stored)["held"]) == 4  # type: ignore[arg-type]


def test_the_limit_that_was_set_is_held(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=5_000_000)
    first = store.spill({"first": np.random.default_rng(0).random(500_000)})
    with pytest.raises(StoreFullError, match=r"store\.max_bytes"):
        store.spill({"second": np.random.default_rng(0).random(500_000)})
    assert 4_000_000 <= store.bytes_on_disk <= 4_100_000
    store.discard(first)
    store.spill({"second": np.random.default_rng(0).random(500_000)})
    store.close()


def test_a_value_changed_while_it_is_written_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be restored is neither the old value nor the new."""
    array = np.random.default_rng(0).random(1_000_000)
    real = disk_module._write_at

    def write(fd: int, view: memoryview, offset: int) -> None:
        real(fd, view, offset)
        if len(view) == 2**20:
            array[:] = 0

    monkeypatch.setattr(disk_module, "_write_at", write)
    with pytest.raises(DemotionError, match="changed while"):
        store.spill({"array": array}, exempt_refs={"array": 5})
    assert_empty(store)


def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for base in (blocked, tmp_path / "missing"):
        with pytest.raises(DemotionError, match=r"store\.directory.*MEMKIT_STORE_DIR"):
            Store(base).spill({"a": [1]})
    if os.geteuid() != 0:
        read_only = tmp_path / "read-only"
        read_only.mkdir(mode=0o500)
        with pytest.raises(DemotionError, match=r"store\.directory"):
            Store(read_only).spill({"a": [1]})


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system, where that is allowed."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        place = tmp_path / f"mount{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(mount: Callable[[str], Path]) -> None:
    """Large buffers are refused before they are written, streams when the disk is full; what fits still goes."""
    store = Store(mount("size=8m"))
    rng = np.random.default_rng(0)
    array, texts = rng.random(2_000_000), [rng.bytes(3000) for _ in range(5000)]
    for values in ({"array": array}, {"texts": texts}):
        with pytest.raises(StoreFullError, match=r"about 1\d\.\d MiB needed, [\d.]+ .iB free"):
            store.spill(values, exempt_refs=dict.fromkeys(values, 2))
        assert_empty(store)
    store.discard(store.spill({"small": rng.random(500_000)}))
    store.close()


def test_a_disk_that_really_cannot_be_written(mount: Callable[[str], Path]) -> None:
    place = mount("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with pytest.raises(DemotionError, match="Read-only"):
        Store(place).spill({"a": [1]})
