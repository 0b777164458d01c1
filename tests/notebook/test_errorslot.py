"""One slot for many handlers: each for its types, in turn, with whoever had it before at the end."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from memkit.notebook.errorslot import ErrorSlot


@pytest.fixture
def slot(shell):
    made = ErrorSlot(shell)
    yield made
    made.uninstall()


def run(shell: Any, source: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    shell.run_cell(source)
    out = capsys.readouterr()
    return out.out + out.err


def test_each_handler_gets_the_errors_of_its_types(shell, slot, capsys):
    seen: list[str] = []
    slot.add((ValueError,), lambda kind, error, tb, offset: seen.append(f"value {error}"))
    slot.add((KeyError,), lambda kind, error, tb, offset: seen.append(f"key {error}"))
    slot.install()
    assert "Error" not in run(shell, "raise ValueError('a')", capsys), "shown by the handler, which showed nothing"
    run(shell, "raise KeyError('b')", capsys)
    assert "TypeError: c" in run(shell, "raise TypeError('c')", capsys)
    assert seen == ["value a", "key 'b'"]


def test_what_a_handler_passes_on_goes_to_the_next_and_is_shown_at_last(shell, slot, capsys):
    def note(kind: type, error: BaseException, traceback: Any, offset: Any) -> BaseException:
        error.args = (f"{error} noted",)
        return error

    slot.add((LookupError,), note)
    slot.add((KeyError, IndexError), note)
    slot.install()
    text = run(shell, "raise IndexError('x')", capsys)
    assert "IndexError: x noted noted" in text
    assert "raise IndexError" in text, "with its traceback"


def test_a_handler_added_later_is_heard(shell, slot):
    seen: list[BaseException] = []
    slot.install()
    slot.add((ValueError,), lambda kind, error, tb, offset: seen.append(error))
    shell.run_cell("raise ValueError")
    assert len(seen) == 1


def test_a_handler_that_fails_is_left_out_and_the_slot_stays(shell, slot, capsys, caplog):
    slot.add((ValueError,), lambda kind, error, tb, offset: 1 / 0)
    slot.install()
    assert "ValueError: mine" in run(shell, "raise ValueError('mine')", capsys)
    assert "could not be explained" in caplog.text
    assert ValueError in shell.custom_exceptions


def test_whoever_had_the_slot_gets_the_errors_it_had(shell, slot, capsys):
    seen: list[str] = []
    shell.set_custom_exc((ValueError,), lambda shell, kind, error, tb, tb_offset=None: seen.append(str(error)))
    slot.add((ValueError, KeyError), lambda kind, error, tb, offset: error)
    slot.install()
    run(shell, "raise ValueError('before')", capsys)
    assert seen == ["before"]
    assert "KeyError" in run(shell, "raise KeyError('x')", capsys)


def test_uninstalled_the_slot_is_as_it_was(shell, slot):
    before = (shell.custom_exceptions, shell.CustomTB)
    slot.add((ValueError,), lambda *all: None)
    slot.install()
    slot.install()
    slot.uninstall()
    slot.uninstall()
    assert (shell.custom_exceptions, shell.CustomTB) == before


def test_a_slot_that_another_has_taken_since_stays_with_it(shell, slot):
    slot.add((ValueError,), lambda *all: None)
    slot.install()
    shell.set_custom_exc((KeyError,), None)
    slot.add((TypeError,), lambda *all: None)
    slot.uninstall()
    assert shell.custom_exceptions == (KeyError,)


@pytest.mark.parametrize("source", ["a b", "  x = 1\n y = 2", "def f():\nreturn 1", "x = '\0'"])
def test_what_compiling_raises_is_shown_as_without_the_slot(source, shell, slot, capsys):
    """IPython asks the slot there too, but only for types that somebody registered."""
    if "\0" in source and sys.version_info < (3, 11):
        pytest.skip("IPython 8 fails at it")
    plain = run(shell, source, capsys)
    slot.add((ValueError, SyntaxError, MemoryError), lambda kind, error, tb, offset: error)
    slot.install()
    assert run(shell, source, capsys).replace("In[2]", "In[1]") == plain.replace("In[2]", "In[1]")
