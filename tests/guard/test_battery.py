"""The fast selection of the battery: a case for each mechanism, in real kernels in a real control group of 1 GiB."""

from __future__ import annotations

import dataclasses

import pytest

from memkit.units import GIB
from tests.guard import runner, table
from tests.guard.case import DIED, RESCUED
from tests.guard.cases import CASES, named
from tests.guard.group import Group, NoGroupError
from tests.guard.outcome import Outcome

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_FAST = (
    "numpy.ones at once",  # the limit, in one C call
    "blocks appended to a list",  # the signal, in a Python loop
    "recursion that holds blocks",  # the traceback that must be let go
    "numpy.zeros over several cells, then += in one",  # mapped, untouched
    "torch.ones at once",  # an error of a library's own
    "read_csv, C engine",  # a C parser that crashes where malloc fails
    "a thread that grows",  # an exception in another thread
    "a subprocess that grows",  # the helper stops a child
    "multiprocessing.shared_memory",  # not counted by the limit
    "import torch at the brink",  # the import gate
    "except BaseException once",  # the third strike
    "del and go on after an incident",
    "memmap mode c, in one C call",
    "all that fits, in pieces",
    "allocate, free, allocate again with arrays",
    "a private mapping of a file larger than the limit, read",
    "forty threads",
    "SIGKILL in a C loop",
    "OOM kill inside one C call",
)


@pytest.fixture(scope="module", autouse=True)
def groups() -> None:
    try:
        Group(GIB).remove()
    except NoGroupError as error:
        pytest.skip(f"not tried here, a kernel in a small memory: {error}")


def _marked(name: str) -> object:
    reason = named(name).known_failure
    return pytest.param(name, marks=[pytest.mark.xfail(reason=reason, strict=False)] if reason else [])


@pytest.mark.parametrize("name", [_marked(name) for name in _FAST])
def test_it_ends_as_the_table_says(name: str) -> None:
    """The kernel lives, or the next one has every variable; what may happen is in the case."""
    outcome = runner.run(named(name), GIB, runner.Settings())
    assert outcome.kept or outcome.case.theme == "legitimate", f"{table.said(outcome)}: {outcome.note}"
    assert outcome.allowed, f"{table.said(outcome)}: {outcome.note}"


def test_the_fast_selection_has_every_theme() -> None:
    assert {named(name).theme for name in _FAST} >= {case.theme for case in CASES} - {"formats"}


def test_an_outcome_counts_as_the_table_says() -> None:
    """A known failure that costs no variable is shown and does not fail the run; whatever else is not allowed does."""
    died = Outcome(named("numpy.ones at once"), GIB, DIED, "SIGKILL")
    assert died.failed
    assert not died.kept
    known = Outcome(named("polars: cross join"), GIB, RESCUED, "SIGKILL")
    assert not known.failed
    assert not known.allowed
    assert "known" in table.failures([known])[1]
    assert dataclasses.replace(known, kind=DIED).failed
