"""Releases of plans on a board: which one is active, which one was before, and the way back.

    ROOT/plans/NAME/releases/ID/model.plan    the file; ID is the start of its SHA-256
    ROOT/plans/NAME/releases/ID/record.json   what is known of it
    ROOT/plans/NAME/current, previous         symbolic links to releases/ID, replaced by rename
    ROOT/plans/NAME/floor                     lowest release number that may still be deployed
    ROOT/incoming, cache, results             transfers, files needed for a while (incoming.py)

A folder appears under `releases` by one rename, when its file is complete. Readers follow `current`
and need no lock; whoever changes something holds ROOT/lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from boards.errors import ReleaseRefusedError, StoreError
from boards.store.durable_file import link_durably, sync_folder, write_durably
from boards.store.incoming_file import TABLE
from boards.store.records import ReleaseRecord, ReleaseState, load_record, save_record
from boards.store.release_rules import check_statements
from boards.store.trials import MAX_TRIAL_FAILURES, after_reset, on_trial, why_over

log = logging.getLogger(__name__)

DEFAULT_ROOT = "/var/lib/edgeplan"
PLAN_FILE = "model.plan"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RELEASE = re.compile(r"releases/([0-9a-f]{16})")


class PlanStore:
    """The store in one folder. Any number of processes may use it.

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

    def add(self, name: str, source: Path, record: ReleaseRecord, table: bytes = b"") -> None:
        """Take over a complete file. A release that is there already keeps its record if it can.

        Args:
            name: to deploy under.
            source: the file, in the same file system; it is moved.
            record: of the release.
            table: its piece table, so that later transfers can copy from it.

        Raises:
            StoreError: the name is not allowed.
        """
        folder = self.release_folder(name, record.release_id)
        with self.lock():
            if folder.exists():
                # the same bytes: this heals a file or record that was damaged on the disk
                os.replace(source, folder / PLAN_FILE)
                sync_folder(folder)
                try:
                    load_record(folder)
                except StoreError as error:
                    log.warning("%s", error)
                    save_record(folder, record)
                return
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging = folder.parent / f".{record.release_id}.new"
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            os.replace(source, staging / PLAN_FILE)
            if table:
                write_durably(staging / TABLE, table)
            save_record(staging, record)
            os.rename(staging, folder)
            sync_folder(folder.parent)

    def update(self, name: str, record: ReleaseRecord) -> None:
        """Write a release's record anew.

        Args:
            name: of the plan.
            record: of a release that is there.
        """
        with self.lock():
            save_record(self.release_folder(name, record.release_id), record)

    def check_release(self, name: str, number: int, expires: str, *, today: str) -> None:
        """Whether a release with these statements may be deployed under a name.

        Args:
            name: of the plan.
            number: its release counter.
            expires: its last day, or empty.
            today: `YYYY-MM-DD` by the board's clock.

        Raises:
            ReleaseRefusedError: below the floor, or expired.
        """
        check_statements(name, number, expires, floor=self.floor(name), today=today)

    def activate(self, name: str, release_id: str, *, trial_s: float | None = None) -> None:
        """Make a release the active one, in one step for every reader.

        Args:
            name: of the plan.
            release_id: checked before.
            trial_s: None: it is good at once; else it is on trial and `expire_trials` goes back
                unless `mark_good` is called within so many seconds (0: without a time limit).

        Raises:
            ReleaseRefusedError: it is marked bad, or was never checked.
            StoreError: there is no such release.
        """
        with self.lock():
            record = self.record(name, release_id)
            if record.state in (ReleaseState.BAD, ReleaseState.STAGED):
                raise ReleaseRefusedError(
                    f"'{name}': release {release_id} is {record.state.value}"
                    + (f": {record.reason}" if record.reason else "")
                    + "; deploy it again to have it checked"
                )
            active = self.generation(name)
            folder = self.release_folder(name, release_id)
            if trial_s is None:
                record = replace(record, state=ReleaseState.GOOD)
            elif active != release_id or record.state is not ReleaseState.GOOD:
                record = on_trial(record, trial_s)
            save_record(folder, record)
            if active and active != release_id:
                link_durably(self._folder(name) / "previous", f"releases/{active}")
            link_durably(self._folder(name) / "current", f"releases/{release_id}")
            if record.state is ReleaseState.GOOD:
                self._raise_floor(name, record.number)
            self._collect(name)

    def mark_good(self, name: str) -> None:
        """Confirm the active release; older release numbers are refused from now on.

        Args:
            name: of the plan.
        """
        with self.lock():
            release_id = self.active(name).parent.name
            record = replace(self.record(name, release_id), state=ReleaseState.GOOD, reason="")
            save_record(self.release_folder(name, release_id), record)
            self._raise_floor(name, record.number)

    def report_failure(self, name: str, reason: str) -> bool:
        """Say that the active release failed in use; while on trial, the third time goes back.

        Args:
            name: of the plan.
            reason: what is recorded.

        Returns:
            Whether the store went back to the release before.
        """
        with self.lock():
            release_id = self.active(name).parent.name
            record = self.record(name, release_id)
            if record.state is not ReleaseState.TRIAL:
                return False
            record = replace(record, failures=record.failures + 1, reason=reason)
            if record.failures < MAX_TRIAL_FAILURES:
                save_record(self.release_folder(name, release_id), record)
                return False
            self._roll_back(name, f"failed {record.failures} times, at last: {reason}", record)
            return True

    def roll_back(self, name: str, reason: str) -> str:
        """Go back to the release before and mark the active one bad.

        Args:
            name: of the plan.
            reason: what is recorded.

        Returns:
            Id of the release that is active now, empty when there was none before.

        Raises:
            StoreError: nothing is active.
        """
        with self.lock():
            return self._roll_back(name, reason)

    def mark_bad(self, name: str, release_id: str, reason: str) -> None:
        """Record that a release failed its check; it cannot become active any more.

        Args:
            name: of the plan.
            release_id: of the release.
            reason: what is recorded.
        """
        with self.lock():
            record = self.record(name, release_id)
            record = replace(record, state=ReleaseState.BAD, reason=reason)
            save_record(self.release_folder(name, release_id), record)

    def expire_trials(self) -> tuple[str, ...]:
        """Go back from trials whose time is up or during which the board was reset too often.

        Returns:
            Names that went back.

        Raises:
            StoreError: the record of an active release is damaged; the others were looked at.
        """
        names = []
        problem: StoreError | None = None
        for name in self.names():
            release_id = self.generation(name)
            if not release_id:
                continue
            with self.lock():
                try:
                    reason = self._trial_problem(name, self.record(name, release_id))
                except StoreError as error:
                    problem = error
                    continue
                if reason:
                    self._roll_back(name, reason)
                    names.append(name)
        if problem is not None and not names:
            raise problem
        return tuple(names)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other writers out."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _trial_problem(self, name: str, record: ReleaseRecord) -> str:
        seen = after_reset(record)
        if seen is not record:
            self._note(name, seen)
        return why_over(seen)

    def _roll_back(self, name: str, reason: str, record: ReleaseRecord | None = None) -> str:
        folder = self._folder(name)
        bad = self.active(name).parent.name
        before = self.previous(name)
        if before and before != bad:
            # nothing new is made: this must succeed on a full disk
            os.replace(folder / "previous", folder / "current")
        else:
            before = ""
            (folder / "current").unlink()
            (folder / "previous").unlink(missing_ok=True)
        sync_folder(folder)
        try:
            record = record or self.record(name, bad)
        except StoreError as error:
            log.warning("%s", error)
        else:
            self._note(name, replace(record, state=ReleaseState.BAD, reason=reason))
        return before

    def _note(self, name: str, record: ReleaseRecord) -> None:
        """Write a record if the disk lets: going back matters more than what is known of it."""
        try:
            save_record(self.release_folder(name, record.release_id), record)
        except OSError as error:
            log.warning(
                "'%s': that release %s is %s could not be recorded: %s",
                *(name, record.release_id, record.state.value, error),
            )

    def _raise_floor(self, name: str, number: int) -> None:
        if number > self.floor(name):
            write_durably(self._folder(name) / "floor", f"{number}\n".encode())

    def _collect(self, name: str) -> None:
        """Remove releases that are neither active nor the one before."""
        keep = {self.generation(name), self.previous(name)}
        for folder in (self._folder(name) / "releases").iterdir():
            if folder.name not in keep:
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        doomed = folder.parent / f".{folder.name.lstrip('.')}.old"
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)

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
