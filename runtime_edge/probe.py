"""The fingerprint of this machine: fields of planformat/SPEC.md section 6, from /proc and /sys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from planformat.fingerprint import AARCH64_FEATURES, X86_FEATURES, DeviceFingerprint
from runtime_edge.device.cpu_cores import read_text

_SYSFS = "/sys/devices/system/cpu"
_SYSCONF_CACHE = {(1, "Data"): 188, (2, "Unified"): 191, (3, "Unified"): 194}  # glibc _SC_LEVEL*
_KNOWN_FEATURES = {"x86_64": X86_FEATURES, "aarch64": AARCH64_FEATURES}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def probe_device() -> DeviceFingerprint:
    """Facts about the CPU and board that this process runs on.

    A fact that the system does not tell is left out, an unknown cache size is 0. The number of
    cores is what the affinity mask leaves to the process.
    """
    architecture = os.uname().machine
    processors = _parse_cpuinfo(read_large("/proc/cpuinfo"))
    cores = sorted(os.sched_getaffinity(0))
    fields = {
        "cpu.architecture": architecture,
        "cpu.vendor": _joined(_vendor(p) for p in processors),
        "cpu.model": _joined(_model(p) for p in processors),
        "cpu.features": " ".join(sorted(_features(processors, architecture))),
        "cpu.l1d_bytes": str(_cache_bytes(cores, 1, "Data")),
        "cpu.l2_bytes": str(_cache_bytes(cores, 2, "Unified")),
        "cpu.l3_bytes": str(_cache_bytes(cores, 3, "Unified")),
        "cpu.num_cores": str(_num_physical(cores)),
        "os.glibc": _glibc_version(),
        **board_fields(),
    }
    return DeviceFingerprint("cpu", {name: value for name, value in fields.items() if value})


def board_fields() -> dict[str, str]:
    """The `board.*` fields, empty where the system does not tell."""
    return {
        "board.model": read_text("/proc/device-tree/model") or "",
        "board.release": _l4t_release(read_text("/etc/nv_tegra_release") or ""),
        "board.power_mode": _power_mode(
            read_text("/var/lib/nvpmodel/status") or "", read_large("/etc/nvpmodel.conf")
        ),
    }


def read_large(path: str) -> str:
    """Content of a system file of any length, empty when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _parse_cpuinfo(text: str) -> list[dict[str, str]]:
    blocks = []
    for block in text.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
        entries = {key.strip(): value.strip() for key, _, value in pairs}
        # Some ARM kernels end with a block about the board.
        if "flags" in entries or "Features" in entries:
            blocks.append(entries)
    return blocks


def _vendor(processor: dict[str, str]) -> str:
    return processor.get("vendor_id") or processor.get("CPU implementer", "")


def _model(processor: dict[str, str]) -> str:
    if "CPU part" in processor:
        implementer, part, variant, revision = (
            processor.get("CPU " + key, "?")
            for key in ("implementer", "part", "variant", "revision")
        )
        return f"{implementer}/{part}/r{variant.removeprefix('0x')}p{revision}"
    numbers = [processor.get(key, "?") for key in ("cpu family", "model", "stepping")]
    return f"{processor.get('model name', '')} {'/'.join(numbers)}".strip()


def _features(processors: list[dict[str, str]], architecture: str) -> set[str]:
    """Features that every core has."""
    known = _KNOWN_FEATURES.get(architecture)
    rows = [set((p.get("flags") or p.get("Features", "")).split()) for p in processors]
    common = set.intersection(*rows) if rows else set()
    return common & known if known is not None else common


def _joined(values: Iterable[str]) -> str:
    """Distinct values: more than one on boards with two kinds of cores."""
    return " + ".join(sorted({value for value in values if value}))


def _num_physical(cores: list[int]) -> int:
    return len(
        {
            read_text(f"{_SYSFS}/cpu{core}/topology/thread_siblings_list") or str(core)
            for core in cores
        }
    )


def _cache_bytes(cores: list[int], level: int, kind: str) -> int:
    """Size of one cache of the core that has most; 0 when unknown or not there."""
    sizes = []
    for core in cores:
        for index in range(8):
            folder = f"{_SYSFS}/cpu{core}/cache/index{index}"
            if read_text(f"{folder}/level") is None:
                break
            if read_text(f"{folder}/level") == str(level) and read_text(f"{folder}/type") == kind:
                sizes.append(_size(read_text(f"{folder}/size") or ""))
    if sizes:
        return max(sizes)
    try:
        return max(0, os.sysconf(_SYSCONF_CACHE[level, kind]))
    except (OSError, ValueError):
        return 0


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "")
    return int(number) * _UNITS.get(unit, 1) if number.isdigit() else 0


def _glibc_version() -> str:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        return ""
    return version if name == "glibc" else ""


def _l4t_release(text: str) -> str:
    """`36.4.0` from `# R36 (release), REVISION: 4.0, ...`."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else ""


def _power_mode(status: str, config: str) -> str:
    """Name of the nvpmodel mode in use, its number when the configuration does not name it."""
    found = re.search(r"pmode:(\d+)", status)
    if not found:
        return ""
    number = int(found[1])
    named = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+)", config)
    return named[1] if named else str(number)
