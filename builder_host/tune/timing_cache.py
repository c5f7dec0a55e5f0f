"""Timing cache: what was measured, on which device, for which kernel.

A key holds everything that can change the answer: device fingerprint, problem, tactic, hash of the
family's templates, toolchain. The file is text, one JSON record per line, sorted by key: caches can
be read, compared, merged and put under version control.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from builder_host.errors import TimingCacheError

FORMAT = "edgeplan-timing-cache"
VERSION = 1


@dataclass(frozen=True, slots=True, order=True)
class TimingKey:
    """Everything that a timing depends on.

    Attributes:
        fingerprint: id of the device fingerprint (`fingerprint_id`).
        problem: `Problem.text()`, or `plan:<hash>` for a whole plan.
        tactic: `Tactic.text`.
        template: the family's `template_hash`.
        toolchain: compiler name and version.
        conditions: how it was measured, e.g. `flush=2097152`.
    """

    fingerprint: str
    problem: str
    tactic: str
    template: str
    toolchain: str
    conditions: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Result of measuring one candidate.

    Attributes:
        median_us: median of the repeats in microseconds; None when the candidate failed.
        p20_us, p80_us: 20th and 80th percentile.
        num_repeats: number of timings behind the median.
        error: why the candidate failed, or an empty text.
        observed: clocks, temperature, power mode and load meanwhile, `cpu_mhz=2100 load=0.1`;
            empty when they are not known. For people: nothing is chosen by it.
    """

    median_us: float | None
    p20_us: float | None = None
    p80_us: float | None = None
    num_repeats: int = 0
    error: str = ""
    observed: str = ""


class TimingCache:
    """Timings by key, in memory; `load_timing_cache` and `save` move them to and from a file."""

    def __init__(self, records: dict[TimingKey, Timing] | None = None) -> None:
        """Start with the given records."""
        self._records: dict[TimingKey, Timing] = dict(records or {})
        self._stored_in: Path | None = None  # a file that holds exactly these records

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[tuple[TimingKey, Timing]]:
        return iter(sorted(self._records.items(), key=lambda item: item[0]))

    def get(self, key: TimingKey) -> Timing | None:
        """The timing, or None."""
        return self._records.get(key)

    def put(self, key: TimingKey, timing: Timing) -> None:
        """Record a timing, replacing an older one."""
        self._records[key] = timing
        self._stored_in = None

    def merge(self, other: TimingCache) -> int:
        """Take over the records of another cache; returns how many were new or changed.

        Where both have a key, a success wins over a failure, then the one with more repeats, then
        the lower median: the answer does not depend on the order of merging.
        """
        changed = 0
        for key, timing in other:
            mine = self._records.get(key)
            if mine is None or _rank(timing) < _rank(mine):
                self.put(key, timing)
                changed += 1
        return changed

    def text(self) -> str:
        """The file's text: a header line, then one record per line, sorted by key."""
        lines = [json.dumps({"format": FORMAT, "version": VERSION})]
        for key, timing in self:
            record = {**asdict(key), **asdict(timing)}
            if not timing.observed:
                del record["observed"]
            lines.append(json.dumps(record, sort_keys=True))
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file through a temporary one and a rename; not if it holds the same already."""
        target = Path(path).absolute()
        if target == self._stored_in and target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name + ".")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(self.text())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._stored_in = target


def _rank(timing: Timing) -> tuple[bool, int, float, str]:
    return (
        timing.median_us is None,
        -timing.num_repeats,
        timing.median_us if timing.median_us is not None else 0.0,
        timing.error,
    )


def load_timing_cache(path: str | os.PathLike[str]) -> TimingCache:
    """Read a cache file.

    Raises:
        TimingCacheError: not a timing cache, another version, or a broken record (with its line).
        OSError: the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TimingCacheError(f"{path}: not a timing cache: {error}") from error
    cache = parse_timing_cache(text.splitlines(), str(path))
    cache._stored_in = Path(path).absolute()
    return cache


def parse_timing_cache(lines: Iterable[str], source: str) -> TimingCache:
    """Parse the text of a cache; `source` names it in messages. Raises TimingCacheError."""
    records: dict[TimingKey, Timing] = {}
    number = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if number == 1:
                if record.get("format") != FORMAT:
                    raise ValueError(f"the first line must name the format '{FORMAT}'")
                if record.get("version") != VERSION:
                    raise ValueError(
                        f"version {record.get('version')} is not {VERSION}; "
                        "measure again with this release"
                    )
                continue
            absent = [name for name in TimingKey.__slots__ if name not in record]
            if absent:
                raise ValueError(f"the record lacks {', '.join(absent)}; measure again")
            key = TimingKey(**{name: _text(record.pop(name)) for name in TimingKey.__slots__})
            timing = Timing(**record)
            _check(timing)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TimingCacheError(f"{source}: line {number}: {error}") from error
        records[key] = timing
    if number == 0:
        raise TimingCacheError(f"{source}: empty, not a timing cache")
    return TimingCache(records)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _check(timing: Timing) -> None:
    for name in ("median_us", "p20_us", "p80_us"):
        value = getattr(timing, name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value < 1e12):
            raise ValueError(f"{name} is {value!r}, it must be a time in microseconds")
    if not isinstance(timing.num_repeats, int) or not isinstance(timing.error, str):
        raise ValueError("num_repeats must be an integer and error a text")
    if not isinstance(timing.observed, str):
        raise ValueError("observed must be a text")


def digest(*parts: str) -> str:
    """Short SHA-256 of texts, for ids inside keys."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
