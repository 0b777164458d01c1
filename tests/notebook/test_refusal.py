"""What a cell that ran out of memory ends with: a message that helps, in no time, and nothing that holds memory."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from memkit import config
from memkit.errors import MemoryGuardError
from memkit.lifecycle.holders import Namespace
from memkit.notebook.errorslot import ErrorSlot
from memkit.notebook.refusal import Refusal
from memkit.wiring import Session
from tests.fresh import in_fresh_process
from tests.memory.guard.gates import FakeGate

GIB, MIB = 2**30, 2**20


@dataclass
class FakeRefused:
    free: int = 96 * MIB
    limit: int = 4 * GIB
    grown: int = int(3.1 * GIB)
    promised: int = 0
    budget: int | None = None
    reason: str = ""


class FakeGuard(FakeGate):
    """Always short; what a real one would say of the cell."""

    said: FakeRefused | None = FakeRefused()

    def refusal(self) -> FakeRefused | None:
        return self.said


@pytest.fixture
def guard() -> FakeGuard:
    return FakeGuard(left=96 * MIB)


@pytest.fixture
def cell(plain: Any, guard: FakeGuard) -> Iterator[Any]:
    """Runs cells in a shell with a refusal; what a reader of the notebook would see."""
    shell = plain.shell
    session = Session(config.load(), space=Namespace(shell.user_ns))
    slot = ErrorSlot(shell)
    refusal = Refusal(shell, session, guard, slot)
    slot.install()
    refusal.install()
    shell.events.register("pre_run_cell", begin := lambda info: refusal.begin())
    plain.refusal, plain.slot, plain.tracking = refusal, slot, session
    yield plain
    shell.events.unregister("pre_run_cell", begin)
    refusal.uninstall()
    slot.uninstall()
    session.close()


LOAD = """
def load(count):
    rows = []
    for _ in range(count):
        rows.append(bytearray(100_000))
    raise MemoryError

"""


# -- the words --------------------------------------------------------------------------------------------------------


def test_the_message_says_what_was_missing_what_grew_and_how_to_go_on(cell):
    text = cell("rows = [bytearray(1000_000) for _ in range(20)]\nraise MemoryError")
    assert text.splitlines() == [
        "MemoryGuardError: this cell needed more memory than is left: 96.0 MiB free of 4.00 GiB "
        "(it had grown by 3.10 GiB).",
        "  growing: rows (list, 19.1 MiB, new in this cell)          to go on: del rows   |   read in chunks",
        "  cell line 2: raise MemoryError",
    ]
    assert type(cell.error) is MemoryGuardError
    assert "MemoryGuardError: " + str(cell.error) + "\n" == text


def test_it_says_where_in_the_notebooks_own_code(cell):
    cell(LOAD)
    text = cell("x = 1\nload(30)")
    assert (
        "  growing: rows in load() (list, 2.9 MiB, gone with this error)          to go on: %memkit top   |   " in text
    )
    assert text.splitlines()[2:] == ["  cell line 2: load(30)", "  cell In[1] line 5, in load: raise MemoryError"]


def test_the_last_three_lines_are_kept_and_a_recursion_is_one(cell):
    text = cell("def f(n):\n    if n == 0:\n        raise MemoryError\n    f(n - 1)\ndef g():\n    f(500)\ng()")
    assert text.splitlines()[2:] == [
        "  cell line 6, in g: f(500)",
        "  cell line 4, in f (500 times): f(n - 1)",
        "  cell line 3, in f: raise MemoryError",
    ]


def test_a_foreign_error_becomes_the_same_with_its_own_words_in_one_line(cell):
    text = cell("raise RuntimeError('''DefaultCPUAllocator: can't allocate memory:\\nyou tried to allocate 5 bytes''')")
    assert text.startswith("MemoryGuardError: this cell needed more memory than is left")
    assert "\n  RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes\n" in text


@pytest.mark.parametrize("kind", ["MemoryGuardError", "MemoryGuardInterrupt"])
def test_what_the_guard_has_said_itself_is_not_said_again(kind, cell):
    cell(f"from memkit.errors import {kind}")
    text = cell(f"raise {kind}('importing torch takes about 145.0 MiB; 96.0 MiB are left')")
    assert text.splitlines()[0] == "MemoryGuardError: importing torch takes about 145.0 MiB; 96.0 MiB are left"
    assert "96.0 MiB" not in text.splitlines()[1]


def test_a_budget_that_is_used_up_is_named(cell, guard):
    guard.said = FakeRefused(budget=GIB)
    assert cell("raise MemoryError").startswith("MemoryGuardError: this cell has used up its budget of 1.00 GiB")


def test_where_memory_cannot_be_read_it_still_ends_well(cell, guard):
    guard.said = None
    assert cell("raise MemoryError").startswith("MemoryGuardError: this cell needed more memory than is left.")


# -- what is passed on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["ValueError('x')", "OSError(2, 'x')", "RuntimeError('x')", "KeyboardInterrupt()"])
def test_every_other_error_is_shown_as_ever(error, cell):
    text = cell(f"raise {error}")
    assert error.partition("(")[0] in text
    assert "MemoryGuardError" not in text
    assert sys.last_traceback is not None


def test_with_the_guard_off_memory_errors_are_shown_as_ever(cell, guard):
    guard.on = False
    text = cell("raise MemoryError('plain')")
    assert "MemoryError: plain" in text
    assert "MemoryGuardError" not in text
    assert "Traceback" in text


def test_errors_shown_by_a_magic_or_a_callback_are_refused_alike(cell):
    """`%%time` and ipywidgets catch errors and call `showtraceback` themselves."""
    text = cell("try:\n    raise MemoryError\nexcept MemoryError:\n    get_ipython().showtraceback()")
    assert text.startswith("MemoryGuardError: this cell needed more")
    assert cell.error is None
    assert "MemoryGuardError: this cell needed more" in cell("%%time\nraise MemoryError")


# -- nothing is held --------------------------------------------------------------------------------------------------


class Probe:
    """Can be watched."""


HOLD = """
def inner():
    local = Probe(); watch.append(weakref.ref(local))
    try:
        raise ValueError
    except ValueError:
        other = Probe(); watch.append(weakref.ref(other))
        deep()
def deep():
    last = Probe(); watch.append(weakref.ref(last))
    raise MemoryError
"""


@pytest.mark.parametrize("afterwards", ["", "%tb", "%debug", "import sys; sys.last_value"])
def test_nothing_that_the_code_held_is_kept_and_the_commands_for_errors_do_not_fail(afterwards, cell, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *any: "q")
    watch: list[Any] = []
    cell.shell.user_ns.update(Probe=Probe, weakref=weakref, watch=watch)
    cell(HOLD)
    cell("inner()")
    if afterwards:
        cell(afterwards)
        assert cell.error is None
    gc.collect()
    assert [one() for one in watch] == [None] * 3
    assert sys.last_value.__traceback__.tb_next is None
    assert sys.last_value.__traceback__.tb_frame.f_back is None


def test_tb_shows_the_message_again(cell):
    text = cell("raise MemoryError")
    assert cell("%tb") == text


def test_the_error_before_is_let_go_of_too(cell):
    cell("1 / 0")
    cell("raise MemoryError")
    assert cell.shell.InteractiveTB.tb is None


def test_the_history_keeps_the_message_and_not_the_traceback(cell):
    cell.shell.history_manager.enabled = True
    cell("raise MemoryError")
    kept = getattr(cell.shell.history_manager, "exceptions", None)
    if kept:  # IPython 9
        assert kept[max(kept)]["ename"] == "MemoryGuardError"
        assert len(kept[max(kept)]["traceback"]) == 3


@pytest.mark.skipif(sys.version_info < (3, 11), reason="deep recursion overflows the C stack")
def test_it_takes_no_time_after_a_deep_recursion(cell):
    """IPython takes half a minute to format it."""
    cell("import sys\nlimit = sys.getrecursionlimit()\nsys.setrecursionlimit(200_000)")
    cell(
        "def f(n):\n    if n == 0:\n        began.append(time.perf_counter())\n        raise MemoryError\n    f(n - 1)"
    )
    began: list[float] = []
    cell.shell.user_ns.update(began=began, time=time)
    try:
        cell("f(50_000)")
        took = time.perf_counter() - began[0]
    finally:
        cell("sys.setrecursionlimit(limit)")
    assert took < 1


def test_a_refusal_that_fails_leaves_the_error_to_ipython(cell, guard, caplog):
    guard.refusal = lambda: 1 / 0
    assert "MemoryError: mine" in cell("raise MemoryError('mine')")
    assert "could not be explained" in caplog.text
    assert MemoryError in cell.shell.custom_exceptions


def test_the_limit_is_lifted_while_it_is_told(cell, guard):
    cell("raise MemoryError")
    assert (guard.lifts, guard.inside) == (1, 0)


# -- policies ---------------------------------------------------------------------------------------------------------


def test_what_policies_could_free_is_offered_by_its_command(cell, guard):
    cell("spare = bytearray(300 * 2**20)")
    cell.tracking.register("spare")
    guard.said = FakeRefused(grown=100 * MIB)
    assert "to go on: %memkit reclaim 132MiB   |   read in chunks" in cell("raise MemoryError")
    assert cell.tracking.tracker.get("spare").tier == "ram", "offered, not done"


@in_fresh_process
def test_after_a_failed_allocation_what_was_missing_is_freed(cell, guard):
    numpy = pytest.importorskip("numpy")
    cell.shell.user_ns.update(spare=numpy.ones(40 * MIB), numpy=numpy)
    cell.tracking.register("spare")
    text = cell("raise MemoryError('Unable to allocate 200. MiB for an array')")
    assert "  memkit has freed 3" in text
    assert "since (spare moved away): run the cell again" in text
    assert cell.tracking.tracker.get("spare").demoted


def test_what_would_not_be_enough_is_not_moved(cell, guard):
    numpy = pytest.importorskip("numpy")
    cell.shell.user_ns["spare"] = numpy.ones(40 * MIB)
    cell.tracking.register("spare")
    text = cell("raise MemoryError('Unable to allocate 2.00 GiB for an array')")
    assert "memkit has freed" not in text
    assert "%memkit reclaim 321MiB" in text
    assert not cell.tracking.tracker.get("spare").demoted


# -- in and out -------------------------------------------------------------------------------------------------------


def test_uninstalled_the_shell_is_as_it_was(cell):
    shell = cell.shell
    assert "showtraceback" in shell.__dict__
    cell.refusal.install()
    cell.refusal.uninstall()
    cell.refusal.uninstall()
    assert "showtraceback" not in shell.__dict__


REAL = """
import io, re, resource, sys, time
sys.argv = ["ipython"]
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
from memkit import config
from memkit.lifecycle.holders import Namespace
from memkit.notebook.errorslot import ErrorSlot
from memkit.notebook.refusal import Refusal
from memkit.wiring import Session
from tests.notebook.test_refusal import FakeGuard
import contextlib, json
def data():
    return int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
class Guard(FakeGuard):
    @contextlib.contextmanager
    def lifted(self):
        limit = resource.getrlimit(resource.RLIMIT_DATA)
        leave(data() + 40 * 2**20)  # all that is really left
        yield
        resource.setrlimit(resource.RLIMIT_DATA, limit)
def leave(size):
    resource.setrlimit(resource.RLIMIT_DATA, (size, -1))
settings = Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "nocolor"})
shell = InteractiveShell.instance(config=settings)
session, slot = Session(config.load(), space=Namespace(shell.user_ns)), ErrorSlot(shell)
refusal = Refusal(shell, session, Guard(left=2**20), slot)
slot.install(); refusal.install()
for line in sys.stdin:
    source = json.loads(line)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        if source.startswith("#limited"):
            refusal.begin()
            leave(data() + 60 * 2**20)
        began = time.perf_counter()
        shell.run_cell(source)
        took = time.perf_counter() - began
        leave(resource.RLIM_INFINITY)
    print(json.dumps([out.getvalue(), took]), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA holds on Linux only")
@pytest.mark.parametrize(
    ("prepare", "source", "expected"),
    [
        ("", "rows = []\nwhile True: rows.append(bytearray(1000_000))", "growing: rows (list, "),
        ("", "d = {}\nfor n in range(10**9): d[n] = str(n) * 9", "growing: d (dict, "),
        ("", "t = 'x' * 1000\nwhile True: t += t", "growing: t (str, "),
        ("", "list(range(10**9))", "cell line 2: list(range(10**9))"),
        ("def f(n): return f(n + 1)\nimport sys; sys.setrecursionlimit(10**8)", "f(0)", ", in f ("),
        ("import numpy", "numpy.ones(4 * 10**8)", "  MemoryError: Unable to allocate 2.98"),
        ("import torch", "torch.ones(4 * 10**8)", "RuntimeError: [enforce fail"),
        ("import threading, time", "for _ in range(99): threading.Thread(target=time.sleep, args=(2,)).start()",
         "RuntimeError: can't start new thread"),
    ],
    ids=["list", "dict", "str", "at once", "recursion", "numpy", "torch", "threads"],
)  # fmt: skip
def test_with_little_memory_really_left_it_still_tells(prepare, source, expected):
    if source == "f(0)" and sys.version_info < (3, 11):
        pytest.skip("deep recursion overflows the C stack")
    if "import " in prepare and "sys" not in prepare:
        pytest.importorskip(prepare.split()[1].rstrip(","))
    cells = [json.dumps(prepare), json.dumps(f"#limited\n{source}"), json.dumps("print('alive')")]
    done = subprocess.run(
        [sys.executable, "-c", REAL], input="\n".join(cells) + "\n", capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]
    _, (text, _took), (alive, _) = map(json.loads, done.stdout.splitlines())
    assert text.startswith("MemoryGuardError: this cell needed more memory than is left"), text[:800]
    assert expected in text
    assert alive == "alive\n"


@pytest.mark.kernel
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA holds on Linux only")
def test_in_a_real_kernel_reply_and_output_are_the_message_and_the_next_cell_works():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        _execute(client, "%load_ext memkit\n%memkit config limit 1GiB")
        reply, outputs = _execute(client, "kept = 7\nrows = bytearray(10**7)\nlist(range(10**9))")
        (shown,) = [one for one in outputs if one["msg_type"] == "error"]
        for content in (reply, shown["content"]):
            assert content["ename"] == "MemoryGuardError"
            assert content["evalue"].startswith("this cell needed more memory than is left")
            assert "growing: rows (bytearray, 9.5 MiB, new in this cell)" in "\n".join(content["traceback"])
        assert _execute(client, "assert kept == 7 and len(rows) == 10**7")[0]["status"] == "ok"
        assert _execute(client, "%tb")[0]["status"] == "ok"
        reply, _ = _execute(client, "%unload_ext memkit\nraise MemoryError('plain')")
        assert (reply["ename"], reply["evalue"]) == ("MemoryError", "plain")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _execute(client: Any, source: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    outputs: list[dict[str, Any]] = []
    reply = client.execute_interactive(source, output_hook=outputs.append, timeout=60, allow_stdin=False)
    return reply["content"], outputs
