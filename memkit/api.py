"""The Python API: every function works on the default session, which is made when it is first needed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from memkit.wiring import Session

if TYPE_CHECKING:
    from memkit.memory.guard.guard import Guard

P = ParamSpec("P")
R = TypeVar("R")


class _Default:
    """Holds the default session."""

    session: Session | None = None


def session() -> Session:
    """The default session; made and started on first use."""
    if _Default.session is None:
        use(Session()).start()
    assert _Default.session is not None
    return _Default.session


def current() -> Session | None:
    """The default session if there is one already."""
    return _Default.session


def use(new: Session | None) -> Any:
    """Make a session the default one, or have none; the one before is neither closed nor changed."""
    _Default.session = new
    return new


def _of_session(method: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(session(), *args, **kwargs)

    return call


class _Guard:
    """The guard of the default session, whichever that is by then."""

    def __getattr__(self, name: str) -> Any:
        return getattr(session().guard, name)


guard: Guard = _Guard()  # type: ignore[assignment]
track = _of_session(Session.track)
handle = _of_session(Session.handle)
touch = _of_session(Session.touch)
pin = _of_session(Session.pin)
unpin = _of_session(Session.unpin)
release = _of_session(Session.release)
spill = _of_session(Session.spill)
compress = _of_session(Session.compress)
unload = _of_session(Session.unload)
restore = _of_session(Session.restore)
expire = _of_session(Session.expire)
reclaim = _of_session(Session.reclaim)
budget = _of_session(Session.budget)
status = _of_session(Session.status)
top = _of_session(Session.top)
report = _of_session(Session.report)
