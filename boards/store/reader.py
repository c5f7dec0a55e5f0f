"""What a store of plans says to those who only read: they follow links and need no lock."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from boards.errors import StoreError
from boards.store.records import ReleaseRecord, load_record

DEFAULT_ROOT = "/var/lib/edgeplan"
PLAN_FILE = "model.plan"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RELEASE = re.compile(r"releases/([0-9a-f]{16})")


class StoreReader:
    """The store in one folder, see `plan_store.py`, as readers use it.

    `active` is all that a reader needs; `generation` changes whenever `active` does.
    """

    def __init__(self, root: str | os.PathLike[str] = DEFAULT_ROOT) -> None:
        """Name the folder `root`; it is made when something is first written."""
        self.root = Path(root)

    def names(self) -> tuple[str, ...]:
        """Names that have a release, sorted."""
        folder = self.root / "plans"
        if not folder.is_dir():
            return ()
        return tuple(sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name)))

    def active(self, name: str) -> Path:
        """Path of the active plan. It never changes its content: a switch gives another path.

        Args:
            name: of the plan.

        Raises:
            StoreError: nothing is active under the name.
        """
        release_id = self.generation(name)
        if not release_id:
            known = ", ".join(n for n in self.names() if self.generation(n))
            raise StoreError(
                f"plan store {self.root}: nothing is active as '{name}'; active are: "
                f"{known or 'none'}; deploy one with: edgeplan deploy PLAN --to LINK --name {name}"
            )
        return self.plan_path(name, release_id)

    def generation(self, name: str) -> str:
        """Id of the active release, empty when there is none. Cheap: one readlink.

        Args:
            name: of the plan.
        """
        return self._linked(name, "current")

    def previous(self, name: str) -> str:
        """Id of the release that was active before, empty when there is none.

        Args:
            name: of the plan.
        """
        return self._linked(name, "previous")

    def wait_for_switch(
        self, name: str, generation: str, timeout_s: float, *, interval_s: float = 0.1
    ) -> str:
        """Wait until another release than `generation` is active.

        Args:
            name: of the plan.
            generation: the release that the caller knows, from `generation`.
            timeout_s: how long to wait.
            interval_s: how often to look.

        Returns:
            The id of the active release; equal to `generation` when the time ran out.
        """
        end = time.monotonic() + timeout_s
        while (now := self.generation(name)) == generation and time.monotonic() < end:
            time.sleep(min(interval_s, max(0.0, end - time.monotonic())))
        return now

    def plan_path(self, name: str, release_id: str) -> Path:
        """Where the file of a release lies.

        Args:
            name: of the plan.
            release_id: of the release.
        """
        return self.release_folder(name, release_id) / PLAN_FILE

    def release_folder(self, name: str, release_id: str) -> Path:
        """Folder of a release.

        Args:
            name: of the plan.
            release_id: of the release.
        """
        return self._folder(name) / "releases" / release_id

    def releases(self, name: str) -> tuple[ReleaseRecord, ...]:
        """Records of all releases kept under a name, by id. Raises StoreError when damaged.

        Args:
            name: of the plan.
        """
        folder = self._folder(name) / "releases"
        if not folder.is_dir():
            return ()
        return tuple(
            load_record(one) for one in sorted(folder.iterdir()) if not one.name.startswith(".")
        )

    def record(self, name: str, release_id: str) -> ReleaseRecord:
        """Record of one release. Raises StoreError when there is none.

        Args:
            name: of the plan.
            release_id: of the release.
        """
        return load_record(self.release_folder(name, release_id))

    def floor(self, name: str) -> int:
        """Lowest release number that may still be deployed under a name.

        Args:
            name: of the plan.
        """
        path = self._folder(name) / "floor"
        try:
            text = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: {error}") from error
        if not text.isdigit() or len(text) > 18:
            raise StoreError(f"{path}: '{text[:40]}' is no release number")
        return int(text)

    def _linked(self, name: str, link: str) -> str:
        try:
            found = _RELEASE.fullmatch(os.readlink(self._folder(name) / link))
        except OSError:
            return ""
        return found[1] if found else ""

    def _folder(self, name: str) -> Path:
        return self.root / "plans" / check_name(name)


def check_name(name: str) -> str:
    """The name itself, when a plan may be deployed under it.

    Raises:
        StoreError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name!r} is no name for a plan; letters, digits, '.', '_' and '-' are allowed, "
            "64 at most, beginning with a letter or digit"
        )
    return name
