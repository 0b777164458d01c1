"""Compressed in memory: exact, refused where it does not pay, and moved to disk as it is."""

from __future__ import annotations

import numpy as np
import pytest

from memkit.errors import CorruptedError, DemotionError, NotWorthwhileError, SharedMemoryError
from memkit.lifecycle.store import Cancelled, Store

ROWS = [{"id": i, "kind": f"kind {i % 10}"} for i in range(2)]


def rows() -> list[dict[str, object]]:
    return [{"id": i, "kind": f"kind {i % 10}"} for i in range(20_000)]


def test_what_packs_well_takes_less(store: Store) -> None:
    values = {"rows": rows(), "numbers": np.arange(500_000) % 100}
    stored = store.pack(values)
    assert stored.tier == "compressed"
    assert stored.path is None
    assert stored.stored_bytes == store.bytes_compressed < 0.2 * stored.freed_bytes
    assert store.bytes_on_disk == 0
    again = store.load(stored)
    assert again["rows"] == values["rows"]
    np.testing.assert_array_equal(again["numbers"], values["numbers"])  # type: ignore[call-overload]
    store.discard(stored)
    assert store.bytes_compressed == 0
    with pytest.raises(CorruptedError, match="rows, numbers"):
        store.load(stored)


def test_noise_is_given_up_from_a_sample(store: Store) -> None:
    noise = np.random.default_rng(0).random(2_000_000)
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return False

    with pytest.raises(NotWorthwhileError, match="noise"):
        store.pack({"noise": noise}, cancelled=cancelled)
    assert asked <= 4  # nothing of it was packed
    assert store.bytes_compressed == 0


def test_the_least_saving_is_the_callers(store: Store) -> None:
    half = np.random.default_rng(0).integers(0, 2**16, 500_000).astype("i4")
    store.discard(store.pack({"half": half}))
    with pytest.raises(NotWorthwhileError):
        store.pack({"half": half}, minimum_saving=0.8)


def test_small_buffers_that_do_not_pack_are_noticed_at_the_end(store: Store) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(NotWorthwhileError):
        store.pack({"many": [rng.bytes(2000) for _ in range(500)]})
    assert store.bytes_compressed == 0


def test_held_elsewhere_and_cancelled(store: Store) -> None:
    value = rows()
    other = value
    with pytest.raises(SharedMemoryError):
        store.pack({"value": value})
    del other
    with pytest.raises(Cancelled):
        store.pack({"value": value}, cancelled=lambda: True)
    assert store.bytes_compressed == 0


def test_it_moves_to_disk_without_being_unpacked(store: Store) -> None:
    values = {"rows": rows(), "numbers": np.arange(500_000) % 100}
    kept: list[object] = [1]
    values["rows"][0]["kept"] = kept  # type: ignore[index]
    stored = store.pack(values)
    moved = store.move_to_disk(stored)
    assert moved.tier == "disk"
    assert store.bytes_compressed == 0
    assert moved.stored_bytes <= store.bytes_on_disk < 1.01 * moved.stored_bytes + 100
    again = store.load(moved)
    assert again["rows"] == values["rows"]
    assert again["rows"][0]["kept"] is kept  # type: ignore[index]
    np.testing.assert_array_equal(again["numbers"], values["numbers"])  # type: ignore[call-overload]
    store.discard(moved)
    assert store.bytes_on_disk == 0


def test_a_move_that_fails_leaves_it_packed(store: Store) -> None:
    stored = store.pack({"rows": rows()})
    with pytest.raises(Cancelled):
        store.move_to_disk(stored, cancelled=lambda: True)
    assert store.bytes_on_disk == 0
    assert len(store.load(stored)["rows"]) == 20_000  # type: ignore[arg-type]


def test_a_closed_store_takes_nothing(store: Store) -> None:
    store.close()
    store.close()
    for demote in (store.pack, store.spill):
        with pytest.raises(DemotionError, match="closed"):
            demote({"rows": rows()})


def test_damage_in_memory_is_noticed(store: Store) -> None:
    stored = store.pack({"rows": rows()})
    block = store._packed[stored.key][0]
    store._packed[stored.key][0] = block[:100] + bytes([block[100] ^ 1]) + block[101:]
    with pytest.raises(CorruptedError, match="rows"):
        store.load(stored)
