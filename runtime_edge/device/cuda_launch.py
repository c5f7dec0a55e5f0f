"""One launch: argument values, geometry and attributes in the form that the driver takes."""

from __future__ import annotations

import ctypes
import threading

from planformat.plan import ArgumentKind, Step
from runtime_edge.device.base import ProgramMemory
from runtime_edge.device.cuda_driver import (
    ATTRIBUTE_CLUSTER_DIMENSION,
    ATTRIBUTE_PROGRAMMATIC_SERIALIZATION,
    FUNCTION_MAX_DYNAMIC_SHARED_BYTES,
    FUNCTION_NON_PORTABLE_CLUSTER,
    FUNCTION_PREFERRED_SHARED_PERCENT,
    CudaError,
    Driver,
    KernelNodeParams,
    LaunchAttribute,
    LaunchConfig,
)
from runtime_edge.errors import LoadError

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_GUARDED_PARAMETERS = 64
_SHARED_WITHOUT_OPT_IN_BYTES = 48 << 10
_PORTABLE_CLUSTER_BLOCKS = 8
# An SM that divides its memory into shared memory and L1 anew must run empty first: kernels with
# different divisions never overlap. With the same one for all, ResNet-50 at batch 1 took 186 µs on
# an H200 instead of 211, MobileNet-v2 100 instead of 117; with 100 % they took 196 and 102.
_SHARED_PERCENT = 50
_limits = threading.Lock()


class CudaLaunch:
    """A step of a program. One thread at a time.

    Attributes:
        name: of the step; function: the `CUfunction`.
        patches: (argument, binding, offset in bytes) of arguments that follow bindings.
        node: of the program's graph, 0 before capture.
    """

    __slots__ = (
        "_attributes",
        "_config",
        "_driver",
        "_params",
        "_pointers",
        "_step",
        "function",
        "name",
        "node",
        "patches",
        "values",
    )

    def __init__(self, driver: Driver, function: int, step: Step, memory: ProgramMemory) -> None:
        """Resolve the arguments; bindings are 0 until `bind`.

        Raises:
            LoadError: the step needs a cluster and the driver has none.
        """
        self._driver = driver
        self._step = step
        self.name = step.name
        self.function = function
        self.node = 0
        num = len(step.arguments)
        self.values = (ctypes.c_uint64 * (num + 1))()
        self.patches: list[tuple[int, int, int]] = []
        for index, argument in enumerate(step.arguments):
            if argument.kind is ArgumentKind.BINDING:
                self.patches.append((index, argument.value, argument.offset_bytes))
            elif argument.kind is ArgumentKind.ARENA:
                self.values[index] = memory.arena + argument.value + argument.offset_bytes
            elif argument.kind is ArgumentKind.WEIGHTS:
                self.values[index] = memory.weights + argument.value + argument.offset_bytes
            else:
                self.values[index] = argument.value & _MASK
        first = ctypes.addressof(self.values)
        addresses = [first + 8 * index for index in range(num)]
        # A kernel with more parameters than the plan knows of reads zeros, not what lies behind.
        addresses += [first + 8 * num] * max(1, _GUARDED_PARAMETERS - num)
        self._pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        attributes = []
        if step.cluster != (1, 1, 1):
            if not driver.has("launch_ex"):
                raise LoadError(
                    f"step '{step.name}' is launched as clusters of {step.cluster} and the "
                    "driver's CUDA is older than 11.8; update the driver or rebuild the plan"
                )
            cluster = LaunchAttribute(id=ATTRIBUTE_CLUSTER_DIMENSION)
            cluster.value[0:3] = step.cluster
            attributes.append(cluster)
        if step.is_dependent_launch and driver.has("launch_ex"):
            dependent = LaunchAttribute(id=ATTRIBUTE_PROGRAMMATIC_SERIALIZATION)
            dependent.value[0] = 1
            attributes.append(dependent)  # last, so that it can be left out
        self._attributes = (LaunchAttribute * max(1, len(attributes)))(*attributes)
        self._config = LaunchConfig(
            step.grid, step.block, step.shared_memory_bytes, None, self._attributes, len(attributes)
        )
        self._params = KernelNodeParams(
            function,
            step.grid,
            step.block,
            step.shared_memory_bytes,
            ctypes.addressof(self._pointers),
            None,
        )

    def bind(self, addresses: list[int]) -> None:
        """Set the arguments that follow bindings."""
        for argument, binding, offset in self.patches:
            self.values[argument] = addresses[binding] + offset

    def launch(self, stream: int, *, is_dependent: bool = True) -> None:
        """Launch on a stream.

        Args:
            stream: handle.
            is_dependent: false leaves the dependent launch out, so that the step can be timed.

        Raises:
            CudaError: names the step and its geometry.
        """
        step = self._step
        num = self._config.num_attributes
        if not is_dependent and step.is_dependent_launch and num:
            num -= 1
        try:
            if num:
                config = LaunchConfig.from_buffer_copy(self._config)
                config.stream, config.num_attributes = stream, num
                self._driver.launch_ex(ctypes.byref(config), self.function, self._pointers, None)
            else:
                self._driver.launch(
                    self.function,
                    *step.grid,
                    *step.block,
                    step.shared_memory_bytes,
                    stream,
                    self._pointers,
                    None,
                )
        except CudaError as error:
            raise CudaError(
                f"step '{step.name}' (grid {step.grid}, block {step.block}, cluster "
                f"{step.cluster}, {step.shared_memory_bytes:,} bytes of shared memory): {error}",
                error.code,
            ) from error

    def update_node(self, executable: int) -> None:
        """Take the present argument values over into an executable graph."""
        self._driver.set_kernel_node(executable, self.node, ctypes.byref(self._params))


def allow_launch(driver: Driver, function: int, step: Step) -> None:
    """Raise a function's limits to what a step needs, and set how it divides an SM's memory.

    The context is current.

    Raises:
        CudaError: the GPU cannot give that much; names the step.
    """
    needed = step.shared_memory_bytes
    try:
        if needed > _SHARED_WITHOUT_OPT_IN_BYTES:
            allowed = ctypes.c_int()
            with _limits:
                driver.function_attribute(
                    ctypes.byref(allowed), FUNCTION_MAX_DYNAMIC_SHARED_BYTES, function
                )
                if needed > allowed.value:
                    driver.set_function_attribute(
                        function, FUNCTION_MAX_DYNAMIC_SHARED_BYTES, needed
                    )
        driver.set_function_attribute(function, FUNCTION_PREFERRED_SHARED_PERCENT, _SHARED_PERCENT)
        if step.cluster[0] * step.cluster[1] * step.cluster[2] > _PORTABLE_CLUSTER_BLOCKS:
            driver.set_function_attribute(function, FUNCTION_NON_PORTABLE_CLUSTER, 1)
    except CudaError as error:
        raise CudaError(
            f"step '{step.name}' ({needed:,} bytes of shared memory per block, cluster "
            f"{step.cluster}): {error}",
            error.code,
        ) from error
