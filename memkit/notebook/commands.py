"""The subcommands of `%memkit`: what each accepts, and which method of the session answers it."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from IPython.core.error import UsageError

from memkit.config import closest
from memkit.notebook.answers import Config, Done, Events, Help, MonitorState
from memkit.shown import Shown
from memkit.wiring import Session

Run = Callable[[Session, argparse.Namespace], Shown]
COMMANDS: dict[str, Command] = {}


class _Parser(argparse.ArgumentParser):
    """A parser that answers with one line where argparse would end the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # "--ttl -5s" is a wrong value, to be told so, not an unknown option.
        self._negative_number_matcher = re.compile(r"-\.?\d.*")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} - see {self.prog} --help")


@dataclasses.dataclass(frozen=True)
class Command:
    """One subcommand."""

    name: str
    run: Run
    parser: argparse.ArgumentParser

    @property
    def summary(self) -> str:
        return self.parser.description or ""

    def options(self) -> list[str]:
        """Its long options, for completion."""
        actions = self.parser._actions
        return [text for action in actions for text in action.option_strings if text.startswith("--")]

    def names(self, session: Session) -> list[str]:
        """What it can be applied to, for completion."""
        if self.name == "register":
            return sorted(name for name in session.space.variables if not name.startswith("_"))
        if self.name == "config":
            return [field.name for field in dataclasses.fields(session.settings.monitor)]
        if self.name == "help":
            return sorted(COMMANDS)
        return [info.name for info in session.tracker.snapshot()]

    def __call__(self, session: Session, words: Iterable[str]) -> Shown:
        """Parse the words and answer; raises UsageError or a MemkitError."""
        words = list(words)
        if "--help" in words or "-h" in words:  # before parsing, which would ask for what is missing
            return Help(self.parser.format_help().strip())
        return self.run(session, self.parser.parse_args(words))


def find(name: str) -> Command:
    """The subcommand of this name; raises UsageError with the nearest one."""
    if name not in COMMANDS:
        raise UsageError(f"%memkit: no subcommand {name!r}{closest(name, COMMANDS)} - see %memkit help")
    return COMMANDS[name]


def _argument(*flags: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, options


_NAMES = _argument("names", nargs="+", metavar="NAME", help="resources")
_TYPE = _argument("--type", "-t", help="a type of configs/releasable_resources.yaml")
_DRY = _argument("--dry-run", "-n", action="store_true", help="show what would be done, in which order and why")


def _command(*arguments: tuple[tuple[str, ...], dict[str, Any]]) -> Callable[[Run], Run]:
    """Make a subcommand of a function; its docstring is the help."""

    def make(run: Run) -> Run:
        name = run.__name__.strip("_")
        parser = _Parser(prog=f"%memkit {name}", description=run.__doc__, add_help=False)
        for flags, options in arguments:
            parser.add_argument(*flags, **options)
        parser.add_argument("--help", "-h", action="store_true", help="show this help")
        COMMANDS[name] = Command(name, run, parser)
        return run

    return make


@_command()
def status(session: Session, options: argparse.Namespace) -> Shown:
    """Level, limit, tiers and every resource."""
    return session.status()


@_command(_argument("--count", "-n", type=int, default=15, metavar="N", help="how many (default 15, 0 = all)"))
def top(session: Session, options: argparse.Namespace) -> Shown:
    """Variables and resources by size, tracked or not; memory that several share is counted once."""
    return session.top(options.count or None)


@_command(
    _argument("names", nargs="+", metavar="NAME", help="notebook variables"),
    _TYPE,
    _argument("--ttl", help="time to live since the last use: 30s, '5 min', none"),
    _argument("--priority", "-p", type=int, help="higher is kept longer"),
    _argument("--reload", metavar="EXPRESSION", help="makes the value anew after it was unloaded"),
    _argument("--tag", action="append", default=[], dest="tags", help="a label of yours"),
)
def register(session: Session, options: argparse.Namespace) -> Shown:
    """Track notebook variables: they expire, are demoted under pressure, and come back when a cell mentions them."""
    given = {key: getattr(options, key) for key in ("type", "ttl", "priority") if getattr(options, key) is not None}
    if options.reload:
        code = compile(options.reload, "<reload recipe>", "eval")
        given["reload"] = lambda: eval(code, session.space.variables)  # type: ignore[arg-type]
    known = {name for name in options.names if name in session.tracker}
    handles = [session.register(name, tags=options.tags, **given) for name in options.names]
    return Done.registered([handle.info for handle in handles], known)


@_command(_NAMES)
def touch(session: Session, options: argparse.Namespace) -> Shown:
    """Count as used now: the time to live begins anew."""
    return _each(session, "touched", session.touch, options.names)


@_command(_NAMES)
def pin(session: Session, options: argparse.Namespace) -> Shown:
    """Hold: until unpinned it is neither expired, demoted nor released."""
    return _each(session, "pinned", session.pin, options.names)


@_command(_NAMES)
def unpin(session: Session, options: argparse.Namespace) -> Shown:
    """End one pin."""
    return _each(session, "unpinned", session.unpin, options.names)


def _each(session: Session, verb: str, do: Callable[[str], object], names: list[str]) -> Shown:
    for name in names:
        session.tracker.get(name)  # all must be there before the first is changed
    for name in names:
        do(name)
    return Done(f"{verb} {', '.join(names)}")


@_command(
    _argument("names", nargs="*", metavar="NAME", help="resources, or patterns such as tmp_*"),
    _TYPE,
    _argument("--pattern", help="names that match a shell pattern"),
    _argument("--below-priority", type=int, metavar="N", help="priorities lower than N"),
    _argument("--bytes", "-b", metavar="SIZE", help="stop when this much is free: 500MiB"),
    _argument("--expired", "-e", action="store_true", help="what is past its time to live"),
    _argument("--all", "-a", action="store_true", help="everything that is not pinned"),
    _DRY,
)
def release(session: Session, options: argparse.Namespace) -> Shown:
    """Let go for good, and tell what was measured and who still holds it. With only --bytes or --expired each resource
    goes the way its type says: demoted rather than lost, unless that says release."""
    chosen = {key: value for key, value in vars(options).items() if key not in ("names", "help")}
    return session.release(*options.names, **chosen)


@_command(_argument("names", nargs="*", metavar="NAME", help="resources (default: all that are due)"))
def expire(session: Session, options: argparse.Namespace) -> Shown:
    """Do now what the type does when the time to live is over."""
    return session.expire(*options.names)


@_command(_NAMES)
def spill(session: Session, options: argparse.Namespace) -> Shown:
    """Move to disk; several names go together, so that memory they share stays shared."""
    return session.spill(*options.names)


@_command(_NAMES)
def compress(session: Session, options: argparse.Namespace) -> Shown:
    """Pack in memory; what packing would not make smaller is moved to disk."""
    return session.compress(*options.names)


@_command(_NAMES)
def unload(session: Session, options: argparse.Namespace) -> Shown:
    """Drop what has a reload recipe; anything else is moved to disk."""
    return session.unload(*options.names)


@_command(_argument("names", nargs="*", metavar="NAME", help="resources (default: all that are demoted)"))
def restore(session: Session, options: argparse.Namespace) -> Shown:
    """Bring back into memory now."""
    return session.restore(*options.names)


@_command(_argument("size", nargs="?", metavar="SIZE", help="how much: 1GiB (default: all that policies allow)"), _DRY)
def reclaim(session: Session, options: argparse.Namespace) -> Shown:
    """Free memory by policy: what has expired, then the lowest priority, the longest unused first."""
    return session.reclaim(options.size, dry_run=options.dry_run)


@_command(
    _argument("key", nargs="?", help="a key of the monitor section: limit, warning, emergency, ..."),
    _argument("value", nargs="*", help="its new value: 2GiB, 70%%, 5 s, none"),
)
def config(session: Session, options: argparse.Namespace) -> Shown:
    """Show the settings in force and where each comes from, or change one for this kernel: %memkit config limit 2GiB"""
    if options.key and options.value:
        session.configure(**{options.key.removeprefix("monitor."): " ".join(options.value)})
    return Config.of(session.settings, options.key)


@_command(_argument("what", nargs="?", choices=("status", "start", "stop"), default="status"))
def monitor(session: Session, options: argparse.Namespace) -> Shown:
    """Everything the monitor reads; start or stop its thread."""
    if options.what == "start":
        session.start()
    elif options.what == "stop":
        session.monitor.stop()
    return MonitorState.of(session)


@_command(_argument("--count", "-n", type=int, default=20, metavar="N", help="how many (default 20, 0 = all)"))
def events(session: Session, options: argparse.Namespace) -> Shown:
    """What happened to resources, when and why; the latest last."""
    return Events(tuple(session.log)[-options.count :])


@_command(_argument("--csv", metavar="FILE", help="write the event log as CSV"))
def report(session: Session, options: argparse.Namespace) -> Shown:
    """Status, statistics and the event log; with --json FILE or --csv FILE written down."""
    answer = session.report()
    if options.csv:
        Path(options.csv).write_text(answer.to_csv(), encoding="utf-8")
    return answer


@_command(_argument("what", nargs="?", default="tiers", help="tiers (default): memory by tier over time"))
def plot(session: Session, options: argparse.Namespace) -> Shown:
    """A picture of what was measured."""
    from memkit.notebook import plots  # matplotlib only when somebody wants to see something

    return plots.plot(options.what)


@_command(_argument("command", nargs="?", help="a subcommand"))
def help(session: Session, options: argparse.Namespace) -> Shown:
    """All subcommands, or one in full."""
    if options.command:
        return Help(find(options.command).parser.format_help().strip())
    return Help.overview({name: command.summary.split(". ")[0].rstrip(".") for name, command in COMMANDS.items()})


# Families of subcommands register themselves with what is above.
from memkit.notebook import guard_commands, rescue_commands  # noqa: E402, F401
from memkit.notebook.accounting import commands as _accounting  # noqa: E402, F401
