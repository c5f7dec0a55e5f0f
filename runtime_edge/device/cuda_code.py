"""CudaCode: cubins and PTX of one variant, loaded into a GPU's context.

Modules are loaded by ctypes, not pycuda: launches with attributes and graph nodes need the handles
of functions, which pycuda does not show; and the driver's compiler log belongs into the error.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Sequence

from planformat.plan import CodeKind, CodeObject, Kernel, Step
from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.base import ProgramMemory
from runtime_edge.device.cuda_codes import INVALID_IMAGE, NO_BINARY_FOR_GPU
from runtime_edge.device.cuda_context import GpuContext
from runtime_edge.device.cuda_driver import (
    JIT_ERROR_LOG_BUFFER,
    JIT_ERROR_LOG_BYTES,
    CudaError,
)
from runtime_edge.device.cuda_launch import CudaLaunch, allow_launch
from runtime_edge.device.cuda_probe import compute_capability
from runtime_edge.device.cuda_program import CudaProgram
from runtime_edge.device.cuda_stream import CudaEvent, CudaStream, Epoch
from runtime_edge.errors import LoadError

_LOG_BYTES = 8192


class CudaModule:
    """A code object in a GPU's context."""

    def __init__(self, context: GpuContext, code: CodeObject, name: str) -> None:
        """Load it.

        Args:
            context: of the GPU.
            code: cubin for exactly this GPU's architecture, or PTX.
            name: for messages.

        Raises:
            LoadError: made for another architecture, or refused by the driver.
        """
        self.name = name
        self._context = context
        capability = compute_capability(context.driver, context.ordinal)
        architecture = f"sm_{capability[0]}{capability[1]}"
        if code.kind is CodeKind.SHARED_OBJECT or (
            code.kind is CodeKind.CUBIN and _without_suffix(code.architecture) != architecture
        ):
            raise LoadError(
                f"{name}: is a {code.kind.name} for {code.architecture}, GPU {context.ordinal} "
                f"runs a CUBIN for {architecture}; rebuild the plan with this device as its target"
            )
        held = HeldBuffer(bytes(code.data) + b"\0", is_writable=False)  # PTX ends with a zero
        log = ctypes.create_string_buffer(_LOG_BYTES)
        options = (ctypes.c_int * 2)(JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
        owned = context.own(self)
        with context:
            try:
                self._handle = context.driver.create(
                    "module_load", held.address, 2, options, values
                )
            except CudaError as error:
                raise LoadError(self._refusal(code, error, log.value)) from error
        owned.add("module_unload", self._handle)

    def function(self, symbol: str) -> int:
        """Handle of a kernel; the context is current.

        Raises:
            LoadError: the module does not have it.
        """
        try:
            return self._context.driver.create("module_function", self._handle, symbol.encode())
        except CudaError as error:
            raise LoadError(
                f"{self.name}: kernel '{symbol}': {error}; the plan's kernels and code do not "
                "belong together, build it again"
            ) from error

    def _refusal(self, code: CodeObject, error: CudaError, log: bytes) -> str:
        version = ".".join(map(str, self._context.driver.version()))
        text = f"{self.name} ({code.kind.name} for {code.architecture}, made by {code.toolchain})"
        text += f" was refused by a driver for CUDA {version}: {error}"
        compiler = log.decode("utf-8", "replace").strip()
        if compiler:
            text += f"\n  the driver's compiler says: {compiler}"
        if error.code in (INVALID_IMAGE, NO_BINARY_FOR_GPU) and code.kind is CodeKind.CUBIN:
            text += (
                f"\n  if the toolkit ({code.toolchain}) is of a newer major version than CUDA "
                f"{version}, rebuild with an older toolkit or update the driver"
            )
        return text


class CudaCode:
    """Code objects of one variant, loaded. See `Code` in base.py."""

    def __init__(
        self,
        context: GpuContext,
        code_objects: Sequence[CodeObject],
        kernels: Sequence[Kernel],
        *,
        source: str,
    ) -> None:
        """Load every code object and look up every kernel.

        Raises:
            LoadError: see `Device.load_code`.
        """
        self._context = context
        self._modules = [
            CudaModule(context, code, f"plan {source}: code object {index}")
            for index, code in enumerate(code_objects)
        ]
        self._lock = threading.Lock()
        self._epoch: Epoch | None = None
        self._checked: set[tuple[int, int]] = set()
        with context:
            self._functions = [
                self._modules[kernel.code_object].function(kernel.symbol) for kernel in kernels
            ]

    def create_program(
        self,
        steps: Sequence[Step],
        memory: ProgramMemory,
        *,
        num_bindings: int,
        num_workers: int,
        tuned_workers: int,
    ) -> CudaProgram:
        """Resolve the arguments of all steps and capture them as a graph.

        Raises:
            LoadError: a step passes more arguments than its kernel has parameters.
            CudaError: a launch is refused.
        """
        del num_workers, tuned_workers
        launches = []
        with self._context:
            for step in steps:
                function = self._functions[step.kernel]
                self._check(function, step)
                allow_launch(self._context.driver, function, step)
                launches.append(CudaLaunch(self._context.driver, function, step, memory))
        return CudaProgram(
            self._context, launches, num_bindings=num_bindings, keep=tuple(self._modules)
        )

    def create_stream(self) -> CudaStream:
        """A stream that does not wait for the default stream."""
        return CudaStream(self._context)

    def create_event(self) -> CudaEvent:
        """An event, not recorded yet."""
        with self._lock:
            if self._epoch is None:
                self._epoch = Epoch(self._context)
        return CudaEvent(self._context, self._epoch)

    def close(self) -> None:
        """Unload modules that no program uses any more."""
        self._modules = []
        self._functions = []

    def _check(self, function: int, step: Step) -> None:
        num = len(step.arguments)
        if (function, num) in self._checked:
            return
        try:
            self._context.driver.check_parameters(function, num)
        except LoadError as error:
            raise LoadError(f"step '{step.name}': {error}") from error
        self._checked.add((function, num))


def _without_suffix(architecture: str) -> str:
    """`sm_90` for `sm_90a`: the letter marks code for exactly that chip."""
    found = re.fullmatch(r"(sm_\d+)[a-z]?", architecture)
    return found[1] if found else architecture
