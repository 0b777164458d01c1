"""Tracked variables around cells: there when mentioned, held while the cell runs, followed when rebound or deleted."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest


@pytest.fixture
def spilled(notebook):
    """A notebook in which `df` is a spilled array of 100,000 numbers."""
    notebook("import numpy as np\nimport memkit\ndf = np.arange(100_000.0)\n%memkit register df")
    spill(notebook)
    return notebook


def spill(notebook):
    notebook("%memkit spill df")
    assert "df" not in notebook
    assert notebook.tier("df") == "disk"


MENTIONS = {
    "a name": "out = df.sum()",
    "an expression in the middle": "x = 1\nout = [x, df.sum()][1]",
    "a comprehension": "out = sum([v for v in df])",
    "a generator expression": "out = sum(v for v in df)",
    "an f-string": "out = float(f'{df.sum()}')",
    "an augmented assignment": "df += 0\nout = df.sum()",
    "a lambda": "out = (lambda: df.sum())()",
    "a nested function": "def f():\n    def g():\n        return df.sum()\n    return g()\nout = f()",
    "a class body": "class A:\n    total = df.sum()\nout = A.total",
    "global in a function": "def f():\n    global df\n    df = df + 0\nf()\nout = df.sum()",
    "a line magic": "%time out = df.sum()",
    "an assigned line magic": "r = %timeit -n1 -r1 -o df.sum()\nout = df.sum()",
    "a magic only": "%timeit -n1 -r1 out = df.sum()\nout = 4999950000.0",
    "a shell line": "r = !echo {df.sum()}\nout = float(r[0])",
    "a decorator": "import functools\n@functools.lru_cache\ndef f():\n    return df.sum()\nout = f()",
    "a walrus": "out = (y := df).sum()",
    "a default argument": "def f(a=df):\n    return a.sum()\nout = f()",
    "a match subject": "match df:\n    case _:\n        out = df.sum()",
    "await": "import asyncio\nasync def f():\n    return df.sum()\nout = await f()",
}


@pytest.mark.parametrize("source", MENTIONS.values(), ids=MENTIONS)
def test_a_mentioned_variable_is_there(spilled, source):
    text = spilled(source)
    assert spilled.error is None, text
    assert spilled["out"] == 4999950000.0


EARLIER = {
    "a function": ("def f():\n    return df.sum()", "out = f()"),
    "a function through another": ("def g():\n    return df.sum()\ndef f():\n    return g()", "out = f()"),
    "a lambda": ("f = lambda: df.sum()", "out = f()"),
    "a decorated function": (
        "import functools\ndef loud(g):\n    @functools.wraps(g)\n    def inner():\n        return g()\n"
        "    return inner\n"
        "@loud\ndef f():\n    return df.sum()",
        "out = f()",
    ),
    "a method": ("class A:\n    def total(self):\n        return df.sum()\na = A()", "out = a.total()"),
    "a property": ("class A:\n    @property\n    def total(self):\n        return df.sum()\na = A()", "out = a.total"),
    "a partial": ("import functools\ndef g(x):\n    return df.sum()\nf = functools.partial(g, 1)", "out = f()"),
    "an async function": ("async def f():\n    return df.sum()", "out = await f()"),
    "recursion": ("def f(n):\n    return df.sum() if n == 0 else f(n - 1)", "out = f(3)"),
}


@pytest.mark.parametrize(("before", "cell"), EARLIER.values(), ids=EARLIER)
def test_a_variable_used_by_a_function_of_the_notebook_is_there(notebook, before, cell):
    notebook("import numpy as np\ndf = np.arange(100_000.0)\n%memkit register df\n" + before)
    spill(notebook)
    text = notebook(cell)
    assert notebook.error is None, text
    assert notebook["out"] == 4999950000.0


NO_MENTIONS = {
    "a text": "x = 'df'",
    "a comment": "# df",
    "a local of that name": "def f():\n    df = 1\n    return df\nf()",
    "a comprehension variable": "[df for df in range(3)]",
    "an attribute": "class A: df = 1\nA.df",
    "a keyword": "dict(df=1)",
    "memkit's own functions": "memkit.touch('df')",
    "memkit's own magics": "%memkit touch df",
    "a binding that does not read": "df = 5",
    "a syntax error": "df.sum(",
}


@pytest.mark.parametrize("source", NO_MENTIONS.values(), ids=NO_MENTIONS)
def test_what_is_no_mention_restores_nothing(spilled, source):
    spilled(source)
    assert not [event for event in spilled.session.log if event.kind == "restored"]


@pytest.mark.parametrize("magic", ["%%time", "%%capture", "%%timeit -n1 -r1", "%%prun -q"])
def test_cell_magics_that_run_python_bring_it_back(spilled, magic):
    text = spilled(f"{magic}\ndf.sum()")
    assert spilled.error is None, text
    assert spilled.tier("df") == "ram"


def test_a_cell_holds_what_it_mentions_and_lets_go_at_its_end(spilled):
    spilled("df.sum()\nstate = memkit.session().tracker.get('df').state")
    assert spilled["state"] == "pinned"
    assert spilled.session.tracker.get("df").state == "active"


def test_a_cell_that_raises_or_is_interrupted_lets_go_too(spilled):
    spilled("df.sum()\n1/0")
    assert spilled.session.tracker.get("df").held == 0
    spilled("df.sum()\nraise KeyboardInterrupt")
    assert spilled.session.tracker.get("df").held == 0


def test_what_a_cell_registers_and_goes_on_using_is_held_to_its_end(notebook):
    text = notebook(
        "import time\nx = [1, 2]\n%memkit register x --type temp_buffers --ttl 50ms\ntime.sleep(0.3)\nout = sum(x)"
    )
    assert notebook.error is None, text
    assert notebook["out"] == 3
    resource = notebook.session.tracker.find("x")
    assert resource is None or resource.held == 0


def test_what_a_cell_registers_and_uses_no_more_is_not_held(notebook):
    notebook("import time\nx = [1, 2]\n%memkit register x --type temp_buffers --ttl 50ms\ntime.sleep(0.3)")
    assert "x" not in notebook
    assert notebook.error is None


def test_registering_again_in_a_cell_that_uses_it_keeps_it_held(notebook):
    notebook("x = [1, 2]\n%memkit register x")
    notebook("import memkit\nsum(x)\nmemkit.session().register('x')\nstate = memkit.session().tracker.get('x').state")
    assert notebook["state"] == "pinned"
    assert notebook.session.tracker.get("x").held == 0


def test_pressure_does_not_take_what_the_running_cell_uses(spilled):
    text = spilled("df.sum()\nreport = memkit.reclaim()\nout = df.sum()")
    assert spilled.error is None, text
    assert [(item.name, item.reason) for item in spilled["report"].skipped] == [("df", "in use by the running cell")]


def test_what_the_cell_itself_asks_for_is_done(spilled):
    spilled("df.sum()\nmemkit.release('df')")
    assert spilled.error is None
    assert "df" not in spilled
    assert "df" not in spilled.session.tracker


def test_nested_cells_hold_what_the_outer_one_uses(spilled):
    spilled("df.sum()\nget_ipython().run_cell('df.sum()')\nstate = memkit.session().tracker.get('df').state")
    assert spilled["state"] == "pinned"
    assert spilled.session.tracker.get("df").held == 0


def test_what_is_reached_unseen_is_a_clear_name_error(spilled):
    text = spilled("eval('df')")
    assert isinstance(spilled.error, NameError)
    assert re.search(r"name 'df' is not defined.*spilled at \d\d:\d\d:\d\d.*%memkit restore df", text, re.DOTALL)
    assert "%memkit restore df" in str(spilled.error)
    spilled("%memkit restore df")
    spilled("out = eval('df').sum()")
    assert spilled["out"] == 4999950000.0


def test_a_module_that_reads_it_at_run_time_gets_a_clear_error(spilled, tmp_path, monkeypatch):
    (tmp_path / "reads_main.py").write_text("import __main__\ndef total():\n    return __main__.df.sum()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = spilled("import reads_main\nreads_main.total()")
    assert "%memkit restore df" in text


def test_other_name_errors_are_left_as_they_are(spilled):
    assert "memkit" not in spilled("nonsense")
    assert "memkit" not in spilled("import math\nmath.df")


def test_a_released_name_says_when_why_and_what_to_do(notebook):
    notebook("x = [1]\n%memkit register x\n%memkit release x")
    text = notebook("x")
    assert re.search(r"'x' was released at .* \(asked for by you\).*create it again", text)


def test_an_expired_name_says_so(notebook):
    notebook("import time\nx = [1]\n%memkit register x --type temp_buffers --ttl 50ms")
    notebook("time.sleep(0.2)")
    assert "expired: not used for 0.05 s" in notebook("x")


def test_an_earlier_custom_handler_still_gets_its_errors(plain):
    seen = []
    plain.shell.set_custom_exc((NameError,), lambda shell, kind, error, tb, tb_offset=None: seen.append(str(error)))
    plain("%load_ext memkit")
    plain("x = [1]\n%memkit register x\n%memkit release x")
    plain("x")
    assert len(seen) == 1
    assert "was released at" in seen[0]
    plain("%unload_ext memkit")
    plain("y")
    assert len(seen) == 2


# -- rebinding and deleting ----------------------------------------------------------------------------------------


def test_rebinding_replaces_the_tracked_value(spilled):
    spilled("df = np.ones(10)")
    resource = spilled.session.tracker.get("df")
    assert (resource.tier, resource.stored) == ("ram", None)
    assert spilled.session.store.bytes_on_disk == 0
    spilled.session.refresh()
    assert resource.size < 1000
    assert spilled.session.log.total("rebound") == 1
    spill(spilled)
    spilled("out = df.sum()")
    assert spilled["out"] == 10


def test_rebinding_one_that_is_in_memory_is_noticed(notebook):
    notebook("x = [1]\n%memkit register x")
    notebook("x = list(range(100_000))")
    assert notebook.session.status().resources[0].size > 500_000


def test_growing_in_place_is_noticed(notebook):
    notebook("x = []\n%memkit register x")
    notebook("x.extend(bytes(1000) for _ in range(1000))")
    assert notebook.session.status().resources[0].size > 10**6


@pytest.mark.parametrize("source", ["del df", "df.sum()\ndel df", "def f():\n    global df\n    del df\nf()"])
def test_deleting_deregisters(spilled, source):
    text = spilled(source)
    assert spilled.error is None, text
    assert "df" not in spilled.session.tracker
    assert spilled.session.store.bytes_on_disk == 0
    assert "was released" not in spilled("df"), "deleted by the user, not released by memkit"


def test_reset_deregisters_everything_also_what_is_demoted(spilled):
    spilled("x = [1]\n%memkit register x")
    spilled("%reset -f")
    assert spilled.session.tracker.snapshot() == ()
    assert spilled.session.store.bytes_on_disk == 0
    assert "memkit:" not in spilled("1 + 1")


def test_a_resource_that_is_no_variable_is_not_confused_with_a_name(notebook):
    notebook("import memkit\nh = memkit.track([1], name='model', ttl='50ms', type='temp_buffers')\nmodel = 5")
    notebook("import time; time.sleep(0.2)\nmodel")
    assert notebook.error is None


# -- exactness and sharing -----------------------------------------------------------------------------------------


def test_display_history_does_not_keep_a_demoted_value(notebook):
    notebook("import numpy as np\ndf = np.ones(2_000_000)\n%memkit register df")
    notebook("df")
    notebook("_answer = %memkit spill df")
    assert notebook["_answer"].measured > 0.9 * 16e6
    notebook("out = df.sum()")
    assert notebook["out"] == 2e6


def test_a_variable_that_something_else_holds_is_left_in_place_and_the_holder_is_named(notebook):
    notebook("import numpy as np\ndf = np.ones(1_000_000)\nalias = [df]\n%memkit register df")
    text = notebook("%memkit spill df")
    assert notebook.error is not None
    assert "alias" in text
    assert notebook["alias"][0] is notebook["df"]


def test_only_real_holders_are_named(notebook):
    """Not memkit's handles and answers, nor the frames of the very call, nor what no name leads to."""
    notebook("import memkit, pandas as pd\ndf = pd.DataFrame({'a': range(100_000)})\ngroups = df.groupby('a')")
    notebook("h = memkit.track(df, name='h')\nh")
    notebook("%memkit register df\nanswer = %memkit top")
    text = notebook("%memkit spill df")
    held = text.split("held by ")[1]
    assert "groups" in held
    for wrong in ("genexpr", "frame", "reached through gc", "Out[", "answer", "variable `h`", "h._"):
        assert wrong not in held, text


def test_two_views_of_one_buffer_spilled_together_still_share_it(notebook):
    notebook("import numpy as np\na = np.arange(1_000_000.0)\nb = a[::2]\n%memkit register a b")
    notebook("%memkit spill a b")
    assert notebook.error is None
    notebook("b.sum()")
    assert notebook.tier("a") == notebook.tier("b") == "ram"
    notebook("a[0] = 77.0\nout = b[0]")
    assert notebook["out"] == 77.0
    assert np.shares_memory(notebook["a"], notebook["b"])


def test_a_corrupted_file_keeps_the_cell_from_running_and_says_so(spilled, tmp_path):
    (file,) = (tmp_path / "store").rglob("*.values")
    with open(file, "r+b") as stream:
        stream.seek(-5000, 2)
        stream.write(b"\x55" * 16)
    text = spilled("ran = True\ndf.sum()")
    assert spilled.error is not None
    assert "the cell was not run" in text
    assert "df cannot be restored" in text
    assert "ran" not in spilled
    assert spilled.tier("df") == "disk"
    assert "the cell was not run" not in spilled("1 + 1")


def test_a_recipe_that_fails_names_the_variable_and_keeps_the_cell_from_running(notebook):
    notebook("x = [1]\n%memkit register x --reload 'nosuch + 1'\n%memkit unload x")
    text = notebook("ran = True\nlen(x)")
    assert "the cell was not run: 'x' could not be made anew: its reload recipe raised NameError" in text
    assert "ran" not in notebook
    assert notebook("%memkit restore x").startswith("UsageError: 'x' could not be made anew")
    notebook("x = [2]")
    assert notebook["x"] == [2], "binding it anew needs no recipe"


def test_what_cannot_be_pickled_stays_and_says_why(notebook):
    notebook("gen = (i for i in range(3))\n%memkit register gen")
    text = notebook("%memkit spill gen")
    assert "UsageError" in text
    assert "generator" in text
    notebook("out = list(gen)")
    assert notebook["out"] == [0, 1, 2]


# -- accounting ----------------------------------------------------------------------------------------------------


def records(notebook):
    from memkit.notebook.extension import loaded

    return loaded(notebook.shell).cells.records


# Not from the heap, where an earlier test may have left a free block of this size.
SPIKE = """m = mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for start in range(0, len(m), 2**20):
    m[start : start + 2**20] = b"x" * 2**20
m.close()"""


def test_every_cell_has_a_record_with_its_exact_peak(notebook):
    notebook("import mmap")
    notebook(SPIKE)
    record = records(notebook)[-1]
    if record.method == "kernel high-water mark":
        assert record.peak - record.before > 60 * 2**20
    assert abs(record.delta) < 16 * 2**20
    assert record.seconds > 0
    assert record.error is None
    assert record.title == SPIKE.splitlines()[0][:60]


def test_a_cell_that_raises_is_recorded_with_its_error(notebook):
    notebook("1/0")
    assert records(notebook)[-1].error == "ZeroDivisionError"


def test_a_nested_cell_counts_towards_the_outer_peak(notebook):
    notebook(f"import mmap\nspike = {SPIKE!r}")
    notebook("get_ipython().run_cell(spike); z = 1")
    inner, outer = list(records(notebook))[-2:]
    assert outer.title.startswith("get_ipython")
    if outer.method == "kernel high-water mark":
        assert outer.peak - outer.before > 60 * 2**20
    assert inner.peak <= outer.peak or outer.peak is None


def test_silent_cells_leave_no_record_but_do_bring_variables_back(spilled):
    count = len(records(spilled))
    spilled.shell.run_cell("out = df.sum()", silent=True)
    assert len(records(spilled)) == count
    assert spilled["out"] == 4999950000.0
    assert spilled.session.tracker.get("df").held == 0


def test_concurrent_async_use_of_the_hooks_does_not_mix_threads(notebook):
    async def main():
        await asyncio.to_thread(notebook.shell.events.trigger, "pre_execute")
        await asyncio.to_thread(notebook.shell.events.trigger, "post_execute")

    notebook("x = [1]\n%memkit register x")
    asyncio.run(main())
    notebook("x")
    assert notebook.error is None
    assert notebook.session.tracker.get("x").held == 0
