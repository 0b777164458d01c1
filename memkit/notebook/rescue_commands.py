"""`%memkit rescue`, and what is said when a kernel finds what the one before it left."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from memkit.config import Settings
from memkit.errors import CorruptedError, MemkitError, RescueError
from memkit.lifecycle.rescue import sets
from memkit.lifecycle.rescue.adoption import Adoption
from memkit.lifecycle.rescue.home import Home
from memkit.lifecycle.rescue.manifest import Lost, Manifest
from memkit.lifecycle.rescue.rescuer import Rescuer, adopt
from memkit.notebook.commands import _argument, _command
from memkit.shown import Shown, Table
from memkit.units import format_bytes
from memkit.wiring import Session

log = logging.getLogger("memkit")
_NAMED = 5


def take_over(rescuer: Rescuer, home: Home, keys: tuple[str, ...], settings: Settings) -> str:
    """Adopt the rescues that are this kernel's, and say what happened."""
    found, problems = [], []
    known = {adoption.folder for adoption in rescuer.adoptions}  # where memkit is loaded a second time
    for folder in set(sets.matching(settings.store.directory, keys)) - known:
        try:
            found.append(sets.look(folder))
        except RescueError as error:
            problems.append(f"memkit: {error}")
    rescuer.adoptions += adopt(found, lambda one: Adoption(one.folder, home, one.manifest))
    told = [str(Rescued.of(adoption)) for adoption in rescuer.adoptions[:1]]
    return "\n".join([*told, *problems])


@dataclass(frozen=True, slots=True, repr=False)
class Rescued(Shown):
    """What a dead kernel left: times since the epoch, sizes in bytes. `names` are those that have not come back."""

    manifest: Manifest
    names: tuple[str, ...]
    writing: bool
    kept_yours: tuple[str, ...]

    @classmethod
    def of(cls, adoption: Adoption) -> Rescued:
        return cls(adoption.manifest, adoption.names, adoption.writing, tuple(adoption.kept_yours))

    def headline(self) -> str:
        lines = [self._death(), self._memory(), self._balance(), *self._yours()]
        lines.append("they come back when a cell mentions them; %memkit rescue [list | restore | drop]")
        return "\n  ".join(filter(None, lines))

    def _death(self) -> str:
        manifest, doing = self.manifest, self.manifest.doing
        at = time.strftime("%H:%M:%S", time.localtime(manifest.died))
        if doing.cell is None:
            cell = ""
        else:
            cell = f" {'while running' if doing.running else 'after'} cell {doing.cell}: {doing.line}"
        return f"memkit: the kernel before this one died at {at}{cell}\n  cause: {manifest.cause or 'unknown'}"

    def _memory(self) -> str:
        doing, sizes = self.manifest.doing, self.manifest.sizes
        parts = [f"the kernel had {format_bytes(doing.rss)}"] if doing.rss else []
        parts += [f"its peak {format_bytes(doing.peak)}"] if doing.peak else []
        parts += [f"peak of its control group {format_bytes(self.manifest.peak)}"] if self.manifest.peak else []
        parts += [f"{format_bytes(doing.available)} of {format_bytes(doing.limit)} free"] if doing.limit else []
        big = sorted(sizes, key=lambda name: -sizes[name])[:_NAMED]
        parts += ["biggest: " + ", ".join(f"{name} {format_bytes(sizes[name])}" for name in big)] if big else []
        return "memory at the last reading: " + "; ".join(parts) if parts else ""

    def _balance(self) -> str:
        manifest = self.manifest
        saved = len(manifest.saved) + len(manifest.modules)
        share = f"{saved} of {manifest.total} variables"
        if self.writing:
            return f"still being saved: {share} so far ({format_bytes(manifest.bytes)}); a mention waits for its own"
        lost = [*manifest.lost, *(Lost(name, "value", "the saving was cut short") for name in manifest.pending)]
        told = ", ".join(f"{one.name} ({_short(one)})" for one in lost[:_NAMED])
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        return f"{share} rescued ({format_bytes(manifest.bytes)})" + (f"; {told}{more} could not be" if lost else "")

    def _yours(self) -> list[str]:
        names = ", ".join(self.kept_yours[:_NAMED])
        return [f"left alone, because they are defined here: {names}"] if names else []


def _short(lost: Lost) -> str:
    return lost.reason if len(lost.reason) <= 60 else lost.type


@dataclass(frozen=True, slots=True, repr=False)
class Listing(Shown):
    """Every variable of the kernels before: (name, type, bytes, state)."""

    rows: tuple[tuple[str, str, int | None, str], ...]

    def headline(self) -> str:
        if not self.rows:
            return "nothing of an earlier kernel waits to be given back"
        waiting = sum(state in ("on disk", "import", "being saved") for *_, state in self.rows)
        return f"{waiting} of {len(self.rows)} variables of an earlier kernel have not come back yet"

    def tables(self) -> tuple[Table, ...]:
        shown = [(name, kind, format_bytes(size), state) for name, kind, size, state in self.rows]
        return (Table(("name", "type", "size", "state"), shown, frozenset({"size"})),)


def listing(adoptions: Iterable[Adoption]) -> Listing:
    """What each variable of the kernels before has become."""
    rows: list[tuple[str, str, int | None, str]] = []
    for adoption in adoptions:
        manifest = adoption.manifest
        for name in (*manifest.saved, *manifest.pending, *manifest.modules):
            rows.append((name, _type(manifest, name), manifest.sizes.get(name), _state(adoption, name)))
        rows += [(lost.name, lost.type, manifest.sizes.get(lost.name), lost.reason) for lost in manifest.lost]
    return Listing(tuple(rows))


def _type(manifest: Manifest, name: str) -> str:
    return "module" if name in manifest.modules else manifest.types.get(name, "value")


def _state(adoption: Adoption, name: str) -> str:
    if name in adoption.names:
        if name in adoption.manifest.modules:
            return "import"
        return "on disk" if name in adoption.manifest.saved else "being saved"
    if name in adoption.kept_yours:
        return "yours is kept; %memkit rescue restore " + name
    return "cut short" if name in adoption.manifest.pending else "given back"


def restore(session: Session, adoptions: list[Adoption], names: list[str]) -> Shown:
    """Bring variables back now, all that wait or these; one that is defined here is replaced only when named."""
    wanted = names or [name for adoption in adoptions for name in adoption.names]
    back, failed = [], []
    for name in wanted:
        adoption = _having(adoptions, name)
        try:
            if name in adoption.names:
                session.restore(name)
            else:
                session.space.variables[name] = adoption.load(name)
            back.append(name)
        except (MemkitError, CorruptedError) as error:
            failed.append(f"{name}: {error}")
    return Brought(tuple(back), tuple(failed))


def _having(adoptions: list[Adoption], name: str) -> Adoption:
    for adoption in adoptions:
        manifest = adoption.manifest
        if name in adoption.names or name in (*manifest.saved, *manifest.pending, *(one.name for one in manifest.lost)):
            return adoption
    raise RescueError(f"{name!r} is not among what was rescued; see %memkit rescue list")


@dataclass(frozen=True, slots=True, repr=False)
class Brought(Shown):
    """What `restore` has brought back, and what not, with the reason."""

    names: tuple[str, ...]
    failed: tuple[str, ...] = ()

    def headline(self) -> str:
        done = f"restored {', '.join(self.names)}" if self.names else "nothing was restored"
        return "\n".join([done, *self.failed])


@_command(
    _argument(
        "what",
        nargs="?",
        choices=("status", "list", "restore", "drop", "on", "off"),
        default="status",
        help="status (default), list, restore [NAME...], drop, on, off",
    ),
    _argument("names", nargs="*", metavar="NAME", help="with restore: which (default: all)"),
)
def rescue(session: Session, options: argparse.Namespace) -> Shown:
    """After a death that nothing could stop, the next kernel has the variables back. Whether they would survive now and
    what that costs; what an earlier kernel left, bring it back, drop it; on, off."""
    found = getattr(session, "rescue", None)
    if found is None:
        raise RescueError("there is no rescue here: it works in a Jupyter kernel with %load_ext memkit")
    if options.names and options.what != "restore":
        raise RescueError(f"{options.what} takes no names; %memkit rescue restore {' '.join(options.names)}")
    if options.what == "restore":
        return restore(session, found.adoptions, options.names)
    if options.what == "drop":
        for adoption in found.adoptions:
            adoption.drop()
        found.rescuer.adoptions[:] = [adoption for adoption in found.adoptions if adoption.writing]
    elif options.what in ("on", "off"):
        (found.on if options.what == "on" else found.off)()
    status: Shown = listing(found.adoptions) if options.what in ("list", "drop") else found.status()
    return status
