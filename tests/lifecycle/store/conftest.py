"""A store in a folder of its own, and a way through it and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memkit.lifecycle.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def there_and_back(store: Store, **values: Any) -> dict[str, Any]:
    """The values after a spill and a restoration; the caller's names, its stack and this call hold them too."""
    stored = store.spill(values, exempt_refs=dict.fromkeys(values, 3))
    try:
        return store.load(stored)
    finally:
        store.discard(stored)
