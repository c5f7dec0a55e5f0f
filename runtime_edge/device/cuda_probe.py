"""Fingerprints of GPUs, from the driver alone: pycuda is not needed."""

from __future__ import annotations

import ctypes
import re

from planformat.fingerprint import DeviceFingerprint
from runtime_edge.device.cpu_cores import read_text
from runtime_edge.device.cuda_driver import CudaError, Driver, open_driver

_CLOCK_KHZ = 13
_NUM_SMS = 16
_IS_INTEGRATED = 18
_MEMORY_CLOCK_KHZ = 36
_MEMORY_BUS_BITS = 37
_L2_BYTES = 38
_MAJOR, _MINOR = 75, 76
_SHARED_PER_SM_BYTES = 81
_SHARED_PER_BLOCK_BYTES = 97  # with opt-in

_DECIMALS = {
    "cuda.num_sms": (_NUM_SMS, 1),
    "cuda.core_clock_hz": (_CLOCK_KHZ, 1000),
    "cuda.memory_clock_hz": (_MEMORY_CLOCK_KHZ, 1000),
    "cuda.memory_bus_bits": (_MEMORY_BUS_BITS, 1),
    "cuda.l2_bytes": (_L2_BYTES, 1),
    "cuda.shared_memory_per_sm_bytes": (_SHARED_PER_SM_BYTES, 1),
    "cuda.shared_memory_per_block_bytes": (_SHARED_PER_BLOCK_BYTES, 1),
}


def num_gpus(driver: Driver) -> int:
    """GPUs that the process may use."""
    number = ctypes.c_int()
    driver.device_count(ctypes.byref(number))
    return number.value


def attribute(driver: Driver, ordinal: int, number: int) -> int:
    """A `CUdevice_attribute` of a GPU."""
    device, value = ctypes.c_int(), ctypes.c_int()
    try:
        driver.device_get(ctypes.byref(device), ordinal)
    except CudaError as error:
        raise CudaError(
            f"GPU {ordinal} of {num_gpus(driver)} (numbers start at 0): {error}", error.code
        ) from error
    driver.device_attribute(ctypes.byref(value), number, device)
    return value.value


def compute_capability(driver: Driver, ordinal: int) -> tuple[int, int]:
    """Major and minor number of a GPU's architecture."""
    return attribute(driver, ordinal, _MAJOR), attribute(driver, ordinal, _MINOR)


def is_integrated(driver: Driver, ordinal: int) -> bool:
    """Whether the GPU shares memory with the CPU."""
    return bool(attribute(driver, ordinal, _IS_INTEGRATED))


def probe_gpu(ordinal: int = 0) -> DeviceFingerprint:
    """Facts about one GPU and the board that it is on; planformat/SPEC.md section 6.

    A fact that the driver does not tell is left out.

    Raises:
        LoadError: no driver; CudaError: no such GPU.
    """
    from runtime_edge.probe import board_fields

    driver = open_driver()
    major, minor = compute_capability(driver, ordinal)
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    driver.device_get(ctypes.byref(device), ordinal)
    driver.device_name(name, len(name), device)
    driver.device_memory(ctypes.byref(memory), device)
    fields = {
        "cuda.name": name.value.decode("utf-8", "replace"),
        "cuda.compute_capability": f"{major}.{minor}",
        "cuda.memory_bytes": str(memory.value),
        "cuda.is_integrated": str(int(is_integrated(driver, ordinal))),
        "cuda.cuda_version": ".".join(map(str, driver.version())),
        "cuda.driver_version": _driver_version(),
        **board_fields(),
    }
    for field, (number, factor) in _DECIMALS.items():
        value = attribute(driver, ordinal, number)
        fields[field] = str(value * factor) if value > 0 else ""
    return DeviceFingerprint("cuda", {name: value for name, value in fields.items() if value})


def _driver_version() -> str:
    """`580.159.04`, from the kernel module; empty where it does not tell."""
    version = read_text("/sys/module/nvidia/version") or ""
    if not version:
        found = re.search(
            r"Kernel Module\D*?(\d+\.\d+(?:\.\d+)*)", read_text("/proc/driver/nvidia/version") or ""
        )
        version = found[1] if found else ""
    return version if re.fullmatch(r"\d+(\.\d+)*", version) else ""
