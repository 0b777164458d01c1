"""What a cell of the battery may know of its group: the limit, what is left. Copied beside the kernel."""

import os

MIB = 2**20
LIMIT = int(os.environ.get("BATTERY_LIMIT", 0))
TAG = os.environ.get("BATTERY_TAG", "battery")
GROUP = os.environ.get("BATTERY_GROUP", "")


def used():
    """Bytes of the group that cannot be reclaimed, as the kernel counts them."""
    with open(f"{GROUP}/memory.stat") as file:
        stat = dict(line.split() for line in file)
    with open(f"{GROUP}/memory.usage_in_bytes") as file:
        return int(file.read()) - int(stat["total_cache"]) + int(stat["total_shmem"])


def left():
    """Bytes that are free in the group."""
    return LIMIT - used()


def fits():
    """Bytes that a cell may take so that 15 % of the limit, and at least 132 MiB, stay free."""
    return max(0, left() - max(LIMIT * 15 // 100, 132 * MIB))


def shm(name="x"):
    """A file in memory that the battery removes afterwards."""
    return f"/dev/shm/{TAG}-{name}"


def sparse(name, size):
    """A file with holes only, of some size on disk: reading it gives zeros."""
    with open(name, "wb") as file:
        file.truncate(size)
    return name


def holes(name, size):
    """The same, open for reading and writing: its descriptor."""
    return os.open(sparse(name, size), os.O_RDWR)


def grow(size=MIB, stop=None):
    """Take memory in pieces until it ends, or `stop()` is true."""
    pieces = []
    while stop is None or not stop():
        pieces.append(bytearray(b"\1") * size)
    return pieces
