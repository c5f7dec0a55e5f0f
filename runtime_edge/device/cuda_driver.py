"""The CUDA driver by ctypes: what pycuda lacks or hides, with one check of the return code.

pycuda has no graphs, no launch attributes (clusters, programmatic dependent launch), and hides the
handles of modules, functions and events, which both need. Symbols carry their ABI suffix (`_v2`),
so that one table serves every driver from CUDA 10.2 on.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from runtime_edge.device.cuda_codes import CODES, FATAL_CODES, SUCCESS
from runtime_edge.errors import DeviceError, LoadError

LIBRARY = "libcuda.so.1"

_INT = ctypes.c_int
_UINT = ctypes.c_uint
_U64 = ctypes.c_uint64
_SIZE = ctypes.c_size_t
_P = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_PP = ctypes.POINTER(_P)

ATTRIBUTE_CLUSTER_DIMENSION = 4
ATTRIBUTE_PROGRAMMATIC_SERIALIZATION = 6
CAPTURE_THREAD_LOCAL = 1
CAPTURE_STATUS_NONE = 0
EVENT_DEFAULT = 0
EVENT_DISABLE_TIMING = 2
EVENT_RECORD_EXTERNAL = 1
FUNCTION_SHARED_SIZE_BYTES = 1
FUNCTION_NUM_REGISTERS = 4
FUNCTION_MAX_DYNAMIC_SHARED_BYTES = 8
FUNCTION_PREFERRED_SHARED_PERCENT = 9
FUNCTION_NON_PORTABLE_CLUSTER = 14
JIT_ERROR_LOG_BUFFER = 5
JIT_ERROR_LOG_BYTES = 6
POINTER_DEVICE_POINTER = 3


class LaunchAttribute(ctypes.Structure):
    """`CUlaunchAttribute`: a number and a union of 64 bytes."""

    _fields_ = (("id", _UINT), ("pad", _UINT), ("value", _UINT * 16))


class LaunchConfig(ctypes.Structure):
    """`CUlaunchConfig`."""

    _fields_ = (
        ("grid", _UINT * 3),
        ("block", _UINT * 3),
        ("shared_memory_bytes", _UINT),
        ("stream", _P),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("num_attributes", _UINT),
    )


class KernelNodeParams(ctypes.Structure):
    """`CUDA_KERNEL_NODE_PARAMS_v1`."""

    _fields_ = (
        ("function", _P),
        ("grid", _UINT * 3),
        ("block", _UINT * 3),
        ("shared_memory_bytes", _UINT),
        ("arguments", _P),
        ("extra", _P),
    )


HOST_CALLBACK = ctypes.CFUNCTYPE(None, _P)


class CudaError(DeviceError):
    """A driver call failed.

    Attributes:
        code: number of the `CUresult`.
        is_fatal: the GPU's context in this process is gone, and no new one can be made (seen with
            driver 580: retaining it after a reset fails with the same error).
    """

    def __init__(self, text: str, code: int) -> None:
        """An error with its code."""
        super().__init__(text)
        self.code = code
        self.is_fatal = code in FATAL_CODES


class _Function(NamedTuple):
    """A driver function: symbol, argument types, and the CUDA version that brought it."""

    symbol: str
    arguments: tuple[Any, ...]
    since: str = ""


_FUNCTIONS: Mapping[str, _Function] = {
    "init": _Function("cuInit", (_UINT,)),
    "driver_version": _Function("cuDriverGetVersion", (ctypes.POINTER(_INT),)),
    "device_count": _Function("cuDeviceGetCount", (ctypes.POINTER(_INT),)),
    "device_get": _Function("cuDeviceGet", (ctypes.POINTER(_INT), _INT)),
    "device_name": _Function("cuDeviceGetName", (_TEXT, _INT, _INT)),
    "device_attribute": _Function("cuDeviceGetAttribute", (ctypes.POINTER(_INT), _INT, _INT)),
    "device_memory": _Function("cuDeviceTotalMem_v2", (ctypes.POINTER(_SIZE), _INT)),
    "push": _Function("cuCtxPushCurrent_v2", (_P,)),
    "pop": _Function("cuCtxPopCurrent_v2", (_PP,)),
    "current": _Function("cuCtxGetCurrent", (_PP,)),
    "memory_info": _Function("cuMemGetInfo_v2", (ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE))),
    "address_range": _Function("cuMemGetAddressRange_v2", (_PP, ctypes.POINTER(_SIZE), _U64)),
    "copy_to_device": _Function("cuMemcpyHtoDAsync_v2", (_U64, _P, _SIZE, _P)),
    "copy_to_host": _Function("cuMemcpyDtoHAsync_v2", (_P, _U64, _SIZE, _P)),
    "memset_async": _Function("cuMemsetD8Async", (_U64, ctypes.c_ubyte, _SIZE, _P)),
    "module_load": _Function("cuModuleLoadDataEx", (_PP, _P, _UINT, _P, _P)),
    "module_unload": _Function("cuModuleUnload", (_P,)),
    "module_function": _Function("cuModuleGetFunction", (_PP, _P, _TEXT)),
    "function_attribute": _Function("cuFuncGetAttribute", (ctypes.POINTER(_INT), _INT, _P)),
    "set_function_attribute": _Function("cuFuncSetAttribute", (_P, _INT, _INT)),
    "launch": _Function("cuLaunchKernel", (_P, *(_UINT,) * 7, _P, _P, _P)),
    "launch_ex": _Function("cuLaunchKernelEx", (ctypes.POINTER(LaunchConfig), _P, _P, _P), "11.8"),
    "launch_host": _Function("cuLaunchHostFunc", (_P, HOST_CALLBACK, _P)),
    "event_create": _Function("cuEventCreate", (_PP, _UINT)),
    "event_destroy": _Function("cuEventDestroy_v2", (_P,)),
    "event_record": _Function("cuEventRecord", (_P, _P)),
    "event_record_flags": _Function("cuEventRecordWithFlags", (_P, _P, _UINT), "11.1"),
    "event_synchronize": _Function("cuEventSynchronize", (_P,)),
    "event_elapsed": _Function("cuEventElapsedTime", (ctypes.POINTER(ctypes.c_float), _P, _P)),
    "stream_synchronize": _Function("cuStreamSynchronize", (_P,)),
    "stream_wait_event": _Function("cuStreamWaitEvent", (_P, _P, _UINT)),
    "stream_is_capturing": _Function("cuStreamIsCapturing", (_P, ctypes.POINTER(_INT))),
    "begin_capture": _Function("cuStreamBeginCapture_v2", (_P, _INT), "10.1"),
    "end_capture": _Function("cuStreamEndCapture", (_P, _PP)),
    "capture_info_v2": _Function(
        "cuStreamGetCaptureInfo_v2",
        (_P, ctypes.POINTER(_INT), ctypes.POINTER(_U64), _PP, _PP, ctypes.POINTER(_SIZE)),
        "11.3",
    ),
    "capture_info_v3": _Function(
        "cuStreamGetCaptureInfo_v3",
        (_P, ctypes.POINTER(_INT), ctypes.POINTER(_U64), _PP, _PP, _PP, ctypes.POINTER(_SIZE)),
        "12.3",
    ),
    "graph_instantiate": _Function("cuGraphInstantiateWithFlags", (_PP, _P, _U64), "11.4"),
    "graph_upload": _Function("cuGraphUpload", (_P, _P), "11.1"),
    "graph_launch": _Function("cuGraphLaunch", (_P, _P)),
    "graph_destroy": _Function("cuGraphDestroy", (_P,)),
    "graph_exec_destroy": _Function("cuGraphExecDestroy", (_P,)),
    "set_kernel_node": _Function(
        "cuGraphExecKernelNodeSetParams", (_P, _P, ctypes.POINTER(KernelNodeParams)), "10.1"
    ),
}


class Driver:
    """The functions of libcuda, typed; each raises `CudaError` when it fails.

    Called with a context current where CUDA wants one. The GIL is released meanwhile.

    Attributes:
        dead_contexts: handles of contexts that met a fatal error.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """Bind the functions that the library has."""
        self._library = library
        self.dead_contexts: set[int] = set()
        self._names = self._text_function("cuGetErrorName")
        self._texts = self._text_function("cuGetErrorString")
        self._missing: dict[str, _Function] = {}
        for name, function in _FUNCTIONS.items():
            bound = self._bind(function)
            if bound is None:
                self._missing[name] = function
            else:
                setattr(self, name, bound)
        # Not errors: "not ready" and "invalid value" are answers here.
        self._get_current = self._plain("cuCtxGetCurrent", (_PP,))
        self._event_query = self._plain("cuEventQuery", (_P,))
        self._pointer_attribute = self._plain("cuPointerGetAttribute", (_P, _INT, _U64))
        self._parameter_info = self._plain(
            "cuFuncGetParamInfo", (_P, _SIZE, ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE))
        )

    def __getattr__(self, name: str) -> Any:
        """Functions that this driver does not have.

        Raises:
            DeviceError: for those of the table.
        """
        missing = self.__dict__.get("_missing", {})
        if name in missing:
            function = missing[name]
            version = ".".join(map(str, self.version()))
            raise DeviceError(
                f"the driver (CUDA {version}) has no {function.symbol}"
                + (f", which came with CUDA {function.since}" if function.since else "")
                + "; update the driver (on Jetson: the L4T release)"
            )
        raise AttributeError(name)

    def has(self, *names: str) -> bool:
        """Whether the driver has all the functions, by their names here."""
        return not any(name in self._missing for name in names)

    def version(self) -> tuple[int, int]:
        """Highest CUDA version that the driver supports, as (major, minor)."""
        number = _INT()
        self.driver_version(ctypes.byref(number))
        return number.value // 1000, number.value % 1000 // 10

    def event_is_done(self, event: int) -> bool:
        """Whether what the event recorded last has happened."""
        code = self._event_query(event)
        if code == SUCCESS:
            return True
        if code == 600:  # CUDA_ERROR_NOT_READY
            return False
        raise self.error(code, "cuEventQuery")

    def device_pointer(self, address: int) -> int | None:
        """Address under which the device sees an address; None for pageable host memory."""
        pointer = _U64()
        code = self._pointer_attribute(ctypes.byref(pointer), POINTER_DEVICE_POINTER, address)
        return pointer.value or None if code == SUCCESS else None

    def check_parameters(self, function: int, num: int) -> None:
        """Check that a kernel has at least so many parameters, of 8 bytes each.

        Drivers before CUDA 12.4 do not tell; then nothing is checked.

        Raises:
            LoadError: it has fewer, or one is not 8 bytes wide.
        """
        if self._parameter_info is None:
            return
        offset, size = _SIZE(), _SIZE()
        for index in range(num):
            if self._parameter_info(function, index, ctypes.byref(offset), ctypes.byref(size)):
                raise LoadError(
                    f"{num} arguments go to a kernel with {index} parameters; build the plan again"
                )
            if size.value != 8:
                raise LoadError(
                    f"parameter {index} of the kernel is {size.value} bytes wide, those of a plan "
                    "have 8 bytes; build the plan again"
                )

    def elapsed_us(self, start: int, end: int) -> float:
        """Microseconds between two events that both happened."""
        milliseconds = ctypes.c_float()
        self.event_elapsed(ctypes.byref(milliseconds), start, end)
        return milliseconds.value * 1000

    def create(self, name: str, *arguments: Any) -> int:
        """Call a function that returns a handle through its first argument."""
        handle = _P()
        getattr(self, name)(ctypes.byref(handle), *arguments)
        return handle.value or 0

    def code_of(self, text: str) -> int:
        """Code whose driver text ends the given text, as in pycuda's messages; 999 if none."""
        message = text.partition(" failed: ")[2].partition(" - ")[0]
        for code in CODES:
            if message and message == self._text(self._texts, code):
                return code
        return 999

    def error(self, code: int, what: str, *, advice: str = "") -> CudaError:
        """An error with code, name, meaning and what to do.

        Args:
            code: number of the `CUresult`.
            what: the function or action that failed.
            advice: replaces the general one.
        """
        error = CudaError(f"{what}: {self.explain(code, advice=advice)}", code)
        current = _P()
        if error.is_fatal and self._get_current(ctypes.byref(current)) == SUCCESS:
            self.dead_contexts.add(current.value or 0)
        return error

    def explain(self, code: int, *, advice: str = "") -> str:
        """`NAME (code): meaning; what to do`."""
        known = CODES.get(code)
        if known is None:
            name = self._text(self._names, code) or "unknown CUresult"
            meaning = self._text(self._texts, code) or "this driver does not describe it"
            return f"{name} ({code}): {meaning}" + (f"; {advice}" if advice else "")
        return f"{known.name} ({code}): {known.meaning}; {advice or known.what_to_do}"

    def _bind(self, function: _Function) -> Any:
        try:
            bound: Any = getattr(self._library, function.symbol)
        except AttributeError:
            return None
        address = ctypes.cast(bound, _P).value or 0
        bound = ctypes.CFUNCTYPE(_INT, *function.arguments)(address)
        symbol = function.symbol

        def check(result: int, _function: Any, _arguments: Any) -> int:
            if result:
                raise self.error(result, symbol)
            return result

        bound.errcheck = check
        return bound

    def _plain(self, symbol: str, arguments: Sequence[Any]) -> Any:
        try:
            address = ctypes.cast(getattr(self._library, symbol), _P).value or 0
        except AttributeError:
            return None
        return ctypes.CFUNCTYPE(_INT, *arguments)(address)

    def _text_function(self, symbol: str) -> Any:
        return self._plain(symbol, (_INT, ctypes.POINTER(_TEXT)))

    @staticmethod
    def _text(function: Any, code: int) -> str:
        text = _TEXT()
        if function is None or function(code, ctypes.byref(text)) or not text.value:
            return ""
        return text.value.decode("ascii", "replace")


@functools.cache
def open_driver() -> Driver:
    """The driver of this machine, initialised; one per process.

    Raises:
        LoadError: there is no driver library.
        CudaError: it cannot be initialised, or sees no GPU.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise LoadError(
            f"{LIBRARY} cannot be loaded ({error}): this machine has no CUDA driver, or the "
            "container does not see it; install the NVIDIA driver (on Jetson it is part of L4T), "
            "start the container with --gpus all, or build the plan for the CPU"
        ) from error
    driver = Driver(library)
    driver.init(0)
    return driver
