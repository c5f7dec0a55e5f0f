"""How long a plan takes: measured at load, followed while it serves."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

_MEAN_GAIN = 1 / 16
_DEVIATION_GAIN = 1 / 8
_CLIP = 8.0  # one stall of the machine must not close the door for the next hundred requests


@dataclass(slots=True)
class ProfileLatency:
    """Running estimate of one profile's time on the device, copies included.

    Attributes:
        rows: what the profile computes at once; name: of the profile.
        mean_us, deviation_us: smoothed time and its mean absolute deviation.
    """

    rows: int
    name: str
    mean_us: float
    deviation_us: float = 0.0

    def update(self, measured_us: float) -> None:
        """Take in one execution."""
        error = min(measured_us, _CLIP * self.mean_us) - self.mean_us
        self.mean_us += _MEAN_GAIN * error
        self.deviation_us += _DEVIATION_GAIN * (abs(error) - self.deviation_us)


class LatencyModel:
    """Times of all profiles of a plan.

    Attributes:
        profiles: by ascending rows.
        max_rows: of the largest.
    """

    def __init__(self, profiles: Sequence[ProfileLatency]) -> None:
        """A model of at least one profile."""
        self.profiles = sorted(profiles, key=lambda p: p.rows)
        self._rows = [p.rows for p in self.profiles]
        self.max_rows = self._rows[-1]

    def profile_for(self, rows: int) -> ProfileLatency:
        """The smallest profile that takes the rows at once, or the largest there is."""
        index = bisect_left(self._rows, rows)
        return self.profiles[min(index, len(self.profiles) - 1)]

    def time_us(self, rows: int) -> float:
        """Expected time of that many rows, one execution after the other."""
        full, rest = divmod(rows, self.max_rows)
        time_us = full * self.profiles[-1].mean_us
        return time_us + self.profile_for(rest).mean_us if rest else time_us

    def margin_us(self, rows: int) -> float:
        """What to add to `time_us` so that almost every execution ends within it."""
        return 4.0 * self.profile_for(min(rows, self.max_rows)).deviation_us
