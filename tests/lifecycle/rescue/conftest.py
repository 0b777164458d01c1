"""Settings whose store is the test's own, and the next kernel's end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memkit.config import Settings
from tests.lifecycle.rescue import rig


@pytest.fixture
def of(tmp_path: Path) -> Settings:
    return rig.settings(tmp_path / "store")


@pytest.fixture
def heir(of: Settings) -> Iterator[Callable[..., rig.Heir]]:
    """Makes the next kernel; each is closed at the end."""
    made: list[rig.Heir] = []

    def make(**options: Any) -> rig.Heir:
        made.append(rig.Heir(of, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
