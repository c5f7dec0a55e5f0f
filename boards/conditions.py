"""Under which conditions a board works right now: clocks, power mode, temperature, load.

Read from /proc, /sys and, for discrete GPUs, NVML. What the system does not tell is left out.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path

Conditions = Mapping[str, float | str]
_CPUFREQ = "/sys/devices/system/cpu/cpu{}/cpufreq/{}"
_BUSY_SHARE = 0.25  # of a core that others use
_CLOCK_SHARE = 0.95  # of the highest clock
_HOT_CELSIUS = 85.0
_NVML_GRAPHICS, _NVML_MEMORY = 0, 2


def read_conditions(root: Path = Path("/")) -> dict[str, float | str]:
    """What can be known at this moment.

    Args:
        root: of the file system, for tests.

    Returns:
        `cpu_mhz` (mean of the cores that the process may use), `cpu_max_mhz`, `governor`,
        `temperature_celsius` (the hottest zone), `power_mode`, `load` (runnable threads, one
        minute), `num_cores`, `gpu_mhz`, `gpu_max_mhz`, `gpu_memory_mhz`, `gpu_celsius`.
    """
    cores = sorted(os.sched_getaffinity(0))
    values: dict[str, float | str] = {"num_cores": float(len(cores))}
    current = [_number(root, _CPUFREQ.format(core, "scaling_cur_freq")) for core in cores]
    highest = [_number(root, _CPUFREQ.format(core, "cpuinfo_max_freq")) for core in cores]
    known = [value for value in current if value is not None]
    if known:
        values["cpu_mhz"] = round(sum(known) / len(known) / 1000, 1)
    known = [value for value in highest if value is not None]
    if known:
        values["cpu_max_mhz"] = round(max(known) / 1000, 1)
    governor = _text(root, _CPUFREQ.format(cores[0], "scaling_governor"))
    if governor:
        values["governor"] = governor
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    degrees = [_number(root, "/" + str(zone.relative_to(root))) for zone in zones]
    hot = [value / 1000 for value in degrees if value is not None and -50e3 < value < 200e3]
    if hot:
        values["temperature_celsius"] = round(max(hot), 1)
    mode = re.search(r"pmode:(\d+)", _text(root, "/var/lib/nvpmodel/status"))
    if mode:
        values["power_mode"] = mode[1].lstrip("0") or "0"
    load = _text(root, "/proc/loadavg").split()
    if load:
        values["load"] = float(load[0])
    values |= _devfreq(root)
    if root == Path("/") and "gpu_mhz" not in values:
        values |= _nvml()
    return values


def conditions_text(conditions: Conditions) -> str:
    """One line, keys sorted: `cpu_mhz=2100 governor=performance`."""
    return " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in sorted(conditions.items())
    )


def parse_conditions(text: str) -> dict[str, float | str]:
    """Inverse of `conditions_text`; what is no pair is left out."""
    values: dict[str, float | str] = {}
    for item in text.split():
        key, equals, value = item.partition("=")
        if equals:
            values[key] = float(value) if re.fullmatch(r"-?\d+(\.\d+)?", value) else value
    if isinstance(values.get("power_mode"), float):
        values["power_mode"] = f"{values['power_mode']:g}"
    return values


def slow_causes(conditions: Conditions, built: Conditions | None = None) -> list[str]:
    """Likely reasons why something takes longer than it could, the likeliest first.

    Args:
        conditions: while it was slow.
        built: when it was fast, as far as known.
    """
    causes = []
    for what in ("cpu", "gpu"):
        now, most = conditions.get(f"{what}_mhz"), conditions.get(f"{what}_max_mhz")
        if isinstance(now, float) and isinstance(most, float) and now < _CLOCK_SHARE * most:
            causes.append(
                f"clocks: the {what.upper()} runs at {now:,.0f} of {most:,.0f} MHz"
                + (f" (governor {conditions['governor']})" if "governor" in conditions else "")
                + "; set them with jetson_clocks or the governor 'performance'"
            )
    if built is not None:
        causes += _lower_clocks(conditions, built)
        before, now = built.get("power_mode"), conditions.get("power_mode")
        if before is not None and before != now:
            causes.append(f"power mode: it is {now}, at build it was {before}; see nvpmodel -m")
    for key in ("temperature_celsius", "gpu_celsius"):
        degrees = conditions.get(key)
        if isinstance(degrees, float) and degrees >= _HOT_CELSIUS:
            causes.append(f"heat: {degrees:.0f} °C; clocks are lowered to protect the chip")
    load, cores = conditions.get("load"), conditions.get("num_cores")
    if isinstance(load, float) and isinstance(cores, float) and load > _BUSY_SHARE * cores:
        causes.append(
            f"contention: {load:.1f} runnable threads on {cores:.0f} cores over the last minute"
        )
    return causes


def _lower_clocks(conditions: Conditions, built: Conditions) -> list[str]:
    causes = []
    for what in ("cpu", "gpu", "gpu_memory"):
        now, before = conditions.get(f"{what}_mhz"), built.get(f"{what}_mhz")
        if isinstance(now, float) and isinstance(before, float) and now < _CLOCK_SHARE * before:
            name = what.upper().replace("_MEMORY", " memory")
            causes.append(
                f"clocks: the {name} runs at {now:,.0f} MHz, at build it ran at {before:,.0f}"
            )
    return causes


def available_memory_bytes() -> int | None:
    """Memory that can be taken without swapping, None when the system does not tell."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(Path("/"), "/proc/meminfo"), re.M)
    return int(found[1]) * 1024 if found else None


def _devfreq(root: Path) -> dict[str, float | str]:
    """Clock of an integrated GPU."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if not re.search(r"gpu|gp10b|gv11b|ga10b|gm20b|gb10b|nvgpu", folder.name):
            continue
        base = "/" + str(folder.relative_to(root))
        now, most = _number(root, f"{base}/cur_freq"), _number(root, f"{base}/max_freq")
        values: dict[str, float | str] = {}
        if now is not None:
            values["gpu_mhz"] = round(now / 1e6, 1)
        if most is not None:
            values["gpu_max_mhz"] = round(most / 1e6, 1)
        return values
    return {}


def _nvml() -> dict[str, float | str]:
    """Clocks and temperature of the first discrete GPU."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return {}
    if nvml.nvmlInit_v2() != 0:
        return {}
    values: dict[str, float | str] = {}
    try:
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) != 0:
            return {}
        number = ctypes.c_uint()
        queries = (
            ("gpu_mhz", nvml.nvmlDeviceGetClockInfo, _NVML_GRAPHICS),
            ("gpu_max_mhz", nvml.nvmlDeviceGetMaxClockInfo, _NVML_GRAPHICS),
            ("gpu_memory_mhz", nvml.nvmlDeviceGetClockInfo, _NVML_MEMORY),
            ("gpu_celsius", nvml.nvmlDeviceGetTemperature, 0),
        )
        for name, query, what in queries:
            if query(handle, what, ctypes.byref(number)) == 0:
                values[name] = float(number.value)
    finally:
        nvml.nvmlShutdown()
    return values


def _text(root: Path, path: str) -> str:
    try:
        return (root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(root: Path, path: str) -> float | None:
    text = _text(root, path)
    return float(text) if re.fullmatch(r"-?\d{1,15}", text) else None
