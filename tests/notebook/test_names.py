"""What a cell mentions: exact by the compiler's scoping, through functions, classes and magics."""

from __future__ import annotations

import ast
import dis
import functools
import gc
import importlib.util
import types
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from memkit.notebook import codescan
from memkit.notebook.names import Mentions, mentions

CORPUS = ["argparse", "ast", "asyncio.base_events", "dataclasses", "enum", "inspect", "pickle", "typing", "_pydecimal"]


@pytest.fixture
def notebook() -> dict[str, Any]:
    return {"__name__": "__main__", "df": object(), "other": object()}


class Cells:
    """Runs and reads cells as a notebook does."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace

    def run(self, source: str) -> None:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), self.namespace)

    def read(self, cell: str, interesting: Any = ("df", "other")) -> Mentions:
        tree = ast.parse(TransformerManager().transform_cell(cell))
        return mentions(tree, self.namespace, interesting)

    def loads(self, cell: str) -> set[str]:
        return set(self.read(cell).loads)


@pytest.fixture
def cells(notebook: dict[str, Any]) -> Cells:
    return Cells(notebook)


LOADED = {
    "plain": "df",
    "attribute": "df.a.b()",
    "subscript": "x = y[df]",
    "f-string": "f'{df.shape!r:>{10}}'",
    "nested f-string": "f'{x:{df}}'",
    "walrus": "if (n := len(df)) > 1: pass",
    "comprehension source": "[a for a in df]",
    "comprehension condition": "[a for a in b if df]",
    "lambda body": "g = lambda a: df",
    "default argument": "def g(a=df): pass",
    "decorator": "@df\ndef g(): pass",
    "function body": "def g():\n    return df",
    "nested function body": "def g():\n    def h():\n        return df\n    return h",
    "method body": "class A:\n    def m(self):\n        return df",
    "class body": "class A:\n    x = df",
    "base class": "class A(df): pass",
    "await": "await df",
    "async with": "async with df as x: pass",
    "async for": "async for x in df: pass",
    "match subject": "match df:\n    case [a, *rest]: pass",
    "match value": "match a:\n    case df.RED: pass",
    "star argument": "g(*df, **other)",
    "subscript target": "df['a'] = 1",
    "attribute target": "df.a = 1",
    "delete of an item": "del df['a']",
    "return of a generator": "g = (a for a in df)",
    "unpacked": "a, *b = df",
    "with": "with df: pass",
    "raise": "raise df",
    "type of an except": "try: pass\nexcept df: pass",
}


@pytest.mark.parametrize("cell", LOADED.values(), ids=LOADED.keys())
def test_a_use_is_a_load(cells: Cells, cell: str) -> None:
    found = cells.read(cell)
    assert "df" in found.loads
    assert "df" not in found.stores | found.deletes


NOT_MENTIONED = {
    "string": "memkit.release('df')",
    "comment": "# df\n1",
    "attribute of that name": "x.df",
    "keyword of that name": "g(df=1)",
    "key of that name": "x = {'df': 1}",
    "local of a function": "def g():\n    df = 1\n    return df",
    "argument": "def g(df):\n    return df",
    "lambda argument": "g = lambda df: df",
    "comprehension variable": "[df for df in x]",
    "generator variable": "list(df.a for df in x)",
    "nested comprehension variable": "[[df + a for a in df] for df in x]",
    "name of the class's own": "class A:\n    df = 1",
    "closure variable": "def g():\n    df = 1\n    def h():\n        return df\n    return h",
    "f-string text": "f'df {x}'",
    "capture of a match in a function": "def g(x):\n    match x:\n        case df: return df",
    "longer name": "df2 + my_df",
    "imported attribute": "from x import df as y",
}


@pytest.mark.parametrize("cell", NOT_MENTIONED.values(), ids=NOT_MENTIONED.keys())
def test_what_only_looks_like_the_name_is_no_mention(cells: Cells, cell: str) -> None:
    assert cells.read(cell) == Mentions(frozenset(), frozenset(), frozenset())


@pytest.mark.parametrize(
    ("cell", "loads", "stores", "deletes"),
    [
        ("df = 1", "", "df", ""),
        ("df += 1", "df", "df", ""),
        ("del df", "", "", "df"),
        ("df: int = 1", "", "df", ""),
        ("a, (*df, b) = c", "", "df", ""),
        ("for df in x: pass", "", "df", ""),
        ("import df", "", "df", ""),
        ("def df(): pass", "", "df", ""),
        ("def g():\n    global df\n    df = 1", "", "df", ""),
        ("def g():\n    global df\n    del df", "", "", "df"),
        ("[df := a for a in b]", "", "df", ""),
        ("match x:\n    case {'k': df}: pass", "", "df", ""),
        ("with x as df: pass", "", "df", ""),
    ],
)
def test_stores_and_deletes_are_told_apart(cells: Cells, cell: str, loads: str, stores: str, deletes: str) -> None:
    found = cells.read(cell)
    assert ("".join(found.loads), "".join(found.stores), "".join(found.deletes)) == (loads, stores, deletes)


def test_only_interesting_names_are_returned(cells: Cells) -> None:
    assert cells.read("df + other + third", {"other"}).loads == {"other"}
    assert cells.read("df + other", lambda name: name.startswith("d")).loads == {"df"}


THROUGH = {
    "function": ("def f(): return df", "f()"),
    "two functions": ("def g(): return df\ndef f(): return g()", "f()"),
    "functions in a circle": ("def g(): return f() + df\ndef f(): return g()", "f()"),
    "lambda": ("f = lambda: df", "f()"),
    "inner function": ("def f():\n    def g(): return df\n    return g", "f()()"),
    "method": ("class A:\n    def m(self): return df", "A().m()"),
    "property": ("class A:\n    @property\n    def p(self): return df", "A().p"),
    "cached property": (
        "import functools\nclass A:\n    @functools.cached_property\n    def p(self): return df",
        "A().p",
    ),
    "static method": ("class A:\n    @staticmethod\n    def s(): return df", "A.s()"),
    "class method": ("class A:\n    @classmethod\n    def c(cls): return df", "A.c()"),
    "base class": ("class B:\n    def m(self): return df\nclass A(B): pass", "A().m()"),
    "metaclass": ("class M(type):\n    def __call__(cls): return df\nclass A(metaclass=M): pass", "A()"),
    "instance": ("class A:\n    def m(self): return df\na = A()", "a.m()"),
    "instance with slots": ("class A:\n    __slots__ = ('f',)\na = A()\na.f = lambda: df", "a.f()"),
    "function on an instance": ("class A: pass\na = A()\na.f = lambda: df", "a.f()"),
    "bound method": ("class A:\n    def m(self): return df\nm = A().m", "m()"),
    "partial": ("import functools\ndef f(a): return df\np = functools.partial(f, 1)", "p()"),
    "argument of a partial": ("import functools\np = functools.partial(map, lambda a: df)", "p([])"),
    "lru_cache": ("import functools\n@functools.lru_cache\ndef f(): return df", "f()"),
    "wraps": (
        "import functools\ndef deco(g):\n    @functools.wraps(g)\n    def w(*a): return g(*a)\n    return w\n"
        "@deco\ndef f(): return df",
        "f()",
    ),
    "closure": ("def make(g):\n    def w(): return g()\n    return w\nf = make(lambda: df)", "f()"),
    "decorator of a library": (
        "import contextlib\n@contextlib.contextmanager\ndef f():\n    yield df",
        "with f(): pass",
    ),
    "table of functions": ("table = {'a': lambda: df}", "table['a']()"),
    "dataclass": ("import dataclasses\n@dataclasses.dataclass\nclass A:\n    def m(self): return df\na = A()", "a.m()"),
}


@pytest.mark.parametrize(("before", "cell"), THROUGH.values(), ids=THROUGH.keys())
def test_a_mention_is_found_through_what_the_cell_uses(cells: Cells, before: str, cell: str) -> None:
    cells.run(before)
    assert "df" in cells.loads(cell)


def test_what_is_defined_but_not_used_is_no_mention(cells: Cells) -> None:
    cells.run("def f(): return df\nclass A:\n    def m(self): return df")
    assert cells.loads("other") == {"other"}


def test_a_function_of_an_imported_module_uses_its_own_globals(cells: Cells) -> None:
    module = types.ModuleType("elsewhere")
    exec("def f(): return df", vars(module))
    cells.namespace["f"] = vars(module)["f"]
    assert cells.loads("f()") == set()


def test_a_store_inside_a_called_function_counts(cells: Cells) -> None:
    cells.run("def f():\n    global df\n    df = 1")
    assert cells.read("f()").stores == {"df"}


MAGICS = {
    "%timeit df.sum()": {"df"},
    "%timeit -n 10 -r3 df.sum()": {"df"},
    "%timeit -o x = 'other'; df": {"df"},
    "%time y = [df for df in other]": {"other"},
    "%%time\ndf.sum()\ny = [other for other in x]": {"df"},
    "%%timeit other\ndf.sum()": {"df", "other"},
    "%%time\n!ls {df}\n%timeit other": {"df", "other"},
    "%lprun -f other f(df)": {"df", "other"},
    "x = %timeit -o df": {"df"},
    "df?": {"df"},
    "%store df": {"df"},
    "%run script.py {df} $other": {"df", "other"},
    "!ls df other": set(),
    "!ls {df.path} $other/x": {"df", "other"},
    "files = !cat $df": {"df"},
    "!awk '{print $1}' file": set(),
    "%%bash\necho df": set(),
    "%%writefile df.py\ndf = 1": set(),
    "%memkit release df": set(),
    "%%memkit\ndf.sum()": {"df"},
    "%matplotlib inline": set(),
    "%cd x.df": set(),
    "def f():\n    %timeit df": {"df"},
    "import os\nos.system('ls {df}')": set(),
}


@pytest.mark.parametrize(("cell", "names"), MAGICS.items())
def test_text_of_magics_and_shell_lines_is_read(cells: Cells, cell: str, names: set[str]) -> None:
    assert cells.loads(cell) == names


def test_a_function_with_a_magic_inside_mentions_the_magics_text(cells: Cells) -> None:
    cells.run(TransformerManager().transform_cell("def f():\n    %timeit df.sum()"))
    assert cells.loads("f()") == {"df"}


@pytest.mark.parametrize("cell", ["return df", "yield df", "def f():\n    x = 1\n    nonlocal y\ndf", "break; df"])
def test_a_cell_that_does_not_compile_is_read_by_its_names(cells: Cells, cell: str) -> None:
    assert cells.loads(cell) == {"df"}


def test_odd_trees_do_not_raise(cells: Cells) -> None:
    half = ast.Module(body=[ast.Expr(ast.Name("df", ast.Load()))], type_ignores=[])  # no line numbers
    assert mentions(half, cells.namespace, {"df"}).loads == {"df"}
    assert mentions(ast.Module(body=[], type_ignores=[]), {}, {"df"}).loads == set()


def test_hostile_values_are_not_run(cells: Cells) -> None:
    cells.run(
        "class Meta(type):\n    def __hash__(cls): raise SystemExit\n    def __eq__(cls, o): raise SystemExit\n"
        "class Bad(metaclass=Meta):\n"
        "    def __getattribute__(self, name): raise SystemExit\n"
        "    def __eq__(self, o): raise SystemExit\n"
        "    def m(self): return df\n"
        "bad = Bad()"
    )
    assert cells.loads("bad.m()") == {"df"}


def test_a_syntax_warning_is_left_to_ipython_and_filters_stay_as_they_were(cells: Cells) -> None:
    tree = ast.parse("df is 1")
    before = list(warnings.filters)
    assert mentions(tree, cells.namespace, {"df"}).loads == {"df"}
    assert warnings.filters == before


def test_a_long_chain_of_objects_ends(cells: Cells) -> None:
    cells.run(
        "class Node: pass\nhead = node = Node()\nfor _ in range(50_000):\n    node.next = Node(); node = node.next"
    )
    assert cells.loads("head") == set()


def test_the_tree_is_not_changed(cells: Cells) -> None:
    tree = ast.parse("x = [df for a in other]\nf'{df}'")
    before = ast.dump(tree, include_attributes=True)
    mentions(tree, cells.namespace, {"df"})
    assert ast.dump(tree, include_attributes=True) == before


def test_what_is_known_of_a_function_dies_with_it(cells: Cells) -> None:
    cells.run("def f(): return df")
    code = weakref.ref(cells.namespace["f"].__code__)
    assert cells.loads("f()") == {"df"}
    key = id(code())
    assert key in codescan._known
    del cells.namespace["f"]
    gc.collect()
    assert code() is None
    assert key not in codescan._known


def _by_dis(code: types.CodeType) -> list[tuple[int, str]]:
    wanted = codescan._LOADS | codescan._STORES | codescan._DELETES
    return [(i.opcode, i.argval) for i in dis.get_instructions(code) if i.opcode in wanted]


def _code_of(module: str) -> types.CodeType:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return compile(Path(spec.origin).read_text("utf-8"), module, "exec", dont_inherit=True)


@pytest.mark.parametrize("module", CORPUS)
def test_the_scan_agrees_with_dis(module: str) -> None:
    for code in codescan.nested(_code_of(module)):
        assert list(codescan.instructions(code)) == _by_dis(code)


def test_names_beyond_the_first_256_are_found() -> None:
    """Their index needs an EXTENDED_ARG."""
    source = "\n".join(f"name_{i} = value_{i}" for i in range(700))
    uses = codescan.scan(compile(source, "", "exec"))
    assert uses.stores == {f"name_{i}" for i in range(700)}
    assert uses.loads == {f"value_{i}" for i in range(700)}


def test_code_that_has_run_often_reads_the_same() -> None:
    """The interpreter specialises what runs often; the scan sees the general form."""
    namespace: dict[str, Any] = {"a": 1, "b": 2}
    exec("def f():\n    return len([a, b])", namespace)
    before = codescan.scan(namespace["f"].__code__)
    for _ in range(2000):
        namespace["f"]()
    assert codescan.scan(namespace["f"].__code__) == before


NAMES = st.sampled_from(["df", "other", "a", "b", "c"])


def _sources() -> st.SearchStrategy[str]:
    simple = st.one_of(
        st.builds("{} = {}".format, NAMES, NAMES),
        st.builds("{} += {}".format, NAMES, NAMES),
        st.builds("del {}".format, NAMES),
        st.builds("[{0} for {0} in {1}]".format, NAMES, NAMES),
        st.builds("{} = lambda {}: ({}, {})".format, NAMES, NAMES, NAMES, NAMES),
        st.builds("({}, {})".format, NAMES, NAMES),
    )

    def indent(body: list[str], head: str) -> str:
        return head + "".join("\n" + "\n".join("    " + line for line in part.split("\n")) for part in body)

    def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        heads = st.one_of(
            st.builds("def {}({}):".format, NAMES, NAMES),
            st.builds("class {}:".format, NAMES),
            st.builds("if {}:".format, NAMES),
        )
        return st.builds(indent, st.lists(inner, min_size=1, max_size=4), heads)

    return st.lists(st.recursive(simple, blocks, max_leaves=8), min_size=1, max_size=5).map("\n".join)


@given(_sources())
def test_any_cell_mentions_what_its_bytecode_says(source: str) -> None:
    """Against `dis` and the rule that a class body's own assignments are not the notebook's."""
    tree = ast.parse(source)
    expected: dict[str, set[str]] = {"LOAD": set(), "STORE": set(), "DELETE": set()}
    root = compile(tree, "", "exec")
    for code in codescan.nested(root):
        own = code is not root and not code.co_flags & 1
        for instruction in dis.get_instructions(code):
            kind, _, where = instruction.opname.partition("_")
            of_class = own and where == "NAME" and kind != "LOAD"
            if where in ("NAME", "GLOBAL", "FROM_DICT_OR_GLOBALS") and kind in expected and not of_class:
                expected[kind].add(instruction.argval)
    found = mentions(tree, {}, lambda name: True)
    assert (found.loads, found.stores, found.deletes) == (expected["LOAD"], expected["STORE"], expected["DELETE"])


def test_a_partial_keyword_is_followed(cells: Cells) -> None:
    cells.run("def f(): return df")
    cells.namespace["p"] = functools.partial(sorted, [], key=cells.namespace["f"])
    assert cells.loads("p()") == {"df"}


def test_what_other_libraries_hang_on_syntax_trees_is_not_followed() -> None:
    """`executing`, which formats IPython's tracebacks, sets `parent` on the `ast.Load()` that all trees share."""
    elsewhere = ast.parse("hidden.sum()")
    load = ast.parse("x").body[0].value.ctx  # type: ignore[attr-defined]
    load.parent = elsewhere
    try:
        tree = ast.parse("get_ipython().run_line_magic('timeit', 'df.sum()')")
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                child.parent = node  # type: ignore[attr-defined]
        assert mentions(tree, {}, {"df", "hidden"}).loads == {"df"}
    finally:
        del load.parent
