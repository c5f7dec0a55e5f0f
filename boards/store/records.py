"""What a store knows of one release: `record.json` beside the plan."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from boards.errors import StoreError
from boards.store.durable_file import write_durably

FORMAT, VERSION = "edgeplan-release", 1
MAX_RECORD_BYTES = 1 << 20


class ReleaseState(enum.Enum):
    """How far a release has come. `value` is the word in the file."""

    STAGED = "staged"  # complete on disk, hashes right, not tried
    CHECKED = "checked"  # verified and run here
    TRIAL = "trial"  # active, to be confirmed
    GOOD = "good"  # confirmed
    BAD = "bad"  # failed; never activated again


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """One release.

    Attributes:
        release_id: the first 16 hexadecimal digits of the file's SHA-256; its folder's name.
        sha256: of the file, hexadecimal; size_bytes: of the file.
        network: name inside the plan.
        number: release counter that the plan states, 0 when it states none.
        expires: last day of validity that the plan states, `2027-01-31`, or empty.
        state: how far it has come; reason: why it is bad.
        built_us: latency that the plan records; checked_us: median measured here; None: not known.
        notes: what the check found noteworthy, for people.
        trial_boot: id of the boot in which the trial began; trial_resets: boots since then.
        trial_ends_s: end of the trial on the monotonic clock of that boot, 0 for no end.
        failures: reported while on trial.
    """

    release_id: str
    sha256: str
    size_bytes: int
    network: str = ""
    number: int = 0
    expires: str = ""
    state: ReleaseState = ReleaseState.STAGED
    reason: str = ""
    built_us: float | None = None
    checked_us: float | None = None
    notes: tuple[str, ...] = ()
    trial_boot: str = ""
    trial_resets: int = 0
    trial_ends_s: float = 0.0
    failures: int = 0

    def describe(self) -> dict[str, Any]:
        """The record as JSON takes it."""
        return {**asdict(self), "state": self.state.value, "notes": list(self.notes)}


def save_record(folder: Path, record: ReleaseRecord) -> None:
    """Write `record.json` of a release's folder."""
    content = {"format": FORMAT, "version": VERSION, **record.describe()}
    write_durably(
        folder / "record.json", json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
    )


def load_record(folder: Path) -> ReleaseRecord:
    """Read `record.json` of a release's folder.

    Raises:
        StoreError: absent or damaged.
    """
    path = folder / "record.json"
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(MAX_RECORD_BYTES))
        if content.pop("format") != FORMAT or content.pop("version") != VERSION:
            raise ValueError(f"format or version is not '{FORMAT}' {VERSION}")
        unknown = set(content) - {field.name for field in fields(ReleaseRecord)}
        if unknown:
            raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
        content["state"] = ReleaseState(content["state"])
        content["notes"] = tuple(str(note) for note in content["notes"])
        return ReleaseRecord(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path}: {error}; deploy the plan again") from error
