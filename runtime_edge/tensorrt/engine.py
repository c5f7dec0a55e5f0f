"""Runtime, engine and inspector over plans."""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from planformat.details import plan_details
from planformat.errors import PlanError
from planformat.plan import Binding
from planformat.stripped import is_stripped, read_stripped
from runtime_edge.config import RuntimeConfig
from runtime_edge.engine import Engine, load
from runtime_edge.errors import RuntimeEdgeError
from runtime_edge.tensorrt.context import IExecutionContext
from runtime_edge.tensorrt.interfaces import (
    AllocatorAdapter,
    IErrorRecorder,
    IGpuAllocator,
    ILogger,
    LogSeverity,
)
from runtime_edge.tensorrt.refused import ENGINE, INSPECTOR, RUNTIME, Refusing
from runtime_edge.tensorrt.types import (
    DataType,
    Dims,
    ExecutionContextAllocationStrategy,
    LayerInformationFormat,
    PythonBool,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
    of_plan,
)

IMPLICIT_BATCH = "tensorrt.implicit_batch"  # provenance of engines whose dimensions leave out N
_ERROR_CODE = 2


class SerializedPlan(bytes):
    """A plan's bytes.

    Attributes:
        network: what it was built from, where it was built by this process to be refitted.
    """

    network: Any = None


class Runtime(Refusing):
    """Makes engines out of plans."""

    refused = RUNTIME

    def __init__(self, logger: ILogger) -> None:
        """Keep the logger."""
        self.logger = logger
        self.gpu_allocator: IGpuAllocator | None = None
        self.error_recorder: IErrorRecorder | None = None
        self.num_DLA_cores = 0
        self.max_threads = 1

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        """An engine from the bytes of a plan; None (and a logged error) when that is not possible.

        The plan is verified and its canary runs, as in `runtime_edge.load`. An engine without its
        weights cannot run before `builder_host.tensorrt.Refitter` has put them in.
        """
        config = None
        if self.gpu_allocator is not None:
            config = RuntimeConfig(allocator=AllocatorAdapter(self.gpu_allocator))
        data = bytes(serialized_engine)
        try:
            if is_stripped(data):
                engine = ICudaEngine(None, self.logger, config, stripped=data)
            else:
                engine = ICudaEngine(load(data, config=config), self.logger, config)
            if isinstance(serialized_engine, SerializedPlan):
                engine.network = serialized_engine.network
            return engine
        except (PlanError, RuntimeEdgeError) as error:
            self.logger.log(LogSeverity.ERROR, str(error))
            if self.error_recorder is not None:
                self.error_recorder.report_error(_ERROR_CODE, str(error))
            return None

    def __enter__(self) -> Runtime:
        """The runtime itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to release."""


class ICudaEngine(Refusing):
    """A loaded plan under TensorRT's names.

    Attributes:
        has_implicit_batch_dimension: shapes leave the batch out, as in networks of TensorRT 1 to 7.
        network: see `SerializedPlan`.
    """

    refused = ENGINE
    num_aux_streams = 0
    streamable_weights_size = 0

    def __init__(
        self,
        engine: Engine | None,
        logger: ILogger,
        config: RuntimeConfig | None = None,
        *,
        stripped: bytes = b"",
    ) -> None:
        """Wrap an engine, which was loaded with a configuration; or a plan without weights.

        Raises:
            PlanError: the stripped plan is damaged.
        """
        self._engine = engine
        self._stripped = stripped
        self._config = config
        self._contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()
        self.logger = logger
        self.network: Any = None
        plan = engine.plan if engine is not None else read_stripped(stripped).plan
        self.has_implicit_batch_dimension = plan.provenance.get(IMPLICIT_BATCH) == "1"
        self.error_recorder: IErrorRecorder | None = None

    @property
    def engine(self) -> Engine:
        """The runtime's own engine. Raises RuntimeEdgeError while it has no weights."""
        if self._engine is None:
            raise RuntimeEdgeError(
                "this engine has no weights, its plan was stripped: put them in with Refitter "
                "(OnnxParserRefitter takes them from a model) before it is used"
            )
        return self._engine

    @property
    def is_stripped(self) -> PythonBool:
        """Whether it has no weights as yet (edgeplan's own)."""
        return self._engine is None

    @property
    def refittable(self) -> PythonBool:
        """Whether the plan says how it was built, so that other weights can be put in."""
        plan = self._engine.plan if self._engine is not None else read_stripped(self._stripped).plan
        details = plan_details(plan)
        return details is not None and details.recipe is not None

    def take_plan(self, plan: bytes) -> None:
        """Run another plan from now on: one with the same code, and other weights.

        Contexts stay usable, with the memory that they were given; none may be running.

        Raises:
            PlanError: the plan is damaged.
            RuntimeEdgeError: it cannot run here.
        """
        engine = load(plan, config=self._config)
        for context in self._contexts:
            context.forget_engine()
        self._engine, self._stripped = engine, b""

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.engine.name

    @property
    def num_bindings(self) -> int:
        """Inputs and outputs."""
        return len(self.engine.bindings)

    num_io_tensors = num_bindings

    @property
    def num_layers(self) -> int:
        """Steps of the default profile."""
        return len(self.engine.profile().steps)

    @property
    def num_optimization_profiles(self) -> int:
        """Profiles of the plan."""
        return len(self.engine.profiles)

    @property
    def max_batch_size(self) -> int:
        """Largest batch of an implicit-batch engine, else 1."""
        if not self.has_implicit_batch_dimension:
            return 1
        name = self.engine.bindings[0].name
        return max(self.engine.binding_shape(name, p)[0] for p in self.engine.profiles)

    @property
    def device_memory_size(self) -> int:
        """Bytes that a context works in: arena and scratch of the largest profile."""
        return max(self.engine.context_bytes(profile) for profile in self.engine.profiles)

    device_memory_size_v2 = device_memory_size

    def get_device_memory_size_for_profile(self, profile_index: int) -> int:
        """Bytes that a context works in while it runs one profile."""
        return self.engine.context_bytes(self.engine.profiles[profile_index])

    get_device_memory_size_for_profile_v2 = get_device_memory_size_for_profile

    def __len__(self) -> int:
        """Number of bindings."""
        return self.num_bindings

    def __iter__(self) -> Iterator[str]:
        """Names of the bindings."""
        return (binding.name for binding in self.engine.bindings)

    def __getitem__(self, key: int | str) -> str | int:
        """Name of a binding by index, or its index by name."""
        return self.get_binding_name(key) if isinstance(key, int) else self.get_binding_index(key)

    def get_binding_index(self, name: str) -> int:
        """Index of a binding, -1 when there is none."""
        return next((i for i, b in enumerate(self.engine.bindings) if b.name == name), -1)

    def get_binding_name(self, index: int) -> str:
        """Name of a binding."""
        return self._binding(index).name

    get_tensor_name = get_binding_name

    def get_binding_shape(self, binding: int | str) -> Dims:
        """Shape in the default profile, without the batch if that is implicit."""
        shape = self.engine.binding_shape(self._binding(binding).name)
        return Dims(shape[1:] if self.has_implicit_batch_dimension else shape)

    get_tensor_shape = get_binding_shape

    def get_binding_dtype(self, binding: int | str) -> DataType:
        """Element type."""
        return of_plan(self._binding(binding).dtype)

    get_tensor_dtype = get_binding_dtype

    def binding_is_input(self, binding: int | str) -> bool:
        """Whether a binding is an input."""
        return self._binding(binding).is_input

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Whether a tensor is an input or an output."""
        return TensorIOMode.INPUT if self.binding_is_input(name) else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        """Where its data must lie: in device memory."""
        self._binding(name)
        return TensorLocation.DEVICE

    def get_location(self, binding: int | str) -> TensorLocation:
        """As `get_tensor_location`."""
        return self.get_tensor_location(self._binding(binding).name)

    def get_tensor_format(self, name: str, *_: Any) -> TensorFormat:
        """Order of its elements."""
        self._binding(name)
        return TensorFormat.LINEAR

    def get_binding_format(self, index: int) -> TensorFormat:
        """As `get_tensor_format`."""
        return self.get_tensor_format(self._binding(index).name)

    def get_tensor_format_desc(self, name: str, *_: Any) -> str:
        """Order and type of its elements in words."""
        return f"Row major linear {self.get_tensor_dtype(name).name} format"

    def get_binding_format_desc(self, index: int) -> str:
        """As `get_tensor_format_desc`."""
        return self.get_tensor_format_desc(self._binding(index).name)

    def get_tensor_bytes_per_component(self, name: int | str, *_: Any) -> int:
        """Bytes of one element."""
        return self.get_tensor_dtype(name).itemsize

    get_binding_bytes_per_component = get_tensor_bytes_per_component

    def get_tensor_components_per_element(self, name: int | str, *_: Any) -> int:
        """-1: elements are not vectors."""
        self._binding(name)
        return -1

    get_binding_components_per_element = get_tensor_components_per_element
    get_tensor_vectorized_dim = get_tensor_components_per_element
    get_binding_vectorized_dim = get_tensor_components_per_element

    def is_shape_inference_io(self, name: int | str) -> PythonBool:
        """Never: what shapes depend on is fixed in the plan."""
        self._binding(name)
        return False

    is_shape_binding = is_shape_inference_io

    def is_execution_binding(self, binding: int | str) -> PythonBool:
        """Always: every binding is data."""
        self._binding(binding)
        return True

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> tuple[Dims, Dims, Dims]:
        """Smallest, best and largest shape of a profile: its one shape."""
        shape = Dims(self.engine.binding_shape(name, self.engine.profiles[profile_index]))
        return shape, shape, shape

    def get_profile_shape(self, profile_index: int, binding: int | str) -> tuple[Dims, Dims, Dims]:
        """As `get_tensor_profile_shape`, by index or name."""
        return self.get_tensor_profile_shape(self._binding(binding).name, profile_index)

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
    ) -> IExecutionContext:
        """A context with memory of its own, unless the strategy leaves that to the caller."""
        is_own = strategy is not ExecutionContextAllocationStrategy.USER_MANAGED
        return self._context(has_memory=is_own)

    def create_execution_context_without_device_memory(self) -> IExecutionContext:
        """A context that works in the memory that its `device_memory` is set to."""
        return self._context(has_memory=False)

    def create_engine_inspector(self) -> EngineInspector:
        """An inspector of this engine."""
        return EngineInspector(self)

    def serialize(self) -> bytes:
        """The plan's bytes."""
        from planformat.writer import plan_bytes

        plan = SerializedPlan(self._stripped or plan_bytes(self.engine.plan))
        plan.network = self.network
        return plan

    def __enter__(self) -> ICudaEngine:
        """The engine itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """The engine goes when nothing uses it."""

    def _context(self, *, has_memory: PythonBool) -> IExecutionContext:
        context = IExecutionContext(self, has_memory=has_memory)
        self._contexts.add(context)
        return context

    def _binding(self, binding: int | str) -> Binding:
        bindings = self.engine.bindings
        if isinstance(binding, int):
            if not 0 <= binding < len(bindings):
                raise IndexError(f"binding {binding} of {len(bindings)}")
            return bindings[binding]
        index = self.get_binding_index(binding)
        if index < 0:
            raise KeyError(f"no tensor '{binding}'; there are {', '.join(self)}")
        return bindings[index]


class EngineInspector(Refusing):
    """Tells what an engine's layers are."""

    refused = INSPECTOR

    def __init__(self, engine: ICudaEngine) -> None:
        """Inspect an engine."""
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:
        """One step of the default profile."""
        if not 0 <= layer_index < len(self._rows):
            raise IndexError(f"layer {layer_index} of {len(self._rows)}")
        row = self._rows[layer_index]
        return json.dumps(row) if format is LayerInformationFormat.JSON else _one_line(row)

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        """All of them."""
        if format is LayerInformationFormat.JSON:
            bindings = [binding.name for binding in self._engine.engine.bindings]
            return json.dumps({"Layers": self._rows, "Bindings": bindings})
        return "\n".join(_one_line(row) for row in self._rows)

    @functools.cached_property
    def _rows(self) -> list[dict[str, Any]]:
        """A row per step, as `num_layers` and profilers count, with what its operation tells."""
        engine = self._engine.engine
        rows = [{"name": step.name, "tactic": step.tactic} for step in engine.profile().steps]
        details = plan_details(engine.plan)
        if details is None:
            return rows
        operations = details.variants[engine.variant_index][0].operations
        return [
            asdict(operation) | rows[step] for operation in operations for step in operation.steps
        ]


def _one_line(row: dict[str, Any]) -> str:
    return f"{row['name']} [{row.get('kind', 'step')}]"
