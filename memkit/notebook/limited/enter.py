"""Commands that go into a box and then become the kernel: nothing of it runs outside, and its process id stays.

A small Python does it rather than a shell, which may be missing or quote in its own way; about 15 ms.
"""

from __future__ import annotations

import sys

# "0" in a list of processes is whoever writes it (cgroups(7)); pages of this small Python go with the exec.
_JOIN = """
import os, sys
place, *command = sys.argv[1:]
try:
    with open(place, "w") as processes:
        processes.write("0")
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f"memkit: {command[0]} cannot be started in {place}: {error}")
"""
_CAP = """
import os, resource, sys
size, *command = sys.argv[1:]
try:
    resource.setrlimit(resource.RLIMIT_DATA, (int(size), int(size)))
    os.execvp(command[0], command)
except (OSError, ValueError) as error:
    sys.exit(f"memkit: {command[0]} cannot be started with RLIMIT_DATA {size}: {error}")
"""


def joining(processes: str) -> tuple[str, ...]:
    """Goes into the control group whose list of processes is given."""
    return (*_small_python(_JOIN), processes)


def capped(size: int) -> tuple[str, ...]:
    """Lowers RLIMIT_DATA, soft and hard, to `size` bytes; what is started from there inherits it."""
    return (*_small_python(_CAP), str(size))


def _small_python(program: str) -> tuple[str, ...]:
    return sys.executable, "-I", "-S", "-c", program
