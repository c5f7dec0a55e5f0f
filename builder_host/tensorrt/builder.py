"""Builder under TensorRT's name: networks and configurations in, engines out."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder_host.builder import build, resolve_target
from builder_host.config import BuilderConfig
from builder_host.errors import BuilderError, TargetError
from builder_host.measure.local import gpu_fingerprint
from builder_host.network.network import Network
from builder_host.tensorrt.build_enums import BuilderFlag, NetworkDefinitionCreationFlag
from builder_host.tensorrt.calibrators import IInt8Calibrator, table_of
from builder_host.tensorrt.config import IBuilderConfig, IOptimizationProfile, IProgressMonitor
from builder_host.tensorrt.emission import Found
from builder_host.tensorrt.network import INetworkDefinition, dynamic_ranges
from builder_host.tensorrt.refitter import MUST_BE_SAME
from builder_host.tensorrt.refused import BUILDER
from planformat.fingerprint import DeviceFingerprint
from planformat.stripped import strip_plan
from planformat.writer import plan_bytes
from runtime_edge.device.select import open_device
from runtime_edge.tensorrt.engine import IMPLICIT_BATCH, ICudaEngine, Runtime, SerializedPlan
from runtime_edge.tensorrt.interfaces import IErrorRecorder, IGpuAllocator, ILogger, LogSeverity
from runtime_edge.tensorrt.refused import Refusing
from runtime_edge.tensorrt.types import PLAN_TYPES, DataType

_REFIT = (BuilderFlag.REFIT, BuilderFlag.REFIT_IDENTICAL, BuilderFlag.STRIP_PLAN)
_FIRST_WITH_TF32 = (8, 0)
_RULE_OF = {DataType.FLOAT: "fp32", DataType.HALF: "fp16", DataType.INT8: "int8"}


class Builder(Refusing):
    """Makes networks, configurations and engines.

    Attributes:
        target: what to build for: a GPU of this machine where there is one, else its CPU; the
            environment's EDGEPLAN_TARGET or the argument name another.
        max_batch_size: of implicit-batch networks; None until it is set.
    """

    refused = BUILDER

    def __init__(self, logger: ILogger, target: str | None = None) -> None:
        """Choose the target."""
        self.logger = logger
        self.target = target or os.environ.get("EDGEPLAN_TARGET") or _default_target()
        self.reset()

    def reset(self) -> None:
        """All options as they were."""
        self.max_batch_size: int | None = None
        self.max_workspace_size = 256 << 20
        self.fp16_mode = False
        self.int8_mode = False
        self.strict_type_constraints = False
        self.refittable = False
        self.int8_calibrator: IInt8Calibrator | None = None
        self.error_recorder: IErrorRecorder | None = None
        self.gpu_allocator: IGpuAllocator | None = None
        self.debug_sync = False
        self.num_DLA_cores = 0
        self.max_threads = 0
        self._told: DeviceFingerprint | None = None

    @property
    def platform_has_fast_fp16(self) -> bool:
        """Whether the target computes in float16."""
        return self._fingerprint().device_kind == "cuda"

    platform_has_fast_int8 = True

    @property
    def platform_has_tf32(self) -> bool:
        """Whether the target is a GPU that rounds float32 products to tf32."""
        fingerprint = self._fingerprint()
        if fingerprint.device_kind != "cuda":
            return False
        major, _, minor = str(fingerprint.fields["cuda.compute_capability"]).partition(".")
        return (int(major), int(minor)) >= _FIRST_WITH_TF32

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        """An empty network.

        Without the EXPLICIT_BATCH bit, and with `max_batch_size` set, dimensions leave out the
        batch, as in TensorRT 1 to 7; else they hold it, as since TensorRT 10.
        """
        is_explicit = bool(flags >> NetworkDefinitionCreationFlag.EXPLICIT_BATCH & 1)
        return INetworkDefinition(
            is_explicit=is_explicit, batch=lambda: self.max_batch_size, flags=flags
        )

    def create_builder_config(self) -> IBuilderConfig:
        """Options of a build."""
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Shapes of a profile."""
        return IOptimizationProfile()

    def build_cuda_engine(self, network: INetworkDefinition) -> ICudaEngine | None:
        """An engine, with the builder's own options (TensorRT 5)."""
        config = IBuilderConfig()
        config.max_workspace_size = self.max_workspace_size
        config.int8_calibrator = self.int8_calibrator
        for is_set, flag in (
            (self.fp16_mode, BuilderFlag.FP16),
            (self.int8_mode, BuilderFlag.INT8),
            (self.strict_type_constraints, BuilderFlag.STRICT_TYPES),
            (self.refittable, BuilderFlag.REFIT),
        ):
            if is_set:
                config.set_flag(flag)
        return self.build_engine(network, config)

    def build_engine(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> ICudaEngine | None:
        """An engine; None (and a logged error) when it cannot be built or run here."""
        plan = self.build_serialized_network(network, config)
        if plan is None:
            return None
        runtime = Runtime(self.logger)
        runtime.gpu_allocator, runtime.error_recorder = self.gpu_allocator, self.error_recorder
        return runtime.deserialize_cuda_engine(plan)

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes | None:
        """A plan's bytes; None (and a logged error) when it cannot be built.

        With BuilderFlag.REFIT, REFIT_IDENTICAL or STRIP_PLAN the network stays with them, so that
        `Refitter` knows it.
        """
        try:
            return self._build(network, config)
        except BuilderError as error:
            self._failed(error)
            return None

    def is_network_supported(self, network: INetworkDefinition, config: IBuilderConfig) -> bool:
        """Whether every layer's inputs obey its rules."""
        del config
        try:
            network.emit(self.max_batch_size if network.has_implicit_batch_dimension else None)
        except BuilderError as error:
            self._failed(error)
            return False
        return True

    def __enter__(self) -> Builder:
        """The builder itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to release."""

    def _failed(self, error: BuilderError) -> None:
        self.logger.log(LogSeverity.ERROR, str(error))
        if self.error_recorder is not None:
            self.error_recorder.report_error(2, str(error))

    def _fingerprint(self) -> DeviceFingerprint:
        if self._told is None:
            self._told = resolve_target(self.target)[0]
        return self._told

    def _build(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes:
        for text in config.warnings():
            self.logger.log(LogSeverity.WARNING, text)
        drafts = self._networks(network, config)
        first, found = next(iter(drafts.values()))
        precision = self._precision(config)
        with tempfile.TemporaryDirectory(prefix="edgeplan-timings-") as folder:
            cache = Path(folder) / "timings.cache"
            keeps_cache = not config.get_flag(BuilderFlag.DISABLE_TIMING_CACHE)
            if keeps_cache and config._cache is not None and config._cache.content:
                cache.write_bytes(config._cache.content)
            for text in _idle_types(network, found, has_half=self.platform_has_fast_fp16):
                self.logger.log(LogSeverity.WARNING, text)
            layer_rules, tensor_rules = _rules(
                network, first, found, has_half=self.platform_has_fast_fp16
            )
            options = BuilderConfig(
                target=self.target,
                timing_cache=cache,
                is_strict_cache=config.get_flag(BuilderFlag.ERROR_ON_TIMING_CACHE_MISS),
                workspace_limit_bytes=config.max_workspace_size,
                num_jobs=self.max_threads or None,
                measure=self._measure(config),
                precision=precision,
                layer_precision=layer_rules,
                tensor_precision=() if precision == "fp32" else tensor_rules,
                is_refittable=any(map(config.get_flag, _REFIT)),
                is_checked=config.is_checked,
            )
            if config.get_flag(BuilderFlag.INT8):
                if config.int8_calibrator is not None:
                    sample = self._calibrated_network(network, config, first)
                    device = open_device(self._calibration_device())
                    table = table_of(config.int8_calibrator, sample, device)
                    options = replace(options, calibration=table)
                options = replace(options, dynamic_ranges=dynamic_ranges(found))
            networks = {name: net for name, (net, _) in drafts.items()}
            progress = _Progress(config.progress_monitor)
            built = build(networks if len(networks) > 1 else first, options, progress=progress)
            if keeps_cache and config._cache is not None and cache.exists():
                config._cache.content = cache.read_bytes()
        plan = built.plan
        if network.has_implicit_batch_dimension:
            plan = replace(plan, provenance={**plan.provenance, IMPLICIT_BATCH: "1"})
        if config.get_flag(BuilderFlag.REFIT_IDENTICAL):
            plan = replace(plan, provenance={**plan.provenance, MUST_BE_SAME: "1"})
        data = plan_bytes(plan)
        if config.get_flag(BuilderFlag.STRIP_PLAN) and plan.weights:
            data = strip_plan(data)
        serialized = SerializedPlan(data)
        if any(map(config.get_flag, _REFIT)):
            serialized.network = network
        return serialized

    def _networks(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> dict[str, tuple[Network, Found]]:
        """The network by profile: batch 1 and the largest, or the shapes of the profiles."""
        if network.has_implicit_batch_dimension:
            sizes = dict.fromkeys((self.max_batch_size or 1, 1))
            return {f"batch{size}": network.emit(size) for size in sizes}
        if not config._profiles:
            return {"default": network.emit(None)}
        drafts: dict[str, tuple[Network, Found]] = {}
        known: list[dict[str, tuple[int, ...]]] = []
        for number, profile in enumerate(config._profiles):
            if not profile:
                raise BuilderError(f"optimization profile {number}: {profile.shapes}: not ordered")
            for kind, which in (("opt", 1), ("min", 0), ("max", 2)):
                shapes = {name: triple[which] for name, triple in profile.shapes.items()}
                if shapes not in known:
                    known.append(shapes)
                    drafts[f"{kind}{number}"] = network.emit(None, shapes)
        return drafts

    def _measure(self, config: IBuilderConfig) -> str:
        """Where kernels are timed; those of a device that is not here are ranked by the model."""
        if config.builder_optimization_level == 0:
            return "none"
        if not resolve_target(self.target)[1]:
            self.logger.log(
                LogSeverity.WARNING,
                f"target '{self.target}' is not here: tactics come from the timing cache and the "
                "cost model; edgeplan build --measure times them on the board",
            )
            return "none"
        return "local"

    def _is_half(self, config: IBuilderConfig) -> bool:
        return config.get_flag(BuilderFlag.FP16) and self.platform_has_fast_fp16

    def _precision(self, config: IBuilderConfig) -> str:
        if config.get_flag(BuilderFlag.FP16) and not self.platform_has_fast_fp16:
            self.logger.log(
                LogSeverity.WARNING,
                "FP16: this CPU target has no float16 kernels; layers stay in float32",
            )
        has_int8 = config.get_flag(BuilderFlag.INT8)
        if has_int8 and self._is_half(config):
            return "best"
        if has_int8:
            return "int8"
        if config.get_flag(BuilderFlag.BF16):
            return "bf16"
        if self._is_half(config):
            return "fp16"
        return "tf32" if config.get_flag(BuilderFlag.TF32) and self.platform_has_tf32 else "fp32"

    def _calibrated_network(
        self, network: INetworkDefinition, config: IBuilderConfig, first: Network
    ) -> Network:
        """The network in the shapes of the calibration profile, where there is one."""
        profile = config.get_calibration_profile()
        if profile is None:
            return first
        return network.emit(None, {name: shapes[1] for name, shapes in profile.shapes.items()})[0]

    def _calibration_device(self) -> str:
        """The device of this machine whose memory a calibrator's addresses point into."""
        here = resolve_target(self.target)[1]
        return here or ("cpu" if _default_target() == "host-cpu" else "cuda:0")


class _Progress:
    """A build's progress as TensorRT's monitors are told it: phases of steps."""

    def __init__(self, monitor: IProgressMonitor | None) -> None:
        self.monitor = monitor
        self.phase = ""
        self.steps = 0
        self.total = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Tell the monitor. Raises BuilderError when it wants the build to end."""
        if self.monitor is None:
            return
        if phase != self.phase:
            if self.phase:
                self._complete(self.monitor, self.total)
                self.monitor.phase_finish(self.phase)
            self.phase, self.steps, self.total = phase, 0, total
            self.monitor.phase_start(phase, None, total)
        self._complete(self.monitor, done)
        if phase == "done":
            self.monitor.phase_finish(phase)

    def _complete(self, monitor: IProgressMonitor, done: int) -> None:
        while self.steps < done:
            if not monitor.step_complete(self.phase, self.steps):
                raise BuilderError(f"the progress monitor ended the build in '{self.phase}'")
            self.steps += 1


def _rules(
    network: INetworkDefinition, net: Network, found: Found, *, has_half: bool
) -> tuple[Any, Any]:
    """`precision` of layers and types of `set_output_type` as the build's rules, by name."""
    layer_rules, tensor_rules = [], []
    for layer in network:
        if layer.precision is not None and (has_half or layer.precision is not DataType.HALF):
            if layer.precision not in _RULE_OF:
                raise BuilderError(f"'{layer.name}': no layer computes in {layer.precision.name}")
            for made in net.layers:
                if made.name == layer.name or made.name.startswith(f"{layer.name}."):
                    layer_rules.append((glob.escape(made.name), _RULE_OF[layer.precision]))
        for index, dtype in layer.output_types.items():
            tensor = found.get(layer.get_output(index))
            rule = {DataType.FLOAT: "fp32", DataType.HALF: "fp16"}.get(dtype)
            if tensor is None or tensor.producer is None or rule is None:
                continue
            if rule == "fp32" or has_half:
                tensor_rules.append((glob.escape(tensor.name), rule))
    return tuple(layer_rules), tuple(tensor_rules)


def _idle_types(network: INetworkDefinition, found: Found, *, has_half: bool) -> Iterator[str]:
    """What `precision` and `set_output_type` ask for in vain, a sentence each."""
    for layer in network:
        if layer.precision is DataType.HALF and not has_half:
            yield (
                f"'{layer.name}' precision = HALF changes nothing: this CPU target has no float16 "
                "kernels"
            )
        for index, dtype in layer.output_types.items():
            handle = layer.get_output(index)
            tensor = found.get(handle)
            if tensor is None or layer.obeys_output_type or tensor.dtype is PLAN_TYPES[dtype]:
                continue
            if dtype is DataType.HALF and has_half and tensor.dtype.is_float:
                continue  # a rule of the build
            why = (
                f"a binding of {tensor.dtype.text} cannot be converted to it without a scale or "
                "loss: use add_cast or add_quantize"
                if handle.is_network_output
                else "inside the network the build's precision decides: mark the tensor as an "
                "output, or use add_cast"
            )
            yield f"'{layer.name}' set_output_type({index}, {dtype.name}) changes nothing: {why}"


def _default_target() -> str:
    try:
        gpu_fingerprint(0)
    except TargetError:
        return "host-cpu"
    return "cuda:0"
