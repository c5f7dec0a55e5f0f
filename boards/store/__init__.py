"""The plan store of a board: two releases per name, switched atomically.

path = PlanStore("/var/lib/edgeplan").active("detector")
"""

from __future__ import annotations

from boards.store.plan_store import PlanStore
from boards.store.reader import DEFAULT_ROOT
from boards.store.records import ReleaseRecord, ReleaseState

__all__ = ["DEFAULT_ROOT", "PlanStore", "ReleaseRecord", "ReleaseState"]
