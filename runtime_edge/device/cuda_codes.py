"""Return codes of the CUDA driver: name, meaning and what to do about each.

Numbers and names are those of `CUresult` in the CUDA driver API; they never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class DriverCode(NamedTuple):
    """One return code.

    Attributes:
        name: of the driver API.
        meaning: in the words of somebody who runs plans.
        what_to_do: the first thing to try.
    """

    name: str
    meaning: str
    what_to_do: str


SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
NO_DEVICE = 100
INVALID_IMAGE = 200
NO_BINARY_FOR_GPU = 209
NOT_FOUND = 500
NOT_READY = 600
NOT_SUPPORTED = 801

_NEW_CONTEXT = (
    "CUDA gives this process no GPU any more: close contexts and engines and restart the process "
    "(CPU plans go on working)"
)
_FAULT = f"check binding addresses and sizes, and plugins; {_NEW_CONTEXT}"
_DRIVER = "reload the driver or reboot; on Jetson flash a consistent L4T release"
_OWN_CAPTURE = "end or abandon the capture of that stream first; enqueue is a graph launch already"
_REPORT = "report it with this text and the output of 'edgeplan probe --device cuda:0'"
_REBUILD = "rebuild the plan with this device as its target"

CODES: Mapping[int, DriverCode] = {
    INVALID_VALUE: DriverCode(
        "CUDA_ERROR_INVALID_VALUE",
        "the driver refused an argument",
        "check addresses, sizes and streams that you passed; otherwise the plan does not fit "
        "this GPU's limits: rebuild it for this device",
    ),
    OUT_OF_MEMORY: DriverCode(
        "CUDA_ERROR_OUT_OF_MEMORY",
        "not enough free device memory",
        "close other engines and processes on this GPU, create fewer contexts, or pick a smaller "
        "profile; Engine.weights_bytes and Engine.context_bytes() tell what is needed",
    ),
    3: DriverCode(
        "CUDA_ERROR_NOT_INITIALIZED",
        "the driver is not initialised in this process",
        "load plans in the process that runs them: CUDA does not survive a fork "
        "(multiprocessing: use the 'spawn' method)",
    ),
    4: DriverCode(
        "CUDA_ERROR_DEINITIALIZED",
        "the driver is shutting down with the process",
        "close contexts and engines before the interpreter exits",
    ),
    34: DriverCode(
        "CUDA_ERROR_STUB_LIBRARY",
        "libcuda.so.1 is the link-time stub, not the driver",
        "take the CUDA toolkit's 'stubs' folder out of LD_LIBRARY_PATH",
    ),
    46: DriverCode(
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "another process holds the GPU exclusively, or it is being reset",
        "end the other process, or set the compute mode back to default",
    ),
    NO_DEVICE: DriverCode(
        "CUDA_ERROR_NO_DEVICE",
        "the driver sees no GPU",
        "check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's --gpus option",
    ),
    101: DriverCode(
        "CUDA_ERROR_INVALID_DEVICE",
        "there is no GPU with this number",
        "list the GPUs with 'edgeplan probe --device cuda:0', cuda:1 and so on",
    ),
    INVALID_IMAGE: DriverCode(
        "CUDA_ERROR_INVALID_IMAGE",
        "the driver does not understand this code object",
        "its container is newer than the driver or it is damaged: update the driver (on Jetson: "
        "the L4T release), or rebuild with a toolkit that is not newer than the driver",
    ),
    201: DriverCode(
        "CUDA_ERROR_INVALID_CONTEXT",
        "no usable CUDA context is current",
        "do not reset the device or pop contexts of others while engines are loaded",
    ),
    205: DriverCode("CUDA_ERROR_MAP_FAILED", "memory could not be mapped", _REPORT),
    NO_BINARY_FOR_GPU: DriverCode(
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "the code was compiled for another GPU architecture",
        _REBUILD,
    ),
    214: DriverCode(
        "CUDA_ERROR_ECC_UNCORRECTABLE", "GPU memory has an uncorrectable error", _NEW_CONTEXT
    ),
    218: DriverCode(
        "CUDA_ERROR_INVALID_PTX", "the driver's compiler refused the PTX text", _REBUILD
    ),
    221: DriverCode(
        "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
        "the driver's PTX compiler is not installed",
        "install libnvidia-ptxjitcompiler.so.1 (part of the driver), or rebuild with cubins",
    ),
    222: DriverCode(
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "the PTX was made by a toolkit that is newer than the driver",
        "update the driver (on Jetson: the L4T release), or rebuild with an older toolkit",
    ),
    223: DriverCode(
        "CUDA_ERROR_JIT_COMPILATION_DISABLED",
        "compiling PTX is switched off",
        "unset CUDA_DISABLE_PTX_JIT, or rebuild with cubins",
    ),
    300: DriverCode("CUDA_ERROR_INVALID_SOURCE", "the code object is damaged", _REBUILD),
    304: DriverCode(
        "CUDA_ERROR_OPERATING_SYSTEM", "the operating system refused something", _DRIVER
    ),
    400: DriverCode(
        "CUDA_ERROR_INVALID_HANDLE",
        "a stream, event or graph does not exist in this context",
        "pass streams of the same GPU that still exist; keep them until the work is done",
    ),
    401: DriverCode(
        "CUDA_ERROR_ILLEGAL_STATE", "a driver object is not in a usable state", _REPORT
    ),
    NOT_FOUND: DriverCode("CUDA_ERROR_NOT_FOUND", "the code object has no such symbol", _REBUILD),
    NOT_READY: DriverCode(
        "CUDA_ERROR_NOT_READY", "the work has not finished yet", "synchronise first"
    ),
    700: DriverCode(
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "a kernel read or wrote memory that is not allocated",
        _FAULT,
    ),
    701: DriverCode(
        "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        "a launch needs more registers or shared memory than a multiprocessor has",
        _REBUILD,
    ),
    702: DriverCode(
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "a kernel ran longer than the display watchdog allows",
        _NEW_CONTEXT,
    ),
    709: DriverCode(
        "CUDA_ERROR_CONTEXT_IS_DESTROYED",
        "the GPU's context was destroyed",
        "do not reset the device while engines are loaded; load the plan again",
    ),
    710: DriverCode("CUDA_ERROR_ASSERT", "an assertion in a kernel failed", _FAULT),
    712: DriverCode(
        "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "host memory is page-locked twice", _REPORT
    ),
    713: DriverCode(
        "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
        "host memory is not page-locked",
        "allocate it with pycuda.driver.pagelocked_empty, or use execute()",
    ),
    714: DriverCode("CUDA_ERROR_HARDWARE_STACK_ERROR", "a kernel's call stack overflowed", _FAULT),
    715: DriverCode(
        "CUDA_ERROR_ILLEGAL_INSTRUCTION", "a kernel met an instruction that does not exist", _FAULT
    ),
    716: DriverCode(
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "a kernel read or wrote at an address that is not aligned to the access",
        f"align bindings to 16 bytes or more; {_FAULT}",
    ),
    717: DriverCode(
        "CUDA_ERROR_INVALID_ADDRESS_SPACE", "a kernel used an address of the wrong kind", _FAULT
    ),
    718: DriverCode("CUDA_ERROR_INVALID_PC", "a kernel jumped out of its code", _FAULT),
    719: DriverCode("CUDA_ERROR_LAUNCH_FAILED", "a kernel failed while it ran", _FAULT),
    720: DriverCode(
        "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
        "a grid does not fit on the GPU at once",
        _REBUILD,
    ),
    800: DriverCode("CUDA_ERROR_NOT_PERMITTED", "the operation is not permitted", _OWN_CAPTURE),
    NOT_SUPPORTED: DriverCode(
        "CUDA_ERROR_NOT_SUPPORTED",
        "this GPU or driver does not have the feature",
        "update the driver, or rebuild the plan for this device",
    ),
    802: DriverCode("CUDA_ERROR_SYSTEM_NOT_READY", "the system's GPU fabric is not up", _DRIVER),
    803: DriverCode(
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "libcuda and the kernel's driver are of different versions",
        _DRIVER,
    ),
    804: DriverCode(
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "the cuda-compat package does not support this GPU",
        "remove cuda-compat from LD_LIBRARY_PATH, or update the driver",
    ),
    900: DriverCode(
        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "the stream is being captured", _OWN_CAPTURE
    ),
    901: DriverCode(
        "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "a stream capture was broken off", _OWN_CAPTURE
    ),
    906: DriverCode(
        "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
        "the default stream got work while another stream was being captured",
        _OWN_CAPTURE,
    ),
    907: DriverCode(
        "CUDA_ERROR_CAPTURED_EVENT", "an event belongs to a stream capture", _OWN_CAPTURE
    ),
    908: DriverCode(
        "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
        "another thread is capturing the stream",
        _OWN_CAPTURE,
    ),
    910: DriverCode(
        "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", "a graph node could not be updated", _REPORT
    ),
    912: DriverCode(
        "CUDA_ERROR_INVALID_CLUSTER_SIZE", "the GPU cannot run a cluster of this size", _REBUILD
    ),
    999: DriverCode("CUDA_ERROR_UNKNOWN", "the driver failed and does not say why", _DRIVER),
}
"""Every code that a plan can meet; others are reported with the driver's own words."""

FATAL_CODES = frozenset((214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719))
"""Codes after which nothing works in the context that met them."""
