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
class Sensor:
    """One sensor.

    Attributes:
        metric, label: as in `Reading`; path: its file; scale: of the file's numbers to the unit.
        other: a file whose number is a factor: rails that show voltage and current. Or "".
    """

    metric: str
    label: str
    path: str
    scale: float
    other: str = ""

    def read(self) -> Reading | None:
        """What it shows now, None when it does not answer. A driver may take its time."""
        value = _number(self.path)
        if value is not None and self.other:
            factor = _number(self.other)
            value = None if factor is None else value * factor
        return None if value is None else Reading(self.metric, self.label, value * self.scale)


def find_sensors(root: str = "/") -> list[Sensor]:
    """The sensors that this machine has.

    Args:
        root: of the file system; tests have their own.
    """
    return [*_thermal(root), *_hwmon(root), *_clocks(root)]


def _thermal(root: str) -> list[Sensor]:
    sensors = []
    for folder in _glob(root, "sys/class/thermal/thermal_zone*"):
        name = _text(os.path.join(folder, "type")) or os.path.basename(folder)
        path = os.path.join(folder, "temp")
        sensors.append(Sensor("temperature_celsius", name, path, 1e-3))
    return sensors


def _hwmon(root: str) -> list[Sensor]:
    sensors = []
    for folder in _glob(root, "sys/class/hwmon/hwmon*"):
        chip = _text(os.path.join(folder, "name")) or os.path.basename(folder)
        for path in sorted(glob.glob(os.path.join(folder, "power*_input"))):
            label = _text(path.replace("_input", "_label")) or chip
            sensors.append(Sensor("power_watts", label, path, 1e-6))
        for path in sorted(glob.glob(os.path.join(folder, "curr*_input"))):
            number = os.path.basename(path)[len("curr") : -len("_input")]
            volts = os.path.join(folder, f"in{number}_input")
            label = _text(os.path.join(folder, f"in{number}_label"))
            if label and os.path.exists(volts):  # mA times mV
                sensors.append(Sensor("power_watts", label, path, 1e-6, volts))
    return sensors


def _clocks(root: str) -> list[Sensor]:
    sensors = []
    for folder in _glob(root, "sys/devices/system/cpu/cpufreq/policy*"):
        path = os.path.join(folder, "scaling_cur_freq")
        sensors.append(Sensor("clock_hz", "cpu_" + os.path.basename(folder), path, 1e3))
    for folder in _glob(root, "sys/class/devfreq/*"):
        name = os.path.basename(folder)
        if "gpu" in name or "gv11b" in name or "ga10b" in name or "gp10b" in name:
            sensors.append(Sensor("clock_hz", name, os.path.join(folder, "cur_freq"), 1.0))
    for path in _glob(root, "sys/devices/gpu.0/load"):
        sensors.append(Sensor("gpu_load_ratio", "gpu", path, 1e-3))
    return sensors


def _glob(root: str, pattern: str) -> list[str]:
    return sorted(glob.glob(os.path.join(root, pattern)))


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
