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
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from boards.errors import ReleaseRefusedError, StoreError
from boards.store.durable_file import link_durably, sync_folder, write_durably
from boards.store.incoming_file import TABLE
from boards.store.reader import PLAN_FILE, StoreReader
from boards.store.records import ReleaseRecord, ReleaseState, load_record, save_record
from boards.store.release_rules import check_statements
from boards.store.trials import MAX_TRIAL_FAILURES, after_reset, on_trial, why_over

log = logging.getLogger(__name__)


class PlanStore(StoreReader):
    """The store in one folder. Any number of processes may use it."""

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
