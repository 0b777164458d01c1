"""What somebody else holds stays in memory and is the same object afterwards; sharing survives."""

from __future__ import annotations

import collections
import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

from memkit.errors import NotPicklableError, SharedMemoryError
from memkit.lifecycle.store import Cancelled, Store
from memkit.lifecycle.store.anchors import survey
from tests.lifecycle.store.conftest import there_and_back


def never() -> bool:
    return False


def test_a_value_with_another_name_is_refused(store: Store) -> None:
    """`b = a`: nothing would be freed. The error tells what is held, so that the holder can be named."""
    a = [list(range(10)) for _ in range(1000)]
    b = a
    with pytest.raises(SharedMemoryError, match=r"a: .* held elsewhere") as caught:
        store.spill({"a": a})
    assert caught.value.objects[0] is b  # type: ignore[attr-defined]
    del caught
    stored = store.spill({"a": a, "b": b})
    again = store.load(stored)
    assert again["a"] is again["b"]


def test_references_the_caller_answers_for_are_no_holders(store: Store) -> None:
    a = np.arange(100_000.0)
    cache = {"_1": a, "_": a}
    with pytest.raises(SharedMemoryError):
        store.spill({"a": a}, exempt_refs={"a": 2})
    store.discard(store.spill({"a": a}, exempt_refs={"a": 3}))
    cache.clear()
    store.discard(store.spill({"a": a}))


@pytest.mark.parametrize(
    "make",
    [
        lambda i: [i],
        lambda i: {"k": i},
        lambda i: {i},
        lambda i: bytearray(b"x" * (i + 1)),
        lambda i: collections.deque([i]),
        lambda i: collections.OrderedDict(k=i),
        lambda i: type("Own", (), {})(),
        lambda i: ([i], i),
        lambda i: np.arange(i + 10),
        lambda i: np.arange(i + 10)[3:],
        lambda i: np.array([[i], None], dtype=object),
        lambda i: bytes(100_000),
        lambda i: "x" * (100_000 + i),
    ],
)
@pytest.mark.parametrize("depth", [0, 2])
def test_a_part_held_elsewhere_is_the_same_object_afterwards(store: Store, make: Any, depth: int) -> None:
    rows: list[Any] = [make(i) for i in range(50)]
    box: Any = rows
    for _ in range(depth):
        box = {"inner": [box]}
    first = rows[7]
    filler = np.random.default_rng(0).random(300_000)
    value = {"box": box, "filler": filler}
    del rows, box, filler
    again: Any = there_and_back(store, value=value)["value"]["box"]
    for _ in range(depth):
        again = again["inner"][0]
    assert again[7] is first
    assert again[8] is not first


def test_what_hangs_from_a_kept_part_is_kept_too(store: Store) -> None:
    """An object reached both from a part that stays and from one that goes must not become two."""
    common = [1, 2, 3]
    outside = {"common": common}
    value = [outside, {"also": common}, list(range(50_000))]
    del common
    again: Any = there_and_back(store, value=value)["value"]
    assert again[0] is outside
    assert again[1]["also"] is outside["common"]


def test_chains_of_kept_parts(store: Store) -> None:
    last: list[Any] = []
    links = [last]
    for _ in range(4):
        links.append([links[-1]])
    outside = links[-1]
    value = [list(links), list(range(50_000))]
    del links, last
    again: Any = there_and_back(store, value=value)["value"]
    assert again[0][4] is outside
    assert again[0][3] is outside[0]
    assert again[0][0] is outside[0][0][0][0]


def test_immutable_values_are_no_anchors(store: Store) -> None:
    """Constants, interned names and types are everywhere; a copy of them is as good."""
    text, pair, number = "shared text", (1, "two"), 10**30
    value = [[text, pair, number, int, len, b"xy", 1.5] for _ in range(1000)]
    stored = store.spill({"value": value})
    assert not stored.kept
    assert store.load(stored)["value"] == value


def test_nothing_is_kept_of_a_value_that_is_nobody_elses(store: Store) -> None:
    class Node:
        def __init__(self, n: int) -> None:
            self.n, self.list, self.map = n, [n], {"n": [n]}

    def make() -> Any:
        nodes: list[Any] = [Node(i) for i in range(2000)]
        for node in nodes:
            node.next = nodes[(node.n * 7) % 2000]
        return {"nodes": nodes, "grid": np.arange(1000).reshape(10, 100), "rows": [[[i]] * 3 for i in range(1000)]}

    value = make()
    gc.collect()
    stored = store.spill({"value": value})
    assert all(isinstance(kept, type) for kept in stored.kept)  # the local class itself
    again: Any = store.load(stored)["value"]
    assert again["nodes"][3].next is again["nodes"][21]
    assert again["rows"][5][0] is again["rows"][5][2]


def test_more_than_half_held_elsewhere_is_refused(store: Store) -> None:
    big, small = np.random.default_rng(0).random(200_000), np.random.default_rng(0).random(100_000)
    with pytest.raises(SharedMemoryError):
        store.spill({"box": [big, small.copy()]})
    stored = store.spill({"box": [big.copy(), small]})
    assert stored.freed_bytes == pytest.approx(200_000 * 8, rel=0.01)


def test_a_view_or_its_owner_alone(store: Store) -> None:
    """While the one is in use, putting the other away would free nothing; together they go."""
    owner = np.random.default_rng(0).random(100_000)
    view = owner[::2]
    with pytest.raises(SharedMemoryError):
        store.spill({"owner": owner})
    with pytest.raises(SharedMemoryError):
        store.spill({"view": view})
    store.discard(store.spill({"owner": owner, "view": view}))
    del owner
    store.discard(store.spill({"view": view}))


def test_the_walk_takes_no_memory_in_proportion_to_the_graph() -> None:
    """Objects that have one owner need no entry anywhere."""
    value = [{"id": i, "tags": [str(i)]} for i in range(100_000)]
    tracemalloc.start()
    found = survey({"value": value}, {"value": 1}, never)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not found.kept
    assert peak < 2_000_000
    assert found.freed > 100_000 * 200


def test_the_walk_can_be_cancelled() -> None:
    value = [[i] for i in range(10_000)]
    with pytest.raises(Cancelled):
        survey({"value": value}, {}, lambda: True)


def test_a_failed_spill_holds_on_to_nothing(store: Store) -> None:
    """Once the error is gone, so is every reference that was taken."""
    value = [np.arange(1000), (i for i in range(3))]
    for _ in range(3):
        try:
            store.spill({"value": value})
        except NotPicklableError as error:
            assert "generator" in str(error)  # noqa: PT017
    del value[1]
    store.discard(store.spill({"value": value}))


def test_a_spilled_value_is_freed_when_its_name_goes(store: Store) -> None:
    """The store keeps no reference, not even through a cycle that only the collector would find."""

    class Watched(np.ndarray):
        gone = False

        def __del__(self) -> None:
            if self.base is None:
                Watched.gone = True

    value = Watched((100_000,))
    gc.disable()
    try:
        store.spill({"value": value})
        del value
        assert Watched.gone
    finally:
        gc.enable()
