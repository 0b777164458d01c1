"""Tests that need a heap nobody has used: a free block of an earlier test would take an allocation without a page."""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_MARK = "MEMKIT_FRESH_PROCESS"


def in_fresh_process(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test by a pytest of its own."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        if os.environ.get(_MARK):
            test(*args, **fixtures)
            return
        node = f"{inspect.getfile(test)}::{test.__name__}"
        command = [sys.executable, "-m", "pytest", "-q", node]
        done = subprocess.run(command, env={**os.environ, _MARK: "1"}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-3000:]

    return run
