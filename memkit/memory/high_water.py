"""The exact peak RSS over an interval, kept by the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from memkit.memory.files import kilobytes, read

Method = Literal["kernel high-water mark", "not available"]


class HighWater:
    """Peak RSS of this process since `reset`, including spikes inside one C call that no sampling thread sees.

    Linux only. One mark exists per process: whoever resets it resets it for all. Any thread may call it.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._own = f"{str(root).rstrip('/')}/proc/self"
        self.method: Method = "not available"

    def reset(self) -> None:
        """Begin an interval; `method` tells afterwards whether the kernel agreed."""
        try:
            # proc_pid_clear_refs(5): 5 sets the peak resident set size to the current one.
            descriptor = os.open(f"{self._own}/clear_refs", os.O_WRONLY)
            try:
                os.write(descriptor, b"5")
            finally:
                os.close(descriptor)
        except OSError:
            self.method = "not available"
        else:
            self.method = "kernel high-water mark"

    def read(self) -> int | None:
        """Bytes of peak RSS since the last `reset`; None where the kernel keeps no such mark."""
        if self.method == "not available":
            return None
        try:
            return kilobytes(read(f"{self._own}/status"), "VmHWM").get("VmHWM")
        except OSError:
            return None
