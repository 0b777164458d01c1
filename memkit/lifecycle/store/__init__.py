"""Where demoted values rest: compressed in memory, or on disk; exact, atomic, private."""

from memkit.lifecycle.store.folder import sweep_leftovers
from memkit.lifecycle.store.store import Store
from memkit.lifecycle.store.stored import Cancelled, Compress, Stored, StoredTier

__all__ = ["Cancelled", "Compress", "Store", "Stored", "StoredTier", "sweep_leftovers"]
