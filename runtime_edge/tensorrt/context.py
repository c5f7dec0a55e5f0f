"""Execution contexts under TensorRT's names: addresses in, results where they point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runtime_edge.context import ExecutionContext
from runtime_edge.device.base import Stream
from runtime_edge.errors import RuntimeEdgeError
from runtime_edge.tensorrt.interfaces import IErrorRecorder, IProfiler, LogSeverity
from runtime_edge.tensorrt.refused import CONTEXT, Refusing
from runtime_edge.tensorrt.types import Dims

if TYPE_CHECKING:
    from runtime_edge.tensorrt.engine import ICudaEngine

_ERROR_CODE = 2


class IExecutionContext(Refusing):
    """Runs an engine; for one thread at a time.

    Attributes:
        engine: what it runs.
        profiler: gets the time of every step of each run; runs are then waited for.
        active_optimization_profile: index of the profile that runs.
    """

    refused = CONTEXT

    def __init__(self, engine: ICudaEngine, *, has_memory: bool) -> None:
        """See `ICudaEngine.create_execution_context`."""
        self.engine = engine
        self.profiler: IProfiler | None = None
        self.error_recorder: IErrorRecorder | None = None
        self.active_optimization_profile = 0
        self.name = ""
        self._has_memory = has_memory
        self._memory: int | None = None
        self._memory_bytes: int | None = None  # None: it was not said
        self._contexts: dict[str, ExecutionContext] = {}
        self._stream: Stream | None = None
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._is_consistent = True  # whether one profile has all of these shapes

    @property
    def device_memory(self) -> int | None:
        """Address of the memory to work in."""
        return self._memory

    @device_memory.setter
    def device_memory(self, memory: Any) -> None:
        self._close_contexts()
        self._memory, self._memory_bytes = int(memory), None

    def set_device_memory(self, memory: Any, size: int) -> None:
        """As `device_memory`, with its size in bytes; runs of profiles that need more fail.

        Raises:
            ValueError: it is too small for the present profile.
        """
        needed = self.update_device_memory_size_for_shapes()
        if size < needed:
            raise ValueError(f"device memory of {size:,} bytes; this profile needs {needed:,}")
        self.device_memory = memory
        self._memory_bytes = size

    def update_device_memory_size_for_shapes(self) -> int:
        """Bytes that the present profile works in."""
        return self.engine.engine.context_bytes(self._profile())

    def execute(self, batch_size: int, bindings: Sequence[int]) -> bool:
        """Run an implicit-batch engine and wait."""
        return self._run(self._of_batch(batch_size), self._by_name(bindings), None)

    def execute_v2(self, bindings: Sequence[int]) -> bool:
        """Run and wait."""
        return self._run(self._profile(), self._by_name(bindings), None)

    def execute_async(
        self, batch_size: int, bindings: Sequence[int], stream_handle: int, *_: Any
    ) -> bool:
        """Enqueue a run of an implicit-batch engine."""
        return self._run(self._of_batch(batch_size), self._by_name(bindings), stream_handle)

    def execute_async_v2(self, bindings: Sequence[int], stream_handle: int, *_: Any) -> bool:
        """Enqueue a run."""
        return self._run(self._profile(), self._by_name(bindings), stream_handle)

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue a run on the addresses that were set."""
        return self._run(self._profile(), self._addresses, stream_handle)

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        """Where a tensor lies."""
        if self.engine.get_binding_index(name) < 0:
            return self._failed(f"no tensor '{name}'; there are {', '.join(self.engine)}")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        """Where a tensor lies, 0 when that was not said."""
        return self._addresses.get(name, 0)

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """Choose the profile whose inputs have these shapes.

        While the shapes that were set belong to different profiles, as between two calls for two
        inputs, the present profile stays and runs fail.
        """
        if self.engine.get_binding_index(name) < 0:
            return self._failed(f"no tensor '{name}'; there are {', '.join(self.engine)}")
        engine = self.engine.engine
        known = [engine.binding_shape(name, profile) for profile in engine.profiles]
        if tuple(shape) not in known:
            return self._failed(
                f"input '{name}' cannot have the shape {list(shape)}; the plan's profiles have "
                f"{[list(k) for k in known]}: build one for it"
            )
        self._shapes[name] = tuple(shape)
        for index, profile in enumerate(engine.profiles):
            if all(engine.binding_shape(n, profile) == own for n, own in self._shapes.items()):
                self.active_optimization_profile = index
                self._is_consistent = True
                return True
        self._is_consistent = False
        return True

    def set_binding_shape(self, binding: int, shape: Sequence[int]) -> bool:
        """As `set_input_shape`, by index."""
        return self.set_input_shape(self.engine.get_binding_name(binding), shape)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile by index."""
        del stream_handle
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._failed(
                f"profile {profile_index} of {self.engine.num_optimization_profiles}"
            )
        self.active_optimization_profile = profile_index
        self._shapes.clear()
        self._is_consistent = True
        return True

    def get_binding_shape(self, binding: int) -> Dims:
        """Shape of a binding in the present profile."""
        return self.get_tensor_shape(self.engine.get_binding_name(binding))

    def get_tensor_shape(self, name: str) -> Dims:
        """Shape of a tensor in the present profile."""
        shape = self.engine.engine.binding_shape(name, self._profile())
        return Dims(shape[1:] if self.engine.has_implicit_batch_dimension else shape)

    def get_strides(self, binding: int) -> Dims:
        """As `get_tensor_strides`, by index."""
        return self.get_tensor_strides(self.engine.get_binding_name(binding))

    def get_tensor_strides(self, name: str) -> Dims:
        """Distance of neighbours along each dimension, in elements: rows follow each other."""
        shape = self.get_tensor_shape(name)
        return Dims(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))

    def get_max_output_size(self, name: str) -> int:
        """Bytes of an output in the present profile."""
        shape = self.engine.engine.binding_shape(name, self._profile())
        return math.prod(shape) * self.engine.get_tensor_bytes_per_component(name)

    @property
    def all_binding_shapes_specified(self) -> bool:
        """Always: every profile fixes every shape."""
        return True

    all_shape_inputs_specified = all_binding_shapes_specified

    def infer_shapes(self) -> list[str]:
        """Names of tensors whose shapes are not known: none."""
        return []

    def __enter__(self) -> IExecutionContext:
        """The context itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait and give memory back."""
        self._close_contexts()

    def _profile(self) -> str:
        return self.engine.engine.profiles[self.active_optimization_profile]

    def _of_batch(self, batch_size: int) -> str:
        engine = self.engine.engine
        name = engine.bindings[0].name
        sizes = {profile: engine.binding_shape(name, profile)[0] for profile in engine.profiles}
        for profile, size in sizes.items():
            if size == batch_size:
                return profile
        raise ValueError(
            f"batch_size={batch_size}: the engine was built for batches of "
            f"{', '.join(map(str, sorted(sizes.values())))}; build it with that max_batch_size"
        )

    def _by_name(self, bindings: Sequence[int]) -> dict[str, int]:
        names = list(self.engine)
        if len(bindings) != len(names):
            raise ValueError(f"{len(bindings)} bindings for the engine's {len(names)}: {names}")
        return {name: int(address) for name, address in zip(names, bindings, strict=True)}

    def _run(self, profile: str, addresses: Mapping[str, int], handle: int | None) -> bool:
        try:
            if not self._is_consistent:
                raise RuntimeEdgeError(
                    f"no profile of the plan has the input shapes {self._shapes} together: set the "
                    "others too, or build a profile for them"
                )
            context = self._context(profile)
            if self.profiler is not None:
                if handle is not None and self.engine.engine.device.kind != "cpu":
                    # Steps are timed on a stream of their own; the inputs come on the caller's.
                    self.engine.engine.device.adopt_stream(handle).synchronize()
                for step in context.measure_steps(addresses, repeats=1):
                    self.profiler.report_layer_time(step.name, step.time_us / 1e3)
                return True
            stream: Any = handle
            if handle is None or self.engine.engine.device.kind == "cpu":
                if self._stream is None:
                    self._stream = self.engine.engine.create_stream()
                stream = self._stream
            context.enqueue(addresses, stream)
            if stream is self._stream and self._stream is not None:
                self._stream.synchronize()
            return True
        except RuntimeEdgeError as error:
            return self._failed(str(error))

    def _context(self, profile: str) -> ExecutionContext:
        if profile not in self._contexts:
            engine = self.engine.engine
            arena: Any = None
            if not self._has_memory:
                if self._memory is None:
                    raise RuntimeEdgeError(
                        "the context has no device memory: set device_memory to "
                        f"{self.engine.device_memory_size:,} bytes first"
                    )
                needed = engine.context_bytes(profile)
                if self._memory_bytes is not None and needed > self._memory_bytes:
                    raise RuntimeEdgeError(
                        f"device memory of {self._memory_bytes:,} bytes; profile '{profile}' needs "
                        f"{needed:,}: call set_device_memory again"
                    )
                arena = (self._memory, needed)
            self._contexts[profile] = engine.create_context(profile=profile, arena=arena)
        return self._contexts[profile]

    def _failed(self, text: str) -> bool:
        self.engine.logger.log(LogSeverity.ERROR, text)
        if self.error_recorder is not None:
            self.error_recorder.report_error(_ERROR_CODE, text)
        return False

    def forget_engine(self) -> None:
        """Give back what belongs to the engine's present plan, which will be another one."""
        self._close_contexts()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _close_contexts(self) -> None:
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
