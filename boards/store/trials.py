"""Trials of releases: what begins, counts and ends them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from boards.store.records import ReleaseRecord, ReleaseState

MAX_TRIAL_RESETS = 3  # boots during a trial before the board goes back
MAX_TRIAL_FAILURES = 3


def on_trial(record: ReleaseRecord, trial_s: float) -> ReleaseRecord:
    """The record at the beginning of a trial of so many seconds, 0: without a time limit."""
    return replace(
        record,
        state=ReleaseState.TRIAL,
        trial_boot=boot_id(),
        trial_resets=0,
        trial_ends_s=time.monotonic() + trial_s if trial_s else 0.0,
        failures=0,
    )


def after_reset(record: ReleaseRecord) -> ReleaseRecord:
    """The record itself; one reset more, and no time limit, when the board was reset since."""
    boot = boot_id()
    if record.state is not ReleaseState.TRIAL or record.trial_boot == boot:
        return record
    # the clock of the time limit began anew with the boot
    return replace(record, trial_boot=boot, trial_resets=record.trial_resets + 1, trial_ends_s=0.0)


def why_over(record: ReleaseRecord) -> str:
    """Why a trial has failed, empty while it has not."""
    if record.state is not ReleaseState.TRIAL:
        return ""
    if record.trial_resets >= MAX_TRIAL_RESETS:
        return f"the board was reset {record.trial_resets} times during the trial"
    if record.trial_ends_s and time.monotonic() > record.trial_ends_s:
        return "nobody marked it good before its trial ended"
    return ""


def boot_id() -> str:
    """Identity of this boot of the system, empty when the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
