"""numpy arrays come back as they were: values, dtype, order, strides, flags, and what shares memory with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memkit.errors import DemotionError, SharedMemoryError
from memkit.lifecycle.store import Store
from tests.lifecycle.store.conftest import there_and_back

PLAIN = st.one_of(
    hnp.scalar_dtypes(),
    hnp.array_dtypes(allow_subarrays=True),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    st.sampled_from([np.dtype(">i4"), np.dtype("<f2"), np.dtype([("a", "i1"), ("b", ">f8")], align=True)]),
)


def contents(array: Any) -> Any:
    """The bytes of every field; those between fields are not copied by numpy either."""
    if array.dtype.names is None:
        return array.tobytes()
    return [contents(array[name]) for name in array.dtype.names]


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    assert a.dtype == b.dtype
    assert a.dtype.isalignedstruct == b.dtype.isalignedstruct
    assert a.dtype.byteorder == b.dtype.byteorder
    assert a.shape == b.shape
    flags = ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED")
    assert [a.flags[f] for f in flags] == [b.flags[f] for f in flags]
    assert [s for s, n in zip(a.strides, a.shape, strict=True) if n > 1 and a.size] == [
        s for s, n in zip(b.strides, b.shape, strict=True) if n > 1 and b.size
    ]
    if a.dtype.hasobject:
        assert a.tolist() == b.tolist()
    else:
        assert contents(a) == contents(b)


@st.composite
def arrays(draw: Any) -> Any:
    """An array of any plain dtype, in any order, then cut, turned around or made read-only."""
    array = draw(hnp.arrays(draw(PLAIN), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)))
    array = np.array(array, order=draw(st.sampled_from("CF")))
    if array.ndim and draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    if draw(st.booleans()):
        array = array.copy(order="K")
    if array.ndim and draw(st.booleans()):
        array = array[draw(hnp.basic_indices(array.shape, allow_newaxis=True))]
    if isinstance(array, np.ndarray) and draw(st.booleans()):
        array.flags.writeable = False
    return array


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_array_comes_back_the_same(store: Store, data: Any) -> None:
    """Whatever the dtype, shape, order, slicing and read-only flag."""
    box = [data.draw(arrays())]
    stored = store.spill({"box": box}, exempt_refs={"box": 99})
    again = store.load(stored)["box"]
    store.discard(stored)
    if isinstance(box[0], np.ndarray):
        same(box[0], again[0])
    else:
        assert contents(box[0]) == contents(again[0])


@pytest.mark.parametrize("size", [1000, 100_000, 3_000_000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_way_of_resting_is_exact(store: Store, size: int, order: str) -> None:
    """In the stream, as a chunk that is read, and as a chunk that is mapped."""
    array = np.array(np.random.default_rng(0).random(size // 8).reshape(5, -1), order=order)
    same(array, there_and_back(store, array=array)["array"])


@pytest.mark.parametrize("compress", ["auto", "always", "never"])
def test_compression_changes_nothing(store: Store, compress: Any) -> None:
    rng = np.random.default_rng(0)
    for array in (rng.random(400_000), rng.integers(0, 9, 400_000), np.zeros(400_000), np.ones(400_001)):
        stored = store.spill({"array": array}, compress=compress, exempt_refs={"array": 9})
        same(array, store.load(stored)["array"])
        store.discard(stored)


def test_zeros_take_no_room_on_disk(store: Store) -> None:
    stored = store.spill({"array": np.zeros(4_000_000)})
    assert stored.path is not None
    assert stored.path.stat().st_blocks * 512 < 1_000_000
    assert stored.mapped


def test_times_structures_and_objects(store: Store) -> None:
    values = {
        "times": np.arange("2020-01-01", "2020-06-01", dtype="M8[h]"),
        "spans": np.arange(10_000).astype("m8[ms]"),
        "records": np.zeros(50_000, dtype=[("name", "U5"), ("xyz", "f4", (3,)), ("when", "M8[s]")]),
        "objects": np.array([1, "a", None, (2, 3), [4], {"k": 5}, np.array(6), np.arange(3)], dtype=object),
        "grid": np.array([["a", 1], [None, 2.5]], dtype=object, order="F"),
        "zero_d": np.array(5.5),
        "zero_d_object": np.array(None, dtype=object),
        "empty": np.empty((0, 3), "f4"),
    }
    again = there_and_back(store, values=values)["values"]
    for name in ("times", "spans", "records", "grid", "zero_d", "zero_d_object", "empty"):
        same(values[name], again[name])
    for before, after in zip(values["objects"], again["objects"], strict=True):
        assert type(before) is type(after)
        np.testing.assert_array_equal(np.asarray(before, object), np.asarray(after, object))


def test_structures_that_hold_objects(store: Store) -> None:
    array = np.array([(1, "a"), (2, None)], dtype=[("n", "i4"), ("o", "O")])
    same(array, there_and_back(store, array=array)["array"])


def test_views_share_their_owner_again(store: Store) -> None:
    """Two views of one array, put away together, show the same memory afterwards; so do column and transpose."""
    owner = np.arange(600_000.0).reshape(1000, 600)
    left, right = owner[:, ::2], owner.T[5:50]
    again = there_and_back(store, owner=owner, left=left, right=right)
    same(left, again["left"])
    same(right, again["right"])
    again["owner"][10, 6] = -1
    assert again["left"][10, 3] == -1
    assert again["right"][1, 10] == -1


def test_views_without_their_owner_share_it_again(store: Store) -> None:
    left, right = (lambda owner: (owner[:100], owner[50:]))(np.arange(200_000.0))
    again = there_and_back(store, left=left, right=right)
    again["right"][0] = -1
    assert again["left"][50] == -1


def test_views_of_object_arrays_share(store: Store) -> None:
    owner = np.array([[i, str(i)] for i in range(100)], dtype=object)
    view = owner[::3, 1]
    again = there_and_back(store, owner=owner, view=view)
    same(view, again["view"])
    again["owner"][3, 1] = "new"
    assert again["view"][1] == "new"


def test_read_only_views_and_owners(store: Store) -> None:
    """Which of owner and view may be written is kept, even where the view may and the owner may not."""
    owner = np.arange(100_000.0)
    view, fixed = owner[5:], owner[:5]
    owner.flags.writeable = False
    fixed.flags.writeable = False
    again = there_and_back(store, owner=owner, view=view, fixed=fixed)
    assert [again[n].flags.writeable for n in ("owner", "view", "fixed")] == [False, True, False]
    again["view"][0] = -1
    assert again["owner"][5] == -1


def test_arrays_on_bytes_and_bytearrays(store: Store) -> None:
    raw = bytearray(range(256)) * 10
    array, fixed = np.frombuffer(raw, "i2")[3:], np.frombuffer(bytes(raw), "u1")
    again = there_and_back(store, raw=raw, array=array, fixed=fixed)
    same(array, again["array"])
    same(fixed, again["fixed"])
    again["raw"][6:8] = b"\xff\xff"
    assert again["array"][0] == -1


def test_masked_arrays_and_subclasses(store: Store) -> None:
    masked = np.ma.masked_less(np.arange(100_000.0), 50)
    masked.fill_value = -7
    hard = np.ma.array([1, 2, 3], mask=[0, 1, 0], hard_mask=True)
    matrix = np.array([[1, 2], [3, 4]]).view(np.matrix)
    again = there_and_back(
        store, masked=masked, hard=hard, matrix=matrix, records=np.rec.array([(1, 2.0)], names="a,b")
    )
    assert type(again["masked"]) is np.ma.MaskedArray
    assert again["masked"].fill_value == -7
    np.testing.assert_array_equal(again["masked"].mask, masked.mask)
    np.testing.assert_array_equal(again["masked"].data, masked.data)
    assert again["hard"].hardmask
    assert again["hard"].mask.tolist() == [False, True, False]
    same(matrix, again["matrix"])
    assert again["records"].a[0] == 1


class Tagged(np.ndarray):
    """An array with an attribute."""

    tag: str


def test_a_subclass_keeps_its_attributes(store: Store) -> None:
    array = np.arange(100_000.0).view(Tagged)
    array.tag = "mine"
    again = there_and_back(store, array=array)["array"]
    same(array, again)
    assert again.tag == "mine"


def test_a_mapped_file_is_left_where_it_is(store: Store, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "data", dtype="f8", mode="w+", shape=(1000,))
    with pytest.raises(DemotionError, match="already on disk"):
        store.spill({"mapped": mapped})
    box = {"mapped": mapped, "own": np.arange(50_000.0)}
    assert there_and_back(store, box=box)["box"]["mapped"] is mapped


def test_small_arrays_own_their_memory_again(store: Store) -> None:
    again = there_and_back(store, array=np.arange(10))["array"]
    assert again.flags.owndata
    again.resize(20, refcheck=False)


def test_a_restored_array_can_be_changed_and_put_away_again(store: Store) -> None:
    """The file is never changed by it, and it needs neither file nor store any more."""
    stored = store.spill({"array": np.arange(500_000.0)})
    first, second = store.load(stored)["array"], store.load(stored)["array"]
    first[:] = -1
    assert second[7] == 7
    assert store.load(stored)["array"][7] == 7
    store.discard(stored)
    assert second[499_999] == 499_999
    del first
    stored = store.spill({"second": second})
    del second
    assert store.load(stored)["second"].sum() == np.arange(500_000.0).sum()


def test_half_of_a_group_held_elsewhere_is_refused(store: Store) -> None:
    array = np.arange(100_000.0)
    other = array
    with pytest.raises(SharedMemoryError):
        store.spill({"array": array})
    del other
