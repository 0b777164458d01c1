"""The battery's table itself: as large as promised, without doubles, and every cell is code."""

from __future__ import annotations

import warnings

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tests.guard.case import ALIVE, KINDS, LIMITS, SAVED, UNTOUCHED, Case
from tests.guard.cases import CASES, DEATHS, HOSTILE, LEGITIMATE


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


def test_there_are_as_many_cases_as_promised_at_every_limit() -> None:
    """80 hostile cells, 20 legitimate ones and 12 deaths, at each of the four limits."""
    for limit in LIMITS:
        assert sum(limit in case.limits for case in HOSTILE) >= 80
        assert sum(limit in case.limits for case in LEGITIMATE) >= 20
        assert sum(limit in case.limits for case in DEATHS) >= 12


def test_every_limit_of_a_case_is_one_of_the_four() -> None:
    assert {limit for case in CASES for limit in case.limits} <= set(LIMITS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_its_cells_are_code(case: Case) -> None:
    transform = TransformerManager().transform_cell
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `"text" is ...` and the like are a cell's own affair
        for cell in (*case.setup, case.code, *case.after):
            source = cell.split("\n", 1)[1] if cell.startswith("%%") else cell
            compile(transform(source), case.name, "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT


def test_only_hostile_cells_may_be_refused() -> None:
    assert {case.name for case in LEGITIMATE if case.may != UNTOUCHED} == set()
    assert {case.name for case in DEATHS if case.may != SAVED} == set()
    assert {case.name for case in HOSTILE if not case.may >= ALIVE} == set()


def test_every_end_that_a_case_allows_is_a_kind_of_end() -> None:
    assert {kind for case in CASES for kind in case.may} <= set(KINDS)


def test_few_failures_are_known_and_each_has_a_reason() -> None:
    known = [case for case in CASES if case.known_failure]
    assert len(known) <= len(CASES) // 20
    assert all(len(case.known_failure.split()) >= 5 for case in known)
