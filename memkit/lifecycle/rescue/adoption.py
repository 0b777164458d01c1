"""A rescue becomes variables again: each is tracked as demoted, and comes back when it is mentioned."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType
from typing import Any

from memkit.errors import MemkitError, RescueError
from memkit.lifecycle.holders import GONE, Holder, Owned, Variable
from memkit.lifecycle.registration import GENERAL
from memkit.lifecycle.rescue import manifest as manifests
from memkit.lifecycle.rescue import sets
from memkit.lifecycle.rescue.home import Home, Recipe, stored_of
from memkit.lifecycle.rescue.manifest import Entry, Manifest
from memkit.lifecycle.resource import Options, Resource
from memkit.lifecycle.store import Stored, lock

_LOOK = 0.05  # seconds between two looks at a rescue that is still being written
_PATIENCE = 120.0
MARK = "rescued"


@dataclass(slots=True)
class Adoption:
    """One rescue, in use by this kernel: locked as soon as its writer has ended, removed when nothing of it is left.

    What has come back is removed from disk only by `forget_spent`, to be called when another copy is safe. Main
    thread only. `wait` in seconds is how long a mention waits for a variable that is still being saved.
    """

    folder: Path
    home: Home
    manifest: Manifest
    wait: float = _PATIENCE
    clock: Callable[[], float] = time.monotonic
    _lock: int | None = None
    _names: dict[str, Resource] = field(default_factory=dict)  # those that have not come back
    _entries: dict[str, Entry] = field(default_factory=dict)
    _stored: dict[str, Stored] = field(default_factory=dict)  # by file
    _spent: set[str] = field(default_factory=set)
    kept_yours: list[str] = field(default_factory=list)

    @property
    def writing(self) -> bool:
        """Whether it is still being saved."""
        return self._lock is None

    @property
    def lock(self) -> int | None:
        """The descriptor that keeps others away, for a forked child to hold too."""
        return self._lock

    @property
    def names(self) -> tuple[str, ...]:
        """What has not come back yet."""
        return tuple(self._names)

    def begin(self, skip: Iterable[str] = ()) -> None:
        """Track what was saved and what is being saved; names that are bound here, or in `skip`, are left alone."""
        self._try_lock()
        skipped = set(skip)
        for name, module in self.manifest.modules.items():
            if self._is_free(name, skipped):
                self._register_module(name, module)
        self._add_entries(skipped)
        for name in self.manifest.pending if self.writing else ():
            if self._is_free(name, skipped):
                self._register(name, "unloaded", None, lambda name=name: self._wait_for(name))  # type: ignore[misc]

    def refresh(self) -> None:
        """Take in what has been saved since; to be called now and then while it is being written."""
        if not self.writing:
            return
        self._try_lock()  # before reading: what is read afterwards is final
        self.manifest = manifests.read(self.folder)
        self._add_entries(set())
        if not self.writing:
            for name in [name for name in self._names if self._is_waiting(name)]:
                self._forget(name, self._why_lost(name))

    def _try_lock(self) -> None:
        if self._lock is None:
            self._lock = lock.take_over(self.folder)

    # -- tracking ----------------------------------------------------------------------------------------------------

    def _is_free(self, name: str, skipped: set[str]) -> bool:
        if name in skipped or name in self._names:
            return False
        if name in self.home.space.variables or name in self.home.tracker:
            self.kept_yours.append(name)
            return False
        return True

    def _add_entries(self, skipped: set[str]) -> None:
        for entry in self.manifest.entries:
            if entry.file in self._stored or not (self.folder / entry.file).exists():
                continue  # known, or given back already
            self._stored[entry.file] = stored = stored_of(self.folder, entry, self.home, self._code)
            for name in entry.names:
                self._add(name, entry, stored, skipped)

    def _add(self, name: str, entry: Entry, stored: Stored, skipped: set[str]) -> None:
        self._entries[name] = entry
        if entry.kind == "recipe":
            if self._is_free(name, skipped):
                self._register(name, "unloaded", None, Recipe(self.home, name, stored))
        elif self._is_waiting(name):
            self._saved(self._names[name], stored)
        elif self._is_free(name, skipped):
            self._register(name, "disk", stored, None)

    def _saved(self, resource: Resource, stored: Stored) -> None:
        """A variable that was waited for is on disk now."""
        resource.options = replace(resource.options, reload=None)
        self.home.tracker.settle(resource, "disk", stored, kind="spilled", reason=self._reason())

    def _is_waiting(self, name: str) -> bool:
        resource = self._names.get(name)
        return resource is not None and resource.tier == "unloaded" and MARK in resource.options.metadata and (
            "module" not in resource.options.metadata
        )  # fmt: skip

    def _register_module(self, name: str, module: str) -> None:
        self._register(name, "unloaded", None, lambda: importlib.import_module(module), {"module": module})

    def _register(
        self,
        name: str,
        tier: Any,
        stored: Stored | None,
        reload: Callable[[], Any] | None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        home, kept = self.home, self.manifest.kept.get(name)
        holder: Holder = Variable(home.space, name)
        if kept is None:
            policy, size = home.registration.policy(GENERAL), self.manifest.sizes.get(name, 0)
            options = Options(reload=reload, metadata={MARK: self.folder.name, **(metadata or {})})
        else:
            policy, size = self._policy(kept), kept.size
            marks = {MARK: self.folder.name} if tier == "unloaded" and not isinstance(reload, Recipe) else {}
            options = Options(reload=reload, metadata=marks, tags=frozenset(kept.tags), owner=kept.owner)
            if kept.hold == "owned":
                holder = Owned(GONE)
        resource = home.tracker.register(name, holder, policy, options, size)
        home.tracker.settle(resource, tier, stored, kind="spilled", reason=self._reason())
        self._names[name] = resource

    def _policy(self, kept: manifests.Kept) -> Any:
        try:
            return self.home.registration.policy(kept.type, kept.ttl, kept.priority)
        except MemkitError:  # a type of the dead kernel's configuration that this one does not have
            return self.home.registration.policy(GENERAL, kept.ttl, kept.priority)

    def _reason(self) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(self.manifest.died))
        return f"rescued from the kernel that died at {at}"

    # -- coming back -------------------------------------------------------------------------------------------------

    def _code(self, name: str) -> Any:
        """The function or class of a variable, for another that refers to it: the notebook's, or the rescued one."""
        resource = self._names.get(name)
        if resource is not None and resource.demoted:
            self.home.demotion.restore(resource, "another rescued variable refers to it")
        value = self.home.space.variables.get(name)
        if isinstance(value, (FunctionType, type)):
            return value
        return self.load(name)

    def load(self, name: str) -> Any:
        """A rescued value itself, tracked or not; raises RescueError or CorruptedError."""
        entry = self._entries.get(name)
        if entry is None or not (self.folder / entry.file).exists():
            raise RescueError(f"{name!r} is not among what was rescued: {self._why_lost(name)}")
        return self.home.store().load(self._stored[entry.file])[name]

    def _wait_for(self, name: str) -> Any:
        """The recipe of a variable that is still being saved: wait until it is."""
        until = self.clock() + self.wait
        while name not in self._entries:
            self._look_again()
            if name not in self._entries:
                if not self.writing or self.clock() > until:
                    raise RescueError(self._why_lost(name))
                time.sleep(_LOOK)
        values = self.home.store().load(self._stored[self._entries[name].file])
        for other, value in values.items():
            if other != name and (resource := self._names.get(other)) is not None and resource.demoted:
                resource.holder.place(value)
                self.home.tracker.settle(resource, "ram", None, kind="restored", reason=f"shares memory with {name}")
        return values[name]

    def _look_again(self) -> None:
        self._try_lock()
        self.manifest = manifests.read(self.folder)
        for entry in self.manifest.entries:
            if entry.file not in self._stored:
                self._stored[entry.file] = stored_of(self.folder, entry, self.home, self._code)
            self._entries.update(dict.fromkeys(entry.names, entry))

    def _why_lost(self, name: str) -> str:
        found = next((lost.reason for lost in self.manifest.lost if lost.name == name), "")
        if found:
            return f"it could not be saved: {found}"
        return "it is still being saved; ask again" if self.writing else "the saving was cut short before it"

    # -- afterwards --------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """After a cell: what has come back, or was given another value, is the notebook's own again."""
        for name, resource in list(self._names.items()):
            tracked = self.home.tracker.find(name) is resource
            if tracked and (resource.demoted or resource.held or resource.operation is not None):
                continue
            del self._names[name]
            self._keep_recipe(resource)
            self._spend(name)
            if tracked and MARK in resource.options.metadata:
                self.home.tracker.forget(resource, "deleted", "given back; it was not tracked before")

    def _keep_recipe(self, resource: Resource) -> None:
        """A recipe outlives the file that it is read from."""
        if isinstance(recipe := resource.options.reload, Recipe):
            resource.options = replace(resource.options, reload=recipe.recipe())

    def _spend(self, name: str) -> None:
        """A file is not needed any more when none of its names waits; a recipe's as long as there is the resource."""
        entry = self._entries.get(name)
        if entry is not None and not any(other in self._names for other in entry.names):
            self._spent.add(entry.file)

    def _forget(self, name: str, reason: str) -> None:
        self.home.tracker.forget(self._names.pop(name), "deleted", reason)
        self._spend(name)

    def forget_spent(self) -> bool:
        """Remove what has come back from disk; True when nothing is left, and the folder is gone."""
        if not self._names and not self.writing:
            self.remove()
            return True
        code = {entry.file for name, entry in self._entries.items() if self.manifest.types.get(name) in _CODE}
        for file in self._spent - code:  # others may still refer to functions and classes; they are small
            for suffix in (".values", ".layout"):
                (self.folder / file).with_suffix(suffix).unlink(missing_ok=True)
        self._spent &= code
        return False

    def drop(self) -> None:
        """Give up what has not come back; the folder goes when it is not being written any more."""
        for name in list(self._names):
            self._forget(name, "dropped by you")
        if not self.writing:
            self.remove()

    def remove(self) -> None:
        sets.clear(self.folder)
        self._close()

    def detach(self) -> None:
        """Stop tracking what has not come back, and leave it on disk for the next kernel."""
        for name, resource in list(self._names.items()):
            if self.home.tracker.find(name) is resource and resource.demoted:
                resource.stored = None
                self.home.tracker.forget(resource, "deleted", "left for the next kernel")
        self._names.clear()
        self._close()

    def _close(self) -> None:
        if self._lock is not None and self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


_CODE = ("function", "type", "EnumType", "EnumMeta", "abc.ABCMeta", "enum.EnumType", "enum.EnumMeta")
