"""The page that kernel and watcher share."""

from __future__ import annotations

import os
import sys

import pytest

from memkit.memory.guard.page import LIFTED, Page

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memfd is Linux")


def test_what_one_side_writes_the_other_reads() -> None:
    ours = Page()
    assert ours.fd is not None
    theirs = Page(os.dup(ours.fd))
    ours.mode = LIFTED
    theirs.free = 2**40
    assert (theirs.mode, ours.free) == (LIFTED, 2**40)
    ours.close()
    assert theirs.mode == LIFTED
    theirs.close()


def test_fields_are_zero_at_first_and_unknown_ones_are_an_error() -> None:
    page = Page()
    assert page.trip == page.cell == 0
    with pytest.raises(AttributeError, match="nonsense"):
        _ = page.nonsense
    with pytest.raises(AttributeError):
        page.nonsense = 1
    page.close()


def test_the_descriptor_is_not_inherited_by_programs_that_the_kernel_starts() -> None:
    page = Page()
    assert page.fd is not None
    assert not os.get_inheritable(page.fd)
    page.close()
