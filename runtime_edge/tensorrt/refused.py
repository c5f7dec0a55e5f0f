"""Names of TensorRT's runtime API that are not here, each with what to use instead.

A program that reads or sets one gets an AttributeError with the advice; `hasattr` is False.
docs/migrating-from-tensorrt.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn


class Refusing:
    """Base of classes that lack some of the API's members."""

    refused: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # with it mypy would accept every name

        def __getattr__(self, name: str) -> NoReturn:
            """Raise AttributeError, with advice for names of the API."""
            raise AttributeError(_text(type(self), name, self.refused.get(name)))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Raises AttributeError for names of the API that mean nothing here."""
        if name in self.refused:
            raise AttributeError(_text(type(self), name, self.refused[name]))
        object.__setattr__(self, name, value)


def _text(owner: type, name: str, advice: str | None) -> str:
    if advice is None:
        return f"'{owner.__name__}' object has no attribute '{name}'"
    return f"{owner.__name__}.{name} is not in edgeplan: {advice}"


_NO_DLA = "there is no DLA; everything runs on the GPU or the CPU"
_REFITTER = "use Refitter(engine, logger) of `builder_host.tensorrt`, which packs weights"
_NO_STREAMING = "weights stay in device memory"
_NO_PLUGINS = "plugins are compiled into the plan; write one for `builder_host.plugins`"
_NO_CODE = "plans hold no host code but their own, which their signature covers"
_NO_DEBUG = "use `edgeplan compare` on the host: it looks at every tensor"
_STATIC = "profiles fix every shape; ask `get_tensor_shape`"
_NO_KERNELS = "no kernels compute in it; precisions are in docs/precision.md"
_ONE_STREAM = "a run uses the one stream that it is given"

RUNTIME: Mapping[str, str] = {
    "DLA_core": _NO_DLA,
    "engine_host_code_allowed": _NO_CODE,
    "get_plugin_registry": _NO_PLUGINS,
    "load_runtime": "there is one runtime; it loads all plans of its major format version",
    "temporary_directory": "nothing is written while a plan is loaded",
    "tempfile_control_flags": "nothing is written while a plan is loaded",
}
ENGINE: Mapping[str, str] = {
    "create_refitter": _REFITTER,
    "create_runtime_config": "give the strategy to `create_execution_context`",
    "engine_capability": "there is one kind of plan",
    "hardware_compatibility_level": "a plan is for one device; `edgeplan explain` says which",
    "profiling_verbosity": "plans tell all",
    "tactic_sources": "all kernels are edgeplan's own",
    "create_serialization_config": "`serialize` gives the plan as it was built",
    "get_aliased_input_tensor": "outputs never share memory with inputs",
    "get_tensor_profile_values": "shapes depend on no values; they are fixed in the plan",
    "is_debug_tensor": _NO_DEBUG,
    "minimum_weight_streaming_budget": _NO_STREAMING,
    "serialize_with_config": "`serialize` gives the plan as it was built",
    "weight_streaming_budget": _NO_STREAMING,
    "weight_streaming_budget_v2": _NO_STREAMING,
    "weight_streaming_scratch_memory_size": _NO_STREAMING,
    "get_weight_streaming_automatic_budget": _NO_STREAMING,
}
CONTEXT: Mapping[str, str] = {
    "debug_sync": _NO_DEBUG,
    "enqueue_emits_profile": "a run with a profiler is waited for and reported at once",
    "nvtx_verbosity": "plans write no NVTX ranges; `planexec --dumpProfile` times the steps",
    "report_to_profiler": "a run with a profiler is waited for and reported at once",
    "get_debug_listener": _NO_DEBUG,
    "get_debug_state": _NO_DEBUG,
    "get_input_consumed_event": "record an event on the stream behind the run",
    "get_output_allocator": "shapes of outputs are known: give their addresses",
    "get_runtime_config": "memory is planned; there is nothing to configure",
    "is_debug_tensor_set": _NO_DEBUG,
    "get_shape": _STATIC,
    "persistent_cache_limit": "kernels are timed without a share of the L2 cache set aside",
    "set_all_tensors_debug_state": _NO_DEBUG,
    "set_aux_streams": _ONE_STREAM,
    "set_debug_listener": _NO_DEBUG,
    "set_input_consumed_event": "record an event on the stream behind the run",
    "set_output_allocator": "shapes of outputs are known: give their addresses",
    "set_shape_input": _STATIC,
    "set_tensor_debug_state": _NO_DEBUG,
    "temporary_allocator": "give `Runtime.gpu_allocator`, or memory by `device_memory`",
    "unfused_tensors_debug_state": _NO_DEBUG,
}
INSPECTOR: Mapping[str, str] = {"error_recorder": "a plan that is loaded can be inspected"}
MODULE: Mapping[str, str] = {
    "IDebugListener": _NO_DEBUG,
    "IOutputAllocator": "shapes of outputs are known: give their addresses",
    "IStreamReader": "give `Runtime.deserialize_cuda_engine` bytes or a mapping",
    "IStreamReaderV2": "give `Runtime.deserialize_cuda_engine` bytes or a mapping",
    "Refitter": _REFITTER,
    "fp4": _NO_KERNELS,
    "fp8": _NO_KERNELS,
    "get_plugin_registry": _NO_PLUGINS,
    "int4": _NO_KERNELS,
}
