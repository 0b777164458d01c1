"""The watcher's view of the kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from memkit.memory.guard import watcher
from memkit.memory.guard.page import Page

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the watcher is Linux")


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.close()


def test_where_prlimit_is_forbidden_the_page_says_so_until_it_works_again(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = watcher.Kernel(os.getpid(), page, 0, (-1, -1))

    def forbid(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(watcher, "set_for", forbid)
    kernel.set_limit(10**12)
    assert page.refused == 1
    monkeypatch.setattr(watcher, "set_for", lambda *_: None)
    kernel.set_limit(10**12)
    assert page.refused == 0


def test_a_kernel_that_has_ended_ends_the_watch(page: Page) -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        watcher.Kernel(pid, page, 0, (-1, -1)).set_limit(10**12)


def test_it_reads_the_limit_the_user_has_set_meanwhile(page: Page) -> None:
    kernel = watcher.Kernel(os.getpid(), page, 0, (-1, -1))
    whole = kernel.read().limit
    page.user_limit = 2**30
    assert kernel.read().limit == min(whole, 2**30)
