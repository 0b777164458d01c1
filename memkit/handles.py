"""What `memkit.track` returns: one resource in the user's hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memkit.errors import ReleasedError
from memkit.lifecycle.reports import Report
from memkit.lifecycle.resource import Resource, ResourceInfo

if TYPE_CHECKING:
    from memkit.wiring import Session


class Handle:
    """One tracked resource. `with handle as value:` holds it: meanwhile it is neither expired, demoted nor released.

    Thread-safe. Holding a handle does not keep the value alive. Once the resource has been released or replaced,
    every method raises ReleasedError.
    """

    __slots__ = ("_resource", "_session")

    def __init__(self, session: Session, resource: Resource) -> None:
        self._session = session
        self._resource = resource

    @property
    def name(self) -> str:
        return self._resource.name

    @property
    def info(self) -> ResourceInfo:
        """Size, tier, state, times: a frozen picture of this moment."""
        return self._mine().info(self._session.tracker.clock())

    def get(self) -> Any:
        """The value, restored first where it was demoted; counts as an access."""
        with self as value:
            return value

    def __enter__(self) -> Any:
        self._session.tracker.pin(self._mine().name)
        try:
            return self._session.resident_value(self._resource)
        except BaseException:
            self._session.tracker.unpin(self._resource)
            raise

    def __exit__(self, *exc: object) -> None:
        self._session.tracker.unpin(self._resource)

    def touch(self) -> None:
        """Note an access now."""
        self._session.touch(self._mine().name)

    def pin(self) -> None:
        """Hold it until `unpin`; nests."""
        self._session.tracker.pin(self._mine().name)

    def unpin(self) -> None:
        """End one `pin`."""
        self._session.tracker.unpin(self._mine())

    def release(self) -> Report:
        """Let it go for good; the report tells what was measured and who still holds it."""
        report = self._session.release(self._mine().name)
        assert isinstance(report, Report)  # a plan is the answer to dry_run only
        return report

    def spill(self) -> Report:
        """Move it to disk; it comes back on `get` or on mention."""
        return self._session.spill(self._mine().name)

    def compress(self) -> Report:
        """Pack it in memory, or move it to disk where packing would not help."""
        return self._session.compress(self._mine().name)

    def restore(self) -> Report:
        """Bring it back into memory now."""
        return self._session.restore(self._mine().name)

    def _mine(self) -> Resource:
        current = self._session.tracker.get(self._resource.name)
        if current is not self._resource:
            raise ReleasedError(f"{self.name!r} was replaced: the name now stands for a newer resource")
        return current

    def __repr__(self) -> str:
        try:
            info = self.info
        except LookupError as error:
            return f"<Handle {self.name}: {error}>"
        return f"<Handle {info.name}: {info.type}, {info.size} bytes in {info.tier}, {info.state}>"
