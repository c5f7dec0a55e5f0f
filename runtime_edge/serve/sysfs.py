"""Temperatures, power, clocks and memory of the machine, from /sys and /proc.

Which files there are is found once; each reading is a few small reads. Jetson boards show their
power rails through INA3221 drivers (hwmon), the GPU's clock and load through devfreq.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """One value.

    Attributes:
        metric: name without prefix; label: which sensor; value: in the unit that the name says.
    """

    metric: str
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class _Source:
    metric: str
    label: str
    path: str
    scale: float
    other: str = ""  # multiplied with the first: rails that show voltage and current


class Sensors:
    """The sensors that this machine has."""

    def __init__(self, root: str = "/") -> None:
        """Look for them.

        Args:
            root: of the file system; tests have their own.
        """
        self._root = root
        self._sources = [
            *self._thermal(),
            *self._hwmon(),
            *self._clocks(),
        ]

    def read(self) -> list[Reading]:
        """What they show now; a sensor that does not answer is left out."""
        readings = []
        for source in self._sources:
            value = _number(source.path)
            if value is not None and source.other:
                factor = _number(source.other)
                value = None if factor is None else value * factor
            if value is not None:
                readings.append(Reading(source.metric, source.label, value * source.scale))
        return readings

    def _thermal(self) -> list[_Source]:
        sources = []
        for folder in self._glob("sys/class/thermal/thermal_zone*"):
            name = _text(os.path.join(folder, "type")) or os.path.basename(folder)
            path = os.path.join(folder, "temp")
            sources.append(_Source("temperature_celsius", name, path, 1e-3))
        return sources

    def _hwmon(self) -> list[_Source]:
        sources = []
        for folder in self._glob("sys/class/hwmon/hwmon*"):
            chip = _text(os.path.join(folder, "name")) or os.path.basename(folder)
            for path in sorted(glob.glob(os.path.join(folder, "power*_input"))):
                label = _text(path.replace("_input", "_label")) or chip
                sources.append(_Source("power_watts", label, path, 1e-6))
            for path in sorted(glob.glob(os.path.join(folder, "curr*_input"))):
                number = os.path.basename(path)[len("curr") : -len("_input")]
                volts = os.path.join(folder, f"in{number}_input")
                label = _text(os.path.join(folder, f"in{number}_label"))
                if label and os.path.exists(volts):  # mA times mV
                    sources.append(_Source("power_watts", label, path, 1e-6, volts))
        return sources

    def _clocks(self) -> list[_Source]:
        sources = []
        for folder in self._glob("sys/devices/system/cpu/cpufreq/policy*"):
            path = os.path.join(folder, "scaling_cur_freq")
            sources.append(_Source("clock_hz", "cpu_" + os.path.basename(folder), path, 1e3))
        for folder in self._glob("sys/class/devfreq/*"):
            name = os.path.basename(folder)
            if "gpu" in name or "gv11b" in name or "ga10b" in name or "gp10b" in name:
                sources.append(_Source("clock_hz", name, os.path.join(folder, "cur_freq"), 1.0))
        for path in self._glob("sys/devices/gpu.0/load"):
            sources.append(_Source("gpu_load_ratio", "gpu", path, 1e-3))
        return sources

    def _glob(self, pattern: str) -> list[str]:
        return sorted(glob.glob(os.path.join(self._root, pattern)))


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What this process and its machine use.

    Attributes:
        resident_bytes: of the process; cpu_seconds: of all its threads; num_threads: now.
        total_bytes, available_bytes: memory of the machine.
        descriptors: open files of the process.
    """

    resident_bytes: int
    cpu_seconds: float
    num_threads: int
    total_bytes: int
    available_bytes: int
    descriptors: int


def process_use() -> ProcessUse:
    """Read /proc; what it does not tell is 0."""
    fields: dict[str, int] = {}
    for path in ("/proc/self/status", "/proc/meminfo"):
        for line in _lines(path):
            name, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdigit():
                fields[name] = int(words[0])
    times = os.times()
    try:
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        descriptors = 0
    return ProcessUse(
        fields.get("VmRSS", 0) * 1024,
        times.user + times.system,
        fields.get("Threads", 0),
        fields.get("MemTotal", 0) * 1024,
        fields.get("MemAvailable", 0) * 1024,
        descriptors,
    )


def _number(path: str) -> float | None:
    text = _text(path)
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(256).strip("\0\n ")
    except OSError:  # sensors of sleeping parts answer EAGAIN
        return ""


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
