"""Who still holds a value: every kind of holder is found and named, and looking neither runs code nor holds on."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from memkit.lifecycle.referrers import holders_of


class Thing:
    """A value; made in `box`, so that no test function holds it."""


class Box:
    """Holds one value that the test itself must not have in a variable."""

    def __init__(self, make: Callable[[], Any] = Thing) -> None:
        self.value = make()

    def put(self, place: Callable[[Any], Any]) -> Any:
        return place(self.value)

    def holders(self, roots: dict[str, Any], ignore: Any = ()) -> tuple[str, ...]:
        found = holders_of(self.value, roots=roots, ignore=self.ignore(ignore), budget=5)
        assert not [text for text in found if "Box" in text]
        return found

    def ignore(self, more: Any) -> set[Any]:
        return {id(self), id(self.__dict__), *more}


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    yield made
    del made.value


class Model:
    def __init__(self, weights: Any) -> None:
        self.weights = weights


class Slotted:
    __slots__ = ("weights",)

    def __init__(self, weights: Any) -> None:
        self.weights = weights


def closure(value: Any) -> Callable[[], Any]:
    x = value
    return lambda: x


def default(value: Any) -> Callable[[], Any]:
    return eval("lambda a=value: a", {"value": value})  # its globals hold it, which are no notebook's


def keyword_default(value: Any) -> Callable[[], Any]:
    def f(*, a: Any = value) -> Any:
        return a

    return f


def function_attribute(value: Any) -> Callable[[], Any]:
    def f() -> None: ...

    f.last = value  # type: ignore[attr-defined]
    return f


def generator(value: Any) -> Iterator[Any]:
    def run(x: Any) -> Iterator[None]:
        yield
        print(x)

    made = run(value)
    next(made)
    return made


def coroutine(value: Any) -> Any:
    @types.coroutine
    def wait() -> Iterator[None]:
        yield

    async def run(x: Any) -> None:
        await wait()
        print(x)

    made = run(value)
    made.send(None)
    return made


def cls(value: Any) -> type:
    return type("Cls", (), {"cache": value, "__module__": "__main__"})


def bound_method(value: Any) -> Any:
    return types.MethodType(lambda self: None, value)


PLACES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "variable": (lambda v: v, "variable `a`"),
    "list": (lambda v: [0, 1, v], "`a[2]`"),
    "tuple": (lambda v: (v,), "`a[0]`"),
    "dict": (lambda v: {"frames": [0, 1, 2, v]}, "`a['frames'][3]`"),
    "dict by number": (lambda v: {3: v}, "`a[3]`"),
    "dict by tuple": (lambda v: {(1, "x"): v}, "`a[1, 'x']`"),
    "key of a dict": (lambda v: {v: 1}, "`a[a key]`"),
    "set": (lambda v: {v}, "the set `a`"),
    "deque": (lambda v: deque([v]), "`a[0]`"),
    "attribute": (Model, "`a.weights`"),
    "slot": (Slotted, "`a.weights`"),
    "nested attribute": (lambda v: Model({"layer": [v]}), "`a.weights['layer'][0]`"),
    "closure": (closure, "closure of `a` (variable x)"),
    "list in a closure": (lambda v: closure([v]), "closure of `a` (variable x), in it [0]"),
    "default": (default, "default argument of `a`"),
    "keyword default": (keyword_default, "default argument of `a`"),
    "function attribute": (function_attribute, "attribute `last` of function `a`"),
    "bound method": (bound_method, "`a.__self__`"),
    "partial": (lambda v: functools.partial(print, v), "`a.args[0]`"),
    "partial keyword": (lambda v: functools.partial(print, end=v), "`a.keywords['end']`"),
    "class attribute": (cls, "class attribute `Cls.cache`"),
    "class of an instance": (lambda v: cls(v)(), "class attribute `Cls.cache`"),
    "object array": (lambda v: np.array([None, v], dtype=object), "`a[1]`"),
    "object matrix": (lambda v: np.array([[None, v]], dtype=object), "`a.flat[1]`"),
    "mapping proxy": (lambda v: types.MappingProxyType({"x": v}), "`a` holds it inside"),
    "function in a list": (lambda v: [closure(v)], "closure of `a[0]` (variable x)"),
}


@pytest.mark.parametrize(("place", "expected"), PLACES.values(), ids=PLACES.keys())
def test_a_holder_in_the_notebook_is_named(box: Box, place: Callable[[Any], Any], expected: str) -> None:
    assert expected in box.holders({"other": [1, 2, 3], "a": box.put(place)})


HELD_ONCE = {name: case for name, case in PLACES.items() if name != "default"}  # that one's globals hold it too


@pytest.mark.parametrize(("place", "expected"), HELD_ONCE.values(), ids=HELD_ONCE.keys())
def test_it_is_named_once_and_the_place_of_its_name_does_not_matter(
    box: Box, place: Callable[[Any], Any], expected: str
) -> None:
    assert box.holders({"a": box.put(place)}) == (expected,)


def test_a_suspended_generator_is_named_with_its_line(box: Box) -> None:
    roots = {"gen": box.put(generator)}
    line = generator.__code__.co_firstlineno + 2
    assert box.holders(roots) == (f"a frame of `run` at line {line} (generator `gen`)",)


def test_a_suspended_coroutine_is_named(box: Box) -> None:
    made = box.put(coroutine)
    (found,) = box.holders({"task": made})
    assert found.startswith("a frame of `run` at line ")
    made.close()


def test_without_holders_there_is_nothing_to_name(box: Box) -> None:
    assert box.holders({"a": [1, 2], "b": {"c": Thing()}}) == ()


def test_the_shortest_way_to_a_holder_is_told(box: Box) -> None:
    inner = box.put(lambda v: [v])
    assert box.holders({"far": {"x": {"y": inner}}, "near": inner}) == ("`near[0]`",)


def test_several_holders_are_all_named(box: Box) -> None:
    roots = {"b": box.value, "cache": box.put(lambda v: {"x": v}), "f": box.put(closure)}
    assert set(box.holders(roots)) == {"variable `b`", "`cache['x']`", "closure of `f` (variable x)"}


def test_after_eight_the_rest_is_counted(box: Box) -> None:
    found = box.holders({f"name{i}": box.put(lambda v: [v]) for i in range(11)})
    assert len(found) == 9
    assert found[-1] == "and 3 more"


def test_names_and_ids_can_be_ignored(box: Box) -> None:
    held = box.put(lambda v: [v])
    roots = {"a": box.value, "b": held, "c": (held,)}
    assert box.holders(roots, ignore={"a", id(held)}) == ()


def test_a_module_of_the_user_is_named(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    helpers = types.ModuleType("helpers_of_the_user")
    helpers.__file__ = str(tmp_path / "helpers_of_the_user.py")
    monkeypatch.setitem(sys.modules, "helpers_of_the_user", helpers)
    helpers.cache = box.put(lambda v: {"x": [v]})  # type: ignore[attr-defined]
    assert box.holders({}) == ("module `helpers_of_the_user`.cache['x'][0]",)


def test_a_module_of_a_library_is_named(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functools, "kept_here", box.value, raising=False)
    assert box.holders({}) == ("module `functools`.kept_here",)


def test_an_object_in_a_module_of_a_library_is_named(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functools, "kept_here", box.put(lambda v: {"x": [v]}), raising=False)
    assert box.holders({}) == ("module `functools`.kept_here['x'][0]",)


def test_a_holder_without_any_name_is_told_by_its_type(box: Box) -> None:
    class Odd:
        def __init__(self, held: Any) -> None:
            self.held = held
            self.me = self

    gc.disable()
    try:
        box.put(Odd)
        (found,) = box.holders({})
    finally:
        gc.enable()
    assert found in ("an object of type Odd (reached through gc)", "an object of type dict (reached through gc)")
    gc.collect()
    assert box.holders({}) == ()


def test_a_variable_of_a_running_function_is_named(box: Box) -> None:
    def work() -> tuple[str, ...]:
        mine = box.value
        return box.holders({"unused": mine is None})

    line = work.__code__.co_firstlineno + 2
    assert box_frames(work()) == [f"a frame of `work` at line {line} (variable mine)"]


def box_frames(found: tuple[str, ...]) -> list[str]:
    return [text for text in found if text.startswith("a frame")]


def test_a_variable_of_another_thread_is_named(box: Box) -> None:
    ready, done = threading.Event(), threading.Event()

    def wait_in_thread(mine: Any) -> None:
        ready.set()
        done.wait(10)

    thread = threading.Thread(target=wait_in_thread, args=(box.value,), name="worker")
    thread.start()
    ready.wait(10)
    try:
        found = [text for text in box.holders({}) if "wait_in_thread" in text]
    finally:
        done.set()
        thread.join()
    assert len(found) == 1
    assert found[0].endswith("(variable mine) in thread 'worker'")


def test_looking_into_frames_keeps_nothing_alive() -> None:
    """Before Python 3.13 a look at a frame's variables makes the frame keep them."""

    def work() -> None:
        mine = Thing()
        alive = weakref.ref(mine)
        assert any("`work`" in text for text in holders_of(mine, roots={}, budget=5))
        del mine
        assert alive() is None

    work()


def test_variables_that_the_code_itself_took_stay() -> None:
    """`locals()` of the running function is the user's."""

    def work() -> dict[str, Any]:
        mine = Thing()
        taken = locals()
        holders_of(mine, roots={}, budget=5)
        return taken

    assert isinstance(work()["mine"], Thing)


def test_a_frame_kept_by_an_error_is_named(box: Box) -> None:
    def work(mine: Any) -> None:
        raise ValueError

    try:
        work(box.value)
    except ValueError as error:
        kept = error
    found = box.holders({})
    assert any(text.startswith("a frame of `work` at line") for text in found)
    kept.__traceback__ = None


def test_a_value_that_points_at_itself_is_not_its_own_holder(box: Box) -> None:
    box.value.me = box.value
    box.value.parts = {"whole": [box.value]}
    assert box.holders({}) == ()
    box.value.__dict__.clear()


def test_looking_leaves_no_reference_behind(box: Box) -> None:
    roots = {"a": box.put(lambda v: [v])}
    before = sys.getrefcount(box.value)
    box.holders(roots)
    after = sys.getrefcount(box.value)  # an assert would keep what it looks at
    assert after == before


SHARING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "view": (lambda v: v[:10], "view `a` shares its memory"),
    "reshaped": (lambda v: v.reshape(2, -1), "view `a` shares its memory"),
    "view in a dict": (lambda v: {"x": [v[1:]]}, "view `a['x'][0]` shares its memory"),
    "view of a view": (lambda v: v[5:][5:], "view `a` shares its memory"),
    "series": (lambda v: pd.Series(v, copy=False), "`a` shares its memory"),
    "frame in a list": (lambda v: [pd.DataFrame({"x": v}, copy=False)], "`a[0]` shares its memory"),
    "memoryview": (memoryview, "`a.obj`"),
}


@pytest.mark.parametrize(("place", "expected"), SHARING.values(), ids=SHARING.keys())
def test_what_shares_an_arrays_memory_is_named(place: Callable[[Any], Any], expected: str) -> None:
    box = Box(lambda: np.arange(1000.0))
    assert box.holders({"other": np.zeros(1000), "a": box.put(place)}) == (expected,)


def test_the_base_of_a_view_is_a_holder_of_its_memory() -> None:
    base = np.arange(1000.0)
    box = Box(lambda: base[10:20])
    assert "`base` shares its memory" in box.holders({"base": base})


def test_a_column_taken_out_of_a_frame_holds_its_memory() -> None:
    box = Box(lambda: pd.DataFrame({"x": np.arange(1000.0), "y": np.arange(1000.0)}))
    assert box.holders({"column": box.put(lambda v: v["x"])}) == ("`column` shares its memory",)


def test_a_frame_with_the_same_index_holds_nothing_of_weight() -> None:
    index = pd.Index(np.arange(100))
    box = Box(lambda: pd.DataFrame(np.zeros((100, 50)), index=index))
    assert box.holders({"other": pd.DataFrame(np.ones((100, 50)), index=index)}) == ()


def test_a_tensor_that_shares_storage_is_named() -> None:
    torch = pytest.importorskip("torch")
    box = Box(lambda: torch.zeros(1000))
    roots = {"head": box.put(lambda v: v[:10]), "array": box.put(lambda v: v.numpy())}
    assert set(box.holders(roots)) == {"`head` shares its memory", "`array` shares its memory"}


def test_untracked_collections_are_looked_into() -> None:
    """The collector knows neither arrays nor dicts of arrays."""
    box = Box(lambda: np.arange(1000.0))
    roots = {"cache": box.put(lambda v: {"x": v})}
    assert box.holders(roots) == ("`cache['x']`",)


def _forbidden(*_: Any, **__: Any) -> Any:
    raise SystemExit("code of the value ran")


class Meta(type):
    __hash__ = __eq__ = __getattribute__ = __instancecheck__ = __subclasscheck__ = _forbidden  # type: ignore[assignment]


_NAMES = ("eq", "hash", "len", "iter", "getitem", "repr", "bool", "getattr", "getattribute", "sizeof", "array", "dir")
HOSTILE: dict[str, Any] = {f"__{name}__": _forbidden for name in _NAMES}
HOSTILE |= {"__class__": property(_forbidden), "nbytes": property(_forbidden)}


@pytest.mark.parametrize("base", [object, list, dict, tuple, set, deque])
def test_no_code_of_values_or_holders_runs(base: type) -> None:
    kind = type.__call__(Meta, "Hostile", (base,), dict(HOSTILE))
    box = Box(lambda: base.__new__(kind))
    holder = base.__new__(kind)
    object.__setattr__(holder, "held", box.value)
    assert box.holders({"x": box.put(lambda v: [v]), "y": holder}) == ("`x[0]`", "`y.held`")


def test_an_attribute_that_is_computed_is_not_computed(box: Box) -> None:
    class Lazy:
        @property
        def value(self) -> Any:
            raise SystemExit

        def __getattr__(self, name: str) -> Any:
            raise SystemExit

    assert box.holders({"lazy": Lazy(), "a": box.put(lambda v: [v])}) == ("`a[0]`",)


def test_a_key_that_may_not_be_shown_is_named_by_its_type(box: Box) -> None:
    class Key:
        def __repr__(self) -> str:
            raise SystemExit

    assert box.holders({"a": box.put(lambda v: {Key(): v})}) == ("`a[<Key>]`",)


def test_the_search_ends_when_its_time_is_over(box: Box) -> None:
    """The clock is counted, not read: the graph has 300 000 objects and more levels than any budget."""
    chain: Any = None
    for _ in range(100_000):
        chain = Model([chain])
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return looks * 1e-4

    holders_of(box.value, roots={"chain": chain}, budget=0.3, clock=clock)
    assert looks < 4_000
    while chain is not None:  # taken apart, as letting it go at once would go deep
        chain = chain.weights.pop()


def test_a_notebook_of_ordinary_size_is_searched_in_time(box: Box) -> None:
    rows = [{"a": i, "b": [str(i)]} for i in range(20_000)]
    rows[15_000]["c"] = box.value
    assert holders_of(box.value, roots={"numbers": list(range(10**6)), "rows": rows}, ignore=box.ignore(()), budget=5)[
        0
    ] == ("`rows[15000]['c']`")
