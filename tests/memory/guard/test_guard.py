"""The guard as a whole, in a process of its own that may take 400 MiB more than it has."""

from __future__ import annotations

import sys

import pytest

from tests.memory.guard.conftest import Run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard is Linux; elsewhere a lookout")
HOG = "rows = []\\nwhile True: rows.append(bytes(2_000))"


def test_a_cell_that_grows_without_end_is_ended_and_the_next_one_works(run: Run) -> None:
    out = run(f"""
error = cell("{HOG}")
print(type(error).__name__, error)
print(cell("del rows"), cell("x = bytearray(200 * MIB)"), len(space["x"]) // MIB)
""")
    first, second = out.splitlines()
    assert first.startswith("MemoryGuardError this cell needed more memory than is left: ")
    assert "it had grown by " in first
    assert second == "None None 200"


def test_one_allocation_that_cannot_be_had_fails_at_once(run: Run) -> None:
    assert run('print(type(cell("x = bytearray(10 ** 10)")).__name__)') == "MemoryError\n"


def test_a_cell_that_stays_128_mib_below_the_limit_passes(run: Run) -> None:
    assert run("print(cell(\"x = bytearray(b'1' * MIB) * 260; del x; y = bytearray(b'1' * MIB) * 260\"))") == "None\n"


def test_a_cell_that_swallows_the_error_is_interrupted(run: Run) -> None:
    out = run("""
error = cell('''
rows = []
while True:
    try:
        while True: rows.append(bytes(2_000))
    except Exception:
        time.sleep(0.01)
''')
print(isinstance(error, (KeyboardInterrupt, MemoryGuardError)), cell("del rows"))
""")
    assert out == "True None\n"


def test_before_a_cell_is_ended_memory_is_asked_for_and_if_it_comes_the_cell_goes_on(run: Run) -> None:
    out = run("""
space["spare"] = bytearray(b"1" * MIB) * 150
guard._relieve = lambda needed: space.pop("spare", None)
guard.companion._relieve = guard._relieve
print(cell("rows = [bytearray(b'1' * MIB) for _ in range(200)]"), "spare" in space, guard.handler.relieved)
""")
    assert out == "None False 1\n"


def test_nothing_is_raised_outside_the_notebooks_own_code(run: Run) -> None:
    out = run("""
rows = []
guard.begin_cell()
while guard.handler.calls < 3 and len(rows) < 390: rows.append(bytearray(b"1" * MIB)); time.sleep(0.003)
print(guard.handler.calls > 0, guard.handler.refused)
""")
    assert out == "True 0\n"


def test_threads_that_the_cell_started_end_too_by_the_signal_or_by_the_limit(run: Run) -> None:
    out = run("""
threading.excepthook = lambda args: ended.append(issubclass(args.exc_type, MemoryError))
ended = []
cell('''
def hog():
    rows = []
    while True: rows.append(bytes(2_000))
hogs = [threading.Thread(target=hog) for _ in range(2)]
for hog in hogs: hog.start()
for hog in hogs: hog.join()
''')
wait_until(lambda: not any(hog.is_alive() for hog in space["hogs"]))
print(ended, cell("x = bytearray(100 * MIB)"))
""")
    assert out == "[True, True] None\n"


def test_a_process_that_the_cell_started_is_stopped_in_its_stead(run: Run) -> None:
    out = run("""
error = cell('''
import subprocess, sys
subprocess.run([sys.executable, "-c", "rows = []\\\\nwhile True: rows.append(bytes(2_000))"])
''')
print(type(error).__name__, "was stopped" in str(error))
""")
    assert out == "MemoryGuardError True\n"


def test_inside_lift_nothing_is_guarded_and_after_it_everything_is(run: Run) -> None:
    out = run("""
before = guard.limit.soft
inside = "x = bytearray(b'1' * MIB) * 450; soft = guard.limit.soft; del x"
print(cell(f"with guard.lift(): {inside}"), space["soft"])
print(cell("guard.lift(); x = bytearray(b'1' * MIB) * 450; del x"), guard.limit.soft is not None)
print(type(cell("x = bytearray(10 ** 10)")).__name__)
""")
    assert out.splitlines() == ["None None", "None True", "MemoryError"]


def test_a_budget_is_a_ceiling_for_its_block_alone(run: Run) -> None:
    out = run("""
print(cell("with guard.budget(100 * MIB):\\n    rows = [bytes(2_000) for _ in range(10 ** 8)]"))
print(cell("rows = bytearray(b'1' * MIB) * 150; del rows"))
error = cell("with guard.budget(50 * MIB):\\n    x = bytearray(2 * 10 ** 8)")
print(type(error).__name__, guard.page.data_ceiling)
""")
    assert out.splitlines() == ["this cell has used up its budget of 100.0 MiB", "None", "MemoryError 0"]


def test_a_failed_allocation_inside_a_budget_is_the_budgets(run: Run) -> None:
    out = run("""
cell('''
with guard.budget(50 * MIB):
    try: x = bytearray(2 * 10 ** 8)
    except MemoryError: refused = guard.refusal()
''')
print(space["refused"].budget // MIB)
cell("try: x = bytearray(10 ** 10)\\nexcept MemoryError: refused = guard.refusal()")
print(space["refused"].budget)
""")
    assert out == "50\nNone\n"


def test_untouched_memory_of_an_earlier_cell_is_not_given_out_twice(run: Run) -> None:
    out = run("""
import mmap
space["mmap"] = mmap
print(cell("a = mmap.mmap(-1, 200 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"))
print(type(cell("b = bytearray(b'1' * MIB) * 250")).__name__)
print(cell("b = None; a[:] = bytes(1) * len(a)") is None)
""")
    assert out.splitlines()[:2] == ["None", "MemoryError"]


def test_what_is_off_leaves_no_trace(run: Run) -> None:
    out = run("""
import signal
guard.stop(); guard.stop()
print(guard.on, guard.limit.soft, signal.getsignal(guard.handler.number) == signal.SIG_DFL)
print([t.name for t in threading.enumerate()])
guard.start(); guard.start()
print(guard.on, guard.limit.soft is not None)
""")
    assert out.splitlines() == ["False None True", "['MainThread']", "True True"]


def test_in_a_forked_child_it_is_off_and_touches_nothing_of_the_parents(run: Run) -> None:
    out = run("""
pid = os.fork()
if pid == 0:
    guard.begin_cell(); guard.end_cell(); guard.stop()
    os._exit(0 if not guard.on else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), guard.on, guard.page.mode)
""")
    assert out == "0 True 1\n"


def test_it_can_only_be_switched_on_in_the_main_thread(run: Run) -> None:
    out = run("""
guard.stop()
def start():
    try: guard.start()
    except Exception as error: print(error)
t = threading.Thread(target=start); t.start(); t.join()
""")
    assert "not from a subshell" in out
