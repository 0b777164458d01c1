"""One exclusive piece of work on a resource: a demotion, a restoration, a release."""

from __future__ import annotations

import threading
from typing import Literal

# On whose behalf a resource is worked on, and so what that work must respect:
#   policy  nobody asked: it respects every hold and never waits for another thread
#   user    asked for by name: it waits its turn and respects pins, but not the running cell that asks
#   access  the value is needed now: it waits its turn and respects no hold, the need is one
Claimant = Literal["policy", "user", "access"]


class Operation:
    """Marks a resource as busy. `cancel()` asks the work to stop soon; it is asked through `cancelled`."""

    __slots__ = ("cancelled", "kind", "thread")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.thread = threading.get_ident()
        self.cancelled = False

    def cancel(self) -> None:
        """Ask the work to stop at its next safe point; what it had done so far is undone."""
        self.cancelled = True
