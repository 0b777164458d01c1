"""pandas comes back equal, of every dtype, and copy-on-write still works between what shares memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from memkit.errors import SharedMemoryError
from memkit.lifecycle.store import Store
from tests.lifecycle.store.conftest import there_and_back

ROWS = 1000
NEW = int(pd.__version__.split(".")[0]) >= 3


@pytest.fixture(autouse=True)
def copy_on_write() -> Iterator[None]:
    """What pandas 3 always does, and pandas 2 where asked."""
    if NEW:
        yield
    else:
        with pd.option_context("mode.copy_on_write", True):
            yield


COLUMNS: dict[str, Any] = {
    "int": np.arange(ROWS),
    "int8": np.arange(ROWS, dtype="i1"),
    "float32": np.arange(ROWS, dtype="f4"),
    "bool": np.arange(ROWS) % 3 == 0,
    "object": pd.Series([1, "a", None, (1, 2)] * (ROWS // 4), dtype=object),
    "str": pd.Series([f"text {i}" if i % 7 else None for i in range(ROWS)], dtype="str"),
    "python_str": pd.Series([f"é{i}" for i in range(ROWS)], dtype=pd.StringDtype("python")),
    "arrow_str": pd.Series([f"é{i}" for i in range(ROWS)], dtype="string[pyarrow]"),
    "arrow_int": pd.Series(range(ROWS), dtype="int64[pyarrow]"),
    "category": pd.Categorical(["x", "y", None, "z"] * (ROWS // 4), ordered=True),
    "Int64": pd.Series([1, None] * (ROWS // 2), dtype="Int64"),
    "boolean": pd.Series([True, None] * (ROWS // 2), dtype="boolean"),
    "Float32": pd.Series([1.5, None] * (ROWS // 2), dtype="Float32"),
    "time": pd.date_range("2020-01-01", periods=ROWS, freq="h"),
    "zoned": pd.date_range("2020-01-01", periods=ROWS, freq="h", tz="Europe/Vienna"),
    "delta": pd.timedelta_range("1s", periods=ROWS, freq="s"),
    "period": pd.period_range("2000-01", periods=ROWS, freq="M"),
    "interval": pd.interval_range(0, ROWS),
    "sparse": pd.arrays.SparseArray(np.arange(ROWS) % 50 == 0),
    "complex": np.arange(ROWS) * 1j,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_dtype(store: Store, name: str) -> None:
    frame = pd.DataFrame({name: COLUMNS[name], "n": range(ROWS)}).copy(deep=True)
    series = pd.Series(COLUMNS[name], name=name).copy(deep=True)
    frames = there_and_back(store, frame=frame)["frame"]
    pd.testing.assert_frame_equal(frames, frame, check_freq=True)
    pd.testing.assert_series_equal(there_and_back(store, series=series)["series"], series, check_freq=True)
    frames.iloc[0, 1] = 5  # and it is a frame one can work with
    assert frames.iloc[0, 1] == 5


def test_everything_at_once_with_its_extras(store: Store) -> None:
    frame = pd.DataFrame(COLUMNS).copy(deep=True)
    frame.attrs["origin"] = {"file": "a.csv"}
    frame.flags.allows_duplicate_labels = False
    again = there_and_back(store, frame=frame)["frame"]
    pd.testing.assert_frame_equal(again, frame)
    assert again.attrs == frame.attrs
    assert again.flags == frame.flags


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_numbers_go_out_of_band_in_both_orders(store: Store, order: Any) -> None:
    frame = pd.DataFrame(np.array(np.random.default_rng(0).random((50_000, 10)), order=order))
    stored = store.spill({"frame": frame})
    assert stored.mapped
    pd.testing.assert_frame_equal(store.load(stored)["frame"], frame)


@pytest.mark.parametrize("dtype", ["str", "string[pyarrow]"] if NEW else ["string[pyarrow]"])
def test_arrow_strings_go_out_of_band(store: Store, dtype: str) -> None:
    rng = np.random.default_rng(0)
    series = pd.Series([rng.bytes(40).hex() for _ in range(20_000)], dtype=dtype)
    stored = store.spill({"series": series})
    assert sum(chunk.raw for chunk in stored.layout.chunks) > 0.9 * stored.raw_bytes
    pd.testing.assert_series_equal(store.load(stored)["series"], series)


def test_arrow_chunks_are_written_as_they_are(store: Store) -> None:
    """Never joined first, which would copy the column."""
    series = pd.concat([pd.Series([f"{i} {j}" for i in range(20_000)], dtype="string[pyarrow]") for j in range(4)])
    again = there_and_back(store, series=series)["series"]
    pd.testing.assert_series_equal(again, series)
    assert getattr(again.array._pa_array, "num_chunks", 1) == getattr(series.array._pa_array, "num_chunks", 1)


def test_arrow_columns_on_one_buffer_are_written_once(store: Store) -> None:
    frame = pd.DataFrame({"s": pd.Series([f"a longer text {i}" for i in range(50_000)], dtype="string[pyarrow]")})
    head = frame.copy(deep=False)
    alone = store.spill({"frame": frame, "head": head}, compress="never")
    assert alone.raw_bytes < 1.2 * frame.memory_usage(deep=True).sum()
    again = store.load(alone)
    pd.testing.assert_frame_equal(again["head"], head)


def test_indexes(store: Store) -> None:
    values = {
        "multi": pd.DataFrame(
            {"n": range(6)}, index=pd.MultiIndex.from_product([["a", "b"], range(3)], names=["x", "y"])
        ),
        "columns": pd.DataFrame(np.ones((3, 2)), columns=pd.Index([1.5, 2.5], name="f")),
        "times": pd.Series(range(5), index=pd.date_range("2020", periods=5, freq="D", name="t")),
        "range": pd.DataFrame({"n": range(5)}, index=pd.RangeIndex(10, 20, 2, name="r")),
        "categorical": pd.Series(range(3), index=pd.CategoricalIndex(["b", "a", "b"])),
    }
    again = there_and_back(store, values=values)["values"]
    for name, value in values.items():
        test = pd.testing.assert_frame_equal if isinstance(value, pd.DataFrame) else pd.testing.assert_series_equal
        test(again[name], value)
        assert again[name].index.equals(value.index)


def test_a_frame_that_was_worked_with_can_be_put_away(store: Store) -> None:
    """What pandas caches - index engines, groupings, rows looked at - is nobody else's."""
    frame = pd.DataFrame({"k": np.arange(50_000) % 7, "v": np.random.default_rng(0).random(50_000)})
    frame = frame.set_index("k", drop=False)
    frame.groupby(level=0).mean()
    frame.loc[3]
    frame.describe()
    frame.sort_values("v")
    repr(frame)
    stored = store.spill({"frame": frame})
    assert not stored.kept
    pd.testing.assert_frame_equal(store.load(stored)["frame"], frame)


def test_two_frames_with_one_index(store: Store) -> None:
    """One of them can be moved; the index stays, and is the same object afterwards."""
    index = pd.Index([f"row {i}" for i in range(2000)], dtype=object)
    one, two = pd.DataFrame({"a": np.ones(2000)}, index=index), pd.DataFrame({"b": np.zeros(2000)}, index=index)
    del index
    one["more"] = np.random.default_rng(0).random(2000)
    for i in range(40):
        one[f"c{i}"] = float(i)
    one = one.copy(deep=True).set_axis(two.index)
    again = there_and_back(store, one=one)["one"]
    assert again.index.is_(two.index)
    pd.testing.assert_frame_equal(again, one)


def test_a_column_held_elsewhere_keeps_the_frame(store: Store) -> None:
    frame = pd.DataFrame({"a": np.random.default_rng(0).random(50_000)})
    column = frame["a"]
    with pytest.raises(SharedMemoryError):
        store.spill({"frame": frame})
    del column
    store.discard(store.spill({"frame": frame}))


@pytest.mark.parametrize(
    "derive",
    [lambda f: f["a"], lambda f: f.copy(deep=False), lambda f: f.iloc[10:], lambda f: f[["a", "b"]], lambda f: f.T],
    ids=["column", "shallow copy", "slice", "columns", "transpose"],
)
def test_copy_on_write_still_works_between_members_of_a_group(store: Store, derive: Any) -> None:
    """Memory is shared again, and writing into one still does not change the other."""
    frame = pd.DataFrame({"a": np.arange(20_000.0), "b": np.arange(20_000.0)})
    other = derive(frame)
    again = there_and_back(store, frame=frame, other=other)
    before = other.copy(deep=True)
    again["frame"].iloc[15, 0] = -1
    again["frame"].loc[:, "b"] = -2.0
    assert (again["other"].to_numpy() == before.to_numpy()).all()
    assert again["frame"].iloc[15, 0] == -1


def test_copy_on_write_still_works_with_what_stayed(store: Store) -> None:
    """The column's memory stays because another frame has it; it must still be copied before it is changed."""
    frame = pd.DataFrame({"big": np.random.default_rng(0).random(50_000)})
    frame["text"] = [f"row {i}" for i in range(50_000)]
    frame["small"] = np.arange(50_000, dtype="i1")
    kept = frame["small"]
    again = there_and_back(store, frame=frame)["frame"]
    again.loc[3, "small"] = 77
    assert kept.iloc[3] == 3
    assert np.shares_memory(again["small"].to_numpy(), kept.to_numpy()) is False


def test_an_index_made_of_a_column(store: Store) -> None:
    series = pd.Series(np.arange(20_000))
    index = pd.Index(series, copy=False)
    again = there_and_back(store, series=series, index=index)
    again["series"].iloc[0] = -1
    assert again["index"][0] == 0


def test_an_array_shown_by_a_frame_stays_shared(store: Store) -> None:
    array = np.random.default_rng(0).random((20_000, 3))
    frame = pd.DataFrame(array, copy=False)
    with pytest.raises(SharedMemoryError):
        store.spill({"frame": frame})
    again = there_and_back(store, array=array, frame=frame)
    assert np.shares_memory(again["array"], again["frame"].to_numpy())


def test_a_column_of_objects_with_one_list_held_elsewhere(store: Store) -> None:
    """A column of texts is taken for granted only where it holds nothing else."""
    held = ["mine"]
    frame = pd.DataFrame({"o": pd.Series([f"text {i}" for i in range(5000)], dtype=object)})
    frame.at[77, "o"] = held
    frame["text"] = pd.Series([None, "x" * 100_000, *["y"] * 4998], dtype=object)
    again = there_and_back(store, frame=frame)["frame"]
    pd.testing.assert_frame_equal(again, frame)
    assert again.at[77, "o"] is held
