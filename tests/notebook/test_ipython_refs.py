"""IPython's own references: after `forget` and `forget_traceback` the object is really gone."""

from __future__ import annotations

import builtins
import gc
import sys
import weakref
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from memkit.notebook.ipython_refs import count, forget, forget_traceback, traceback_holds

_LAST = ("last_type", "last_value", "last_traceback", "last_exc")


@pytest.fixture
def shell(shell: InteractiveShell) -> InteractiveShell:
    """The common shell, with a class whose instances can be watched."""
    shell.run_cell("class Thing:\n    def __repr__(self): return 'thing'", store_history=True)
    return shell


def run(shell: InteractiveShell, cell: str) -> Any:
    shell.run_cell(cell, store_history=True)


def reference(shell: InteractiveShell, name: str) -> weakref.ref[Any]:
    return weakref.ref(shell.user_ns[name])


def is_gone(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is None


def test_without_forget_a_displayed_object_outlives_del(shell: InteractiveShell) -> None:
    """The reason for this module; when IPython changes, this test tells."""
    run(shell, "a = Thing()\na")
    thing = reference(shell, "a")
    run(shell, "del a")
    assert not is_gone(thing)


def test_an_object_that_was_displayed_and_deleted_dies(shell: InteractiveShell) -> None:
    run(shell, "Thing()")
    number = shell.execution_count - 1
    thing = reference(shell, "_")
    assert forget(shell, thing()) == (f"Out[{number}]", f"_{number}", "_", "the last result")
    assert is_gone(thing)


def test_count_tells_how_many_references_forgetting_takes_away(shell: InteractiveShell) -> None:
    run(shell, "a = Thing()\na")
    run(shell, "a")
    value = shell.user_ns["a"]
    before, counted = sys.getrefcount(value), count(shell, value)
    forget(shell, value)
    assert counted > 0
    assert before - sys.getrefcount(value) == counted
    assert count(shell, value) == 0


def test_an_object_displayed_several_times_dies(shell: InteractiveShell) -> None:
    run(shell, "a = Thing()\na")
    for _ in range(3):
        run(shell, "a")
    thing = reference(shell, "a")
    cleared = forget(shell, thing())
    assert {"_", "__", "___"} < set(cleared)
    assert sum(name.startswith("Out[") for name in cleared) == 4
    run(shell, "del a")
    assert is_gone(thing)


def test_the_variable_of_the_user_stays(shell: InteractiveShell) -> None:
    run(shell, "a = b = Thing()\na")
    value = shell.user_ns["a"]
    forget(shell, value)
    assert shell.user_ns["a"] is value
    assert shell.user_ns["b"] is value


def test_names_like_ipythons_that_the_user_assigned_stay(shell: InteractiveShell) -> None:
    run(shell, "_99 = Thing()\n_ = _99")
    value = shell.user_ns["_99"]
    assert forget(shell, value) == ()
    assert shell.user_ns["_99"] is value
    assert shell.user_ns["_"] is value


def test_other_results_stay(shell: InteractiveShell) -> None:
    run(shell, "'kept'")
    number = shell.execution_count - 1
    run(shell, "Thing()")
    forget(shell, shell.user_ns["_"])
    assert shell.user_ns["__"] == shell.user_ns["Out"][number] == shell.user_ns[f"_{number}"] == "kept"


def test_an_equal_object_is_not_forgotten(shell: InteractiveShell) -> None:
    """Identity decides; comparing could run foreign code."""
    run(shell, "class Odd:\n    def __eq__(self, other): raise RuntimeError('compared')\n    __hash__ = None\nOdd()")
    value = shell.user_ns["_"]
    assert forget(shell, object()) == ()
    assert "_" in forget(shell, value)


def test_displaying_works_on_after_forgetting(shell: InteractiveShell) -> None:
    for text in ("first", "second", "third"):
        run(shell, f"{text!r}")
        assert shell.user_ns["_"] == text
        forget(shell, shell.user_ns["_"])
        assert shell.user_ns["_"] == ""
    run(shell, "4")
    run(shell, "5")
    names = shell.user_ns
    assert (names["_"], names["__"], names["___"]) == (5, 4, "")
    assert type(names["Out"]) is dict
    assert names["Out"] is names["_oh"]
    assert sorted(names["Out"].values()) == [4, 5]
    run(shell, "_ + __")
    assert names["_"] == 9


def test_with_a_translation_function_in_builtins_ipython_keeps_less_and_all_is_forgotten(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "_", str, raising=False)
    run(shell, "a = Thing()\na")
    thing = reference(shell, "a")
    forget(shell, thing())
    run(shell, "del a")
    assert is_gone(thing)
    assert builtins._ is str  # type: ignore[attr-defined]
    assert "_" not in shell.user_ns


def test_inside_a_running_cell_the_result_of_that_cell_is_forgotten(shell: InteractiveShell) -> None:
    shell.user_ns["forget_now"] = lambda value: forget(shell, value)
    run(shell, "get_ipython().ast_node_interactivity = 'all'\na = Thing()\na\nforgotten = forget_now(a)\ndel a")
    thing = None
    run(shell, "import weakref\na = Thing()\nref = weakref.ref(a)\na\nforgotten = forget_now(a)\ndel a")
    thing = shell.user_ns["ref"]
    assert "the last result" in shell.user_ns["forgotten"]
    assert is_gone(thing)


ERROR = "def work():\n    local = Thing()\n    made.append(weakref.ref(local))\n    {}\n"


@pytest.fixture
def failed(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> InteractiveShell:
    run(shell, "import weakref\nmade = []")
    run(shell, ERROR.format("1 / 0") + "work()")
    return shell


def test_a_traceback_keeps_the_locals_and_says_so(failed: InteractiveShell) -> None:
    thing = failed.user_ns["made"][0]
    assert not is_gone(thing)
    assert traceback_holds(failed, thing())
    assert not traceback_holds(failed, object())


def test_after_forget_traceback_the_locals_die(failed: InteractiveShell) -> None:
    thing = failed.user_ns["made"][0]
    assert forget_traceback(failed)
    assert is_gone(thing)
    assert not any(hasattr(sys, name) for name in _LAST)


def test_looking_into_a_traceback_does_not_keep_its_objects(failed: InteractiveShell) -> None:
    thing = failed.user_ns["made"][0]
    traceback_holds(failed, thing())
    run(failed, "'an error-free cell'")
    forget_traceback(failed)
    assert is_gone(thing)


def test_the_last_execution_still_counts_as_failed(failed: InteractiveShell) -> None:
    forget_traceback(failed)
    assert failed.last_execution_result.success is False
    assert "ZeroDivisionError" in str(failed.last_execution_result.error_in_exec)


def test_variables_survive_forgetting_a_traceback(failed: InteractiveShell) -> None:
    """The cell's own frame is in the traceback, and its locals are the notebook."""
    before = dict(failed.user_ns)
    forget_traceback(failed)
    assert failed.user_ns.keys() == before.keys()
    assert all(failed.user_ns[name] is value for name, value in before.items())


def test_without_an_error_there_is_nothing_to_forget(shell: InteractiveShell) -> None:
    assert forget_traceback(shell) is False
    assert not traceback_holds(shell, object())


def test_a_second_call_finds_nothing(failed: InteractiveShell) -> None:
    assert forget_traceback(failed) is True
    assert forget_traceback(failed) is False


def test_errors_that_led_to_the_error_are_forgotten(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "import weakref\nmade = []")
    run(shell, ERROR.format("1 / 0") + "try:\n    work()\nexcept ZeroDivisionError as e:\n    raise ValueError from e")
    thing = shell.user_ns["made"][0]
    assert traceback_holds(shell, thing())
    forget_traceback(shell)
    assert is_gone(thing)


def test_the_frames_of_an_error_that_the_user_keeps_are_emptied(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "import weakref\nmade = []")
    run(shell, ERROR.format("raise kept") + "kept = ValueError('mine')\nwork()")
    thing = shell.user_ns["made"][0]
    forget_traceback(shell)
    assert shell.user_ns["kept"].args == ("mine",)
    assert is_gone(thing)


def test_an_object_given_to_the_error_is_held_and_forgotten(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "import weakref\na = Thing()\nref = weakref.ref(a)\nraise ValueError(a)")
    assert traceback_holds(shell, shell.user_ns["a"])
    forget_traceback(shell)
    run(shell, "del a")
    assert is_gone(shell.user_ns["ref"])


def test_a_variable_of_an_inner_function_is_seen(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """It lives in a cell between the two functions."""
    run(shell, "a = Thing()\ndef outer(b):\n    def inner():\n        return b / 0\n    return inner()\nouter(a)")
    assert traceback_holds(shell, shell.user_ns["a"])


def test_a_syntax_error_is_forgotten(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "a b")
    assert forget_traceback(shell)
    assert shell.last_execution_result.success is False


KERNEL_CELL = """
import gc, weakref
from memkit.notebook.ipython_refs import count, forget, forget_traceback, traceback_holds
shell = get_ipython()
thing = displayed()
cleared = forget(shell, thing)
holds = traceback_holds(shell, local())
thing = None
forgot = forget_traceback(shell)
gc.collect()
print(displayed(), local(), holds, forgot, "_" in cleared, any(name.startswith("Out[") for name in cleared))
"""


@pytest.mark.kernel
def test_in_a_real_kernel_displayed_and_failed_objects_die() -> None:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        printed: list[str] = []

        def output(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        cells = [
            "import weakref\nclass Thing: pass",
            "a = Thing()\ndisplayed = weakref.ref(a)\na",
            "del a",
            "def work():\n    global local\n    x = Thing()\n    local = weakref.ref(x)\n    1 / 0\nwork()",
            KERNEL_CELL,
            "'shown'",
            "print(_)",
        ]
        for cell in cells:
            client.execute_interactive(cell, timeout=60, output_hook=output, stop_on_error=False)
        assert "".join(printed).splitlines() == ["None None True True True True", "shown"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
