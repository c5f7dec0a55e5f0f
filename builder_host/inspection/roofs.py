"""Nominal peaks of the device that a plan is for: arithmetic and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builder_host.errors import BuilderError
from builder_host.targets.target import cpu_target, hardware_of_gpu
from planformat.fingerprint import DeviceFingerprint

# Operations per clock and SM, a multiply-add counting two, dense (CUDA C++ programming guide,
# table of arithmetic throughput, and the architecture white papers).
_FLOAT32 = {"5": 256, "6.0": 128, "6": 256, "7": 128, "8.0": 128, "8": 256}
_NEWER_FLOAT32 = 256
_FLOAT16_TENSOR = {"7": 1024, "8.0": 2048, "8.7": 2048, "8": 1024, "9": 4096, "12": 1024}
_NEWER_FLOAT16_TENSOR = 8192


@dataclass(frozen=True, slots=True)
class Roofs:
    """Peaks in 1e9 operations per second by name, memory bandwidth in 1e9 bytes per second."""

    peaks: Mapping[str, float]
    memory_gbps: float

    @property
    def ridge(self) -> float:
        """Operations per byte at which the highest peak is reached."""
        return max(self.peaks.values()) / self.memory_gbps


def device_roofs(fingerprint: DeviceFingerprint, num_workers: int) -> Roofs | None:
    """Roofs of a device; None when neither its fingerprint nor a board file tells enough.

    Args:
        fingerprint: of the plan's variant.
        num_workers: threads of the profile (CPU).
    """
    if fingerprint.device_kind == "cpu":
        try:
            target = cpu_target(fingerprint)
        except BuilderError:
            return None
        peak = target.fma_gflops_per_core * num_workers
        return Roofs({"float32 (estimate)": peak}, target.memory_gbps * num_workers)
    return _gpu_roofs(fingerprint)


def _gpu_roofs(fingerprint: DeviceFingerprint) -> Roofs | None:
    from builder_host.targets.cuda import cuda_target

    try:
        target = cuda_target(fingerprint, hardware_of_gpu(fingerprint))
    except BuilderError:
        return None
    if not target.core_clock_hz or not target.memory_gbps:
        return None
    capability = fingerprint.fields["cuda.compute_capability"]
    per_ns = target.num_sms * target.core_clock_hz / 1e9
    peaks = {"float32": _of(capability, _FLOAT32, _NEWER_FLOAT32) * per_ns}
    if int(capability.partition(".")[0]) >= 7:
        tensor = _of(capability, _FLOAT16_TENSOR, _NEWER_FLOAT16_TENSOR)
        peaks["float16 tensor cores"] = tensor * per_ns
    return Roofs(peaks, target.memory_gbps)


def _of(capability: str, table: Mapping[str, int], newer: int) -> int:
    return table.get(capability, table.get(capability.partition(".")[0], newer))
