"""What comes back after a death: equal, of the same kind, and sharing what was shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memkit.config import Settings
from tests.lifecycle.rescue.rig import Heir, Notebook, die

Make = Callable[..., Heir]


def test_values_come_back_equal_and_of_the_same_type(of: Settings, heir: Make) -> None:
    die(
        of,
        "import numpy as np\na = np.arange(500_000.0)\nb = [1, 'two', {3: (4,)}]\nc = {1, 2}\nd = None\ne = b'x' * 9",
    )
    next_ = heir()
    assert np.array_equal(next_["a"], np.arange(500_000.0))
    assert next_["b"] == [1, "two", {3: (4,)}]
    assert (next_["c"], next_["d"], next_["e"]) == ({1, 2}, None, b"x" * 9)


def test_modules_are_imported_again_under_their_names(of: Settings, heir: Make) -> None:
    die(of, "import numpy as zahlen, os.path\nimport collections.abc as abc")
    next_ = heir()
    assert next_["zahlen"] is np
    assert next_["os"].sep == "/"
    assert next_["abc"].__name__ == "collections.abc"


_CODE = """
import enum, abc, functools
from dataclasses import dataclass, field, replace, fields, MISSING
FACTOR = 3
def times(n): return n * FACTOR
def fact(n): return 1 if n < 2 else n * fact(n - 1)
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n > 0 and even(n - 1)
def counter():
    n = 0
    def up():
        nonlocal n
        n += 1
        return n
    def seen(): return n
    return up, seen
up, seen = counter()
up()
lam = lambda x, *, y=FACTOR: x + y
part = functools.partial(times, 5)
@dataclass(order=True)
class Point:
    x: int
    tags: list = field(default_factory=list)
    def scaled(self): return self.x * FACTOR
    @classmethod
    def origin(cls): return cls(0)
    @property
    def twice(self): return 2 * self.x
class Deep(Point):
    def scaled(self): return super().scaled() + 1
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
    def shout(self): return self.name + '!'
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
class Square(Shape):
    __slots__ = ('side',)
    def __init__(self, side): self.side = side
    def area(self): return self.side ** 2
p, d, red, sq = Point(2), Deep(4), Colour.RED, Square(5)
bound = d.scaled
times.note = 'mine'
times.__doc__ = 'thrice'
"""


def test_functions_see_the_new_kernels_names_and_bring_none_along(of: Settings, heir: Make) -> None:
    die(of, _CODE)
    next_ = heir()
    times = next_["times"]
    assert times.__globals__ is next_.names
    assert "FACTOR" not in next_.names
    next_.names["FACTOR"] = 10
    assert times(2) == 20
    assert (times.note, times.__doc__, times.__name__, times.__module__) == ("mine", "thrice", "times", "__main__")
    assert next_["part"]() == 50
    assert next_["lam"](1) == 4  # a default was a value


def test_recursion_closures_and_shared_cells(of: Settings, heir: Make) -> None:
    die(of, _CODE)
    next_ = heir()
    assert next_["fact"](5) == 120
    next_.session.restore("odd")
    assert next_["even"](10)
    assert (next_["up"](), next_["seen"]()) == (2, 2)


def test_classes_keep_their_identity_hierarchy_and_instances(of: Settings, heir: Make) -> None:
    die(of, _CODE)
    next_ = heir()
    next_.names["FACTOR"] = 3
    assert next_["d"].scaled() == 13
    assert type(next_["d"]) is next_["Deep"]
    assert issubclass(next_["Deep"], next_["Point"])
    assert next_["bound"].__self__ is next_["d"]
    assert next_["red"] is next_["Colour"].RED
    assert next_["red"].shout() == "RED!"
    assert isinstance(next_["sq"], next_["Shape"])
    assert next_["sq"].area() == 25
    with pytest.raises(TypeError, match="abstract"):
        next_["Shape"]()


def test_dataclasses_still_know_their_fields(of: Settings, heir: Make) -> None:
    die(of, _CODE)
    next_ = heir()
    point, replace, fields = next_["Point"], next_["replace"], next_["fields"]
    assert replace(next_["p"], x=7) == point(7)
    assert point.origin() == point(0)
    assert point(3).twice == 6
    assert [f.default is next_["MISSING"] for f in fields(point)] == [True, True]


def test_a_class_defined_anew_is_the_one_that_rescued_instances_have(of: Settings, heir: Make) -> None:
    """As with pickle: the name leads to the class."""
    die(of, "class A:\n    def say(self): return 'old'\na = A()")
    next_ = heir()
    next_.run("class A:\n    def say(self): return 'new'")
    next_.session.variables.reconcile()
    assert next_["a"].say() == "new"


def test_a_name_rebound_to_something_else_does_not_hurt_instances(of: Settings, heir: Make) -> None:
    die(of, "class A:\n    def say(self): return 'old'\na = A()")
    next_ = heir()
    next_.run("A = 5")
    next_.session.variables.reconcile()
    next_.adoption.settle()
    next_.adoption.forget_spent()
    assert next_["a"].say() == "old"
    assert next_.names["A"] == 5


def test_what_variables_share_they_share_again(of: Settings, heir: Make) -> None:
    code = """
import numpy as np
a = np.zeros(300_000); view = a[10:20]; first, second = np.zeros(9).reshape(3, 3).T, None
base = np.arange(10.0); v1 = base[:5]; v2 = base[5:]; del base
inner = [1]; outer = {'inner': inner}; same = inner
loop = []; loop.append(loop)
"""
    die(of, code)
    next_ = heir()
    next_["view"][:] = 7
    assert next_["a"][10:20].tolist() == [7] * 10
    assert next_["v1"].base is next_["v2"].base
    assert next_["outer"]["inner"] is next_["inner"] is next_["same"]
    assert next_["loop"][0] is next_["loop"]


def test_a_model_and_its_optimizer_keep_the_same_parameters(of: Settings, heir: Make) -> None:
    torch = pytest.importorskip("torch")
    die(
        of,
        "import torch\n"
        "model = torch.nn.Linear(3, 3)\nopt = torch.optim.Adam(model.parameters())\nw = model.weight.data",
    )
    next_ = heir()
    mine = {id(p) for p in next_["model"].parameters()}
    assert {id(p) for group in next_["opt"].param_groups for p in group["params"]} == mine
    with torch.no_grad():
        next_["w"].zero_()
    assert next_["model"].weight.abs().sum() == 0


def test_frames_that_share_memory_still_copy_on_write(of: Settings, heir: Make) -> None:
    pd = pytest.importorskip("pandas")
    die(
        of,
        "import pandas as pd\n"
        "df = pd.DataFrame({'a': range(9), 'b': list('abcabcabc')})\nshallow = df.copy(deep=False)",
    )
    next_ = heir()
    next_["shallow"].loc[0, "a"] = 100
    assert next_["df"].loc[0, "a"] == 0
    assert isinstance(next_["df"], pd.DataFrame)


def test_what_belongs_to_the_process_is_named_with_its_reason(of: Settings, heir: Make, tmp_path: Any) -> None:
    code = f"""
import threading, sqlite3, socket
f = open({str(tmp_path / "x")!r}, 'w'); con = sqlite3.connect(':memory:'); s = socket.socket()
lock = threading.Lock(); gen = (i for i in 'abc'); held = {{'deep': [threading.RLock()]}}; good = 1
"""
    die(of, code)
    next_ = heir()
    assert next_["good"] == 1
    lost = next_.lost
    assert lost["f"] == "open file"
    assert lost["con"] == "database connection"
    assert lost["s"] == "socket"
    assert lost["gen"] == "generator"
    assert lost["lock"] == "lock"
    assert "held['deep'][0]" in lost["held"]
    assert set(lost) == {"f", "con", "s", "gen", "lock", "held"}


def test_one_that_cannot_be_written_does_not_cost_what_it_shares_with(of: Settings, heir: Make) -> None:
    die(of, "import threading\ndata = [1, 2]\nbad = {'data': data, 'lock': threading.Lock()}\nalso = (data,)")
    next_ = heir()
    assert next_["data"] == [1, 2]
    assert next_["also"] == ([1, 2],)
    assert set(next_.lost) == {"bad"}


def test_the_whole_kernel_in_a_value_groups_nothing(of: Settings, heir: Make) -> None:
    """A value that leads to the namespace leads to everything; the others do not depend on it."""

    def live(notebook: Notebook) -> None:
        notebook.run("a = [1]\nb = [a]\nc = [2]")
        notebook.names["all"] = [notebook.names, notebook.names["c"]]

    die(of, live)
    next_ = heir()
    assert {("a", "b"), ("c",)} <= {entry.names for entry in next_.adoption.manifest.entries}
    assert next_["c"] == [2]
    assert next_["b"][0] is next_["a"]


_leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_graph_of_lists_and_dicts_keeps_its_identities(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Nodes refer to one another at random, variables to nodes: the same pairs are the same objects afterwards."""
    from tests.lifecycle.rescue import rig

    of = rig.settings(tmp_path_factory.mktemp("store"))
    count = data.draw(st.integers(1, 8))
    edges = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=16))
    roots = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6))
    leaves = data.draw(st.lists(_leaf, min_size=count, max_size=count))

    def live(notebook: Notebook) -> None:
        nodes: list[list[Any]] = [[leaf] for leaf in leaves]
        for source, target in edges:
            nodes[source].append(nodes[target])
        notebook.names.update({f"v{i}": nodes[root] for i, root in enumerate(roots)})

    die(of, live)
    next_ = rig.Heir(of)
    try:
        seen: dict[int, int] = {}
        entered: set[int] = set()
        waiting = [(root, next_[f"v{i}"]) for i, root in enumerate(roots)]
        while waiting:
            node, value = waiting.pop()
            assert seen.setdefault(node, id(value)) == id(value)
            assert value[0] == leaves[node]
            targets = [target for source, target in edges if source == node]
            assert len(value) == 1 + len(targets)
            if node not in entered:
                entered.add(node)
                waiting += zip(targets, value[1:], strict=True)
        assert len(set(seen.values())) == len(seen)
    finally:
        next_.close()
