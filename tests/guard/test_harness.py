"""The battery would notice: a variable lost or changed, a cell that does not run, a death and its signal."""

from __future__ import annotations

import pytest

from memkit.units import GIB
from tests.guard import runner
from tests.guard.case import BROKEN, CHECK, DIED, LOST, PASSED, REFUSED, WRONG, Case, Death
from tests.guard.group import Group, NoGroupError

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.soak]

_SEEN = {
    "nothing happens": (Case("x", "x = 1"), PASSED, ""),
    "an error that is allowed": (Case("x", "raise MemoryError"), REFUSED, "MemoryError"),
    "an error that is not": (Case("x", "1 / 0"), WRONG, "ZeroDivisionError"),
    "a variable is gone": (Case("x", "del keep_text"), LOST, "NameError"),
    "one number is another": (Case("x", "keep_numbers[12345] += 1"), LOST, "changed"),
    "a list inside is longer": (Case("x", "keep_nested['name']['deep'].append(3)"), LOST, "changed"),
    "the next cell fails": (Case("x", "import zlib\ndel zlib.crc32"), CHECK, "AttributeError"),
    "a cell after it fails": (Case("x", "x = 1", after=("1 / 0",)), CHECK, "ZeroDivisionError"),
    "the set-up fails": (Case("x", "x = 1", setup=("1 / 0",)), BROKEN, "ZeroDivisionError"),
    "exit": (Case("x", "import os\nos._exit(3)"), DIED, "exit 3"),
    "a signal while idle": (Case("x", "x = 1", death=Death("SIGTERM", running=False)), DIED, "SIGTERM"),
}


@pytest.mark.parametrize("name", _SEEN)
def test_it_sees(name: str) -> None:
    """Without memkit, so that nothing is between the harness and what happens."""
    case, kind, detail = _SEEN[name]
    try:
        outcome = runner.run(case, GIB // 2, runner.Settings(guard=False))
    except NoGroupError as error:
        pytest.skip(f"not tried here, a kernel in a small memory: {error}")
    assert (outcome.kind, outcome.detail) == (kind, detail)


def test_it_sees_the_oom_killer() -> None:
    """A real OOM kill is told from any other SIGKILL by the group's own count."""
    case = Case("x", "x = bytearray(b'x') * (2 * LIMIT)")
    try:
        outcome = runner.run(case, GIB // 4, runner.Settings(guard=False))
    except NoGroupError as error:
        pytest.skip(f"not tried here, a kernel in a small memory: {error}")
    assert (outcome.kind, outcome.detail, outcome.oom_kills) == (DIED, "SIGKILL", 1)
    assert outcome.peak > 0.99 * GIB / 4


def test_a_group_leaves_nothing_behind() -> None:
    try:
        group = Group(GIB)
    except NoGroupError as error:
        pytest.skip(f"no group here: {error}")
    assert group.folder.exists()
    group.remove()
    assert not group.folder.exists()
