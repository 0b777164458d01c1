"""Plain Python values come back equal, of the same types and with the same sharing; what cannot, stays and says so."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memkit.errors import CorruptedError, DemotionError, NotPicklableError
from memkit.lifecycle.store import Store
from tests.lifecycle.store.conftest import there_and_back

ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(),
    st.complex_numbers(allow_nan=False), st.datetimes(), st.timedeltas(),
    st.decimals(allow_nan=False), st.fractions(), st.uuids(),
)  # fmt: skip
HASHABLE = st.recursive(
    ATOMS, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)), max_leaves=5
)
NESTED = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(HASHABLE, max_size=4),
        st.builds(bytearray, st.binary()),
        st.builds(collections.deque, st.lists(inner, max_size=3)),
        st.builds(collections.OrderedDict, st.dictionaries(HASHABLE, inner, max_size=3)),
    ),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=NESTED)
def test_nested_data_comes_back_equal(store: Store, value: Any) -> None:
    box = [value]
    stored = store.spill({"box": box}, exempt_refs={"box": 99})
    again = store.load(stored)["box"]
    store.discard(stored)
    assert again == box
    assert repr(type(again[0])) == repr(type(value))


@dataclasses.dataclass
class Point:
    x: float
    children: list[Any] = dataclasses.field(default_factory=list)


class Slotted:
    __slots__ = ("a", "b")


class Colour(enum.Enum):
    RED = 1


Pair = collections.namedtuple("Pair", "a b")


def test_instances_of_classes(store: Store) -> None:
    slotted = Slotted()
    slotted.a, slotted.b = [1], "x"
    value = [
        Point(1.0, [Point(2.0)]),
        slotted,
        Colour.RED,
        Pair(1, [2]),
        fractions.Fraction(1, 3),
        decimal.Decimal("1.1"),
    ]
    value += [
        datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
        uuid.UUID(int=5),
        pathlib.PurePosixPath("/a"),
    ]
    again = there_and_back(store, value=value)["value"]
    assert again[0] == value[0]
    assert again[1].a == [1]
    assert again[2] is Colour.RED
    assert again[3:] == value[3:]


def test_cycles(store: Store) -> None:
    value: list[Any] = [1]
    value.append({"self": value})
    point = Point(1.0)
    point.children.append(point)
    again = there_and_back(store, value=value, point=point)
    assert again["value"][1]["self"] is again["value"]
    assert again["point"].children[0] is again["point"]


def test_a_group_keeps_what_it_shares(store: Store) -> None:
    common = {"k": [1, 2, 3]}
    a, b = [common, 1], [common, 2]
    del common
    again = there_and_back(store, a=a, b=b)
    assert again["a"][0] is again["b"][0]


def test_long_bytes_and_strings(store: Store) -> None:
    """Longer than pickle's frames and the stream's blocks."""
    value = {"bytes": b"\x00\x01\x02" * 3_000_000, "array": bytearray(b"xyz") * 2_000_000, "text": "aé☃" * 1_000_000}
    assert there_and_back(store, value=value)["value"] == value


def test_functions_and_classes_are_the_same_objects(store: Store) -> None:
    """A value returns to where it left: code of the notebook stays, lambdas and local classes too."""

    class Local:
        def __init__(self) -> None:
            self.n = 5

    def local() -> int:
        return 7

    value = [Local(), local, lambda: 8, Local, len, pathlib.Path, sys, threading.Thread]
    again = there_and_back(store, value=value)["value"]
    assert type(again[0]) is Local
    assert again[0].n == 5
    assert all(a is b for a, b in zip(again[1:], value[1:], strict=True))


def test_values_of_main_round_trip(tmp_path: Path) -> None:
    """Classes and functions of the notebook itself, also after a cell has defined the class anew."""
    code = """
import sys
from pathlib import Path
from memkit.lifecycle.store import Store
class A:
    def __init__(self): self.n = 1
def f(): return 2
x = {"a": A(), "f": f, "A": A, "list": list(range(1000))}
store = Store(Path(sys.argv[1]))
stored = store.spill({"x": x})
old = A
del x
class A: pass
y = store.load(stored)["x"]
assert type(y["a"]) is old is y["A"] and y["a"].n == 1 and y["f"]() == 2 and len(y["list"]) == 1000
store.close()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: {"a": [1, {"lock": threading.Lock()}]}, r"value\['a'\]\[1\]\['lock'\].*lock"),
        (lambda: Point(1.0, [(i for i in range(3))]), r"value\.children\[0\].*generator"),
        (lambda: [sys._getframe()], r"value\[0\].*frame"),
    ],
)
def test_what_cannot_be_pickled_is_named_and_nothing_is_left(store: Store, make: Any, path: str) -> None:
    with pytest.raises(NotPicklableError, match=path):
        store.spill({"value": make()})
    assert store.bytes_on_disk == 0
    assert store.directory is not None
    assert {p.name for p in store.directory.iterdir()} == {"lock"}


def test_an_open_file_cannot_be_written_but_one_held_elsewhere_is_kept(store: Store, tmp_path: Path) -> None:
    value: list[Any] = [(tmp_path / "f").open("w"), list(range(10_000))]
    with pytest.raises(NotPicklableError, match=r"value\[0\].*TextIOWrapper"):
        store.spill({"value": value})
    file = value[0]
    assert there_and_back(store, value=value)["value"][0] is file
    file.close()


class Hostile:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError(28, "no"), KeyError("k"), ZeroDivisionError(), AssertionError()]
)
def test_whatever_a_reduce_raises_is_a_demotion_error(store: Store, error: Exception) -> None:
    """Chained, so that its traceback is there."""
    with pytest.raises(DemotionError) as caught:
        store.spill({"value": [Hostile(error)]})
    assert caught.value.__cause__ is error
    assert store.bytes_on_disk == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), MemoryError()])
def test_interrupts_pass(store: Store, error: BaseException) -> None:
    with pytest.raises(type(error)):
        store.spill({"value": [Hostile(error)]})
    assert store.bytes_on_disk == 0


class Awkward(Exception):
    """Pickles, and cannot be unpickled: the classic."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("only one")


def test_what_could_be_written_but_never_read_stays(store: Store) -> None:
    """The only copy is never given up for one that does not come back."""
    for demote in (store.spill, lambda values: store.pack(values, minimum_saving=-99.0)):
        with pytest.raises(NotPicklableError, match="not read back"):
            demote({"value": [Awkward(1, 2), list(range(100))]})
    assert store.bytes_on_disk == store.bytes_compressed == 0


class Fickle:
    broken = False

    def __setstate__(self, state: Any) -> None:
        if self.broken:
            raise ValueError("not today")


def test_a_value_that_cannot_be_rebuilt_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    value = Fickle()
    value.x = 1  # type: ignore[attr-defined]
    stored = store.spill({"value": value})
    monkeypatch.setattr(Fickle, "broken", True)
    with pytest.raises(CorruptedError, match=r"value cannot be restored.*not today"):
        store.load(stored)
    monkeypatch.setattr(Fickle, "broken", False)
    assert type(store.load(stored)["value"]) is Fickle


def test_nesting_without_end_is_refused(store: Store) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    box = [value]
    del value
    with pytest.raises(NotPicklableError):
        store.spill({"box": box})


def test_sizes_are_told(store: Store) -> None:
    stored = store.spill({"value": [{"n": i, "s": f"text {i}"} for i in range(20_000)]})
    assert stored.tier == "disk"
    assert stored.names == ("value",)
    assert not stored.mapped
    assert stored.path is not None
    assert stored.stored_bytes <= stored.path.stat().st_size == store.bytes_on_disk
    assert 20_000 * 200 < stored.freed_bytes < 20_000 * 500
    store.discard(stored)
    store.discard(stored)
    assert store.bytes_on_disk == 0
