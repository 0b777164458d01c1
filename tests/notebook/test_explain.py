"""A NameError for what memkit has moved away or released says so, in the slot it shares."""

from __future__ import annotations

from memkit.notebook.errorslot import ErrorSlot
from memkit.notebook.explain import Explain


def test_a_name_that_was_moved_away_is_explained(notebook):
    notebook("big = list(range(10000))\n%memkit register big\n%memkit spill big")
    text = notebook("eval('big')")
    assert "memkit has moved it away" in text
    assert "%memkit restore big" in text


def test_a_name_that_was_released_is_explained(notebook):
    notebook("big = list(range(10000))\n%memkit register big\n%memkit release big")
    assert "memkit: " in notebook("big")


def test_another_name_is_left_alone(notebook):
    text = notebook("nonsense")
    assert "NameError: name 'nonsense' is not defined" in text
    assert "memkit" not in text


def test_it_shares_a_slot(notebook):
    shell = notebook.shell
    seen = []
    slot = ErrorSlot(shell)
    Explain(shell, notebook.session, slot)
    slot.add((ValueError,), lambda kind, error, tb, offset: seen.append(error))
    slot.install()
    try:
        notebook("big = list(range(10000))\n%memkit register big\n%memkit release big")
        assert "memkit: " in notebook("big")
        notebook("raise ValueError")
        assert len(seen) == 1
    finally:
        slot.uninstall()
