"""From planexec's options to a plan: the importer, the configuration, the build."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder_host.builder import BuiltPlan, build, resolve_target
from builder_host.config import BuilderConfig
from builder_host.errors import BuilderError, TargetError
from builder_host.importers.model_file import import_model_file
from builder_host.measure.local import gpu_fingerprint
from builder_host.network.network import Network
from builder_host.planexec.arguments import shapes_of, split_list
from builder_host.refit.model import import_for_plan
from builder_host.refit.refit import open_refittable, refit_plan
from planformat.stripped import strip_plan
from planformat.writer import write_atomically

_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_PLACEHOLDER_RANGE = 4.0  # as giexec's: good for timing, not for answers


def import_networks(args: argparse.Namespace) -> Network | dict[str, Network]:
    """The network, or one per profile. Raises BuilderError."""
    models = [name for name in ("deploy", "onnx", "uff") if getattr(args, name) is not None]
    if len(models) != 1:
        given = ", ".join(f"--{name}" for name in models) or "none"
        raise BuilderError(f"name one network by --deploy, --onnx or --uff; given: {given}")
    kind = models[0]
    outputs = split_list(args.output)
    if kind in ("deploy", "uff") and not outputs:
        raise BuilderError(f"--{kind} needs --output=NAME for each output")
    if args.model is not None and kind != "deploy":
        raise BuilderError(f"--model holds the weights of --deploy, not of --{kind}")
    base = _uff_inputs(args.uffInput) if kind == "uff" else {}

    def imported(shapes: Mapping[str, tuple[int, ...]]) -> Network:
        return import_model_file(
            getattr(args, kind),
            args.model,
            shapes={**base, **shapes},
            outputs=outputs or None,
            uff_order="NHWC" if args.uffNHWC else "NCHW",
        )

    ranges = {n: shapes_of(getattr(args, f"{n}Shapes")) for n in ("opt", "min", "max")}
    named = {name: shapes for name, shapes in ranges.items() if shapes}
    if not named:
        shapes = shapes_of(args.shapes)
        if args.batch is not None:
            first = imported(shapes)
            batched = {t.name: (args.batch, *t.shape[1:]) for t in first.inputs}
            for name, shape in shapes.items():
                if batched.get(name, shape) != shape:
                    raise BuilderError(
                        f"--batch={args.batch} and --shapes={name}:{'x'.join(map(str, shape))}: "
                        "they give different batches; leave one out"
                    )
            shapes |= batched
        return imported(shapes)
    distinct: dict[str, Mapping[str, tuple[int, ...]]] = {}
    for name, shapes in named.items():
        if shapes not in distinct.values():
            distinct[name] = shapes
    if len(distinct) == 1:
        return imported(next(iter(distinct.values())))
    return {name: imported(shapes) for name, shapes in distinct.items()}


def builder_config(
    args: argparse.Namespace, network: Network, note: Callable[[str], None]
) -> BuilderConfig:
    """Options of the build; `note` is told what this target cannot do. Raises BuilderError."""
    target = _target(args)
    precision = _precision(args, target, note)
    measure = split_list(args.measure) or ["local"]
    boards = tuple(place for place in measure if "://" in place)
    is_timed = args.builderOptimizationLevel > 0 and measure != ["none"]
    settings: dict[str, Any] = {}
    if precision in ("int8", "best") and args.calib is None:
        if args.int8:
            settings["dynamic_ranges"] = _placeholder_ranges(network)
            note("note: --int8: placeholder ranges, for speed only; --calib gives right answers")
        else:
            note(
                "note: --best: no layer is quantised without --calib, or --int8 for placeholder "
                "ranges"
            )
    return BuilderConfig(
        target=target,
        timing_cache=args.timingCacheFile,
        is_strict_cache=bool(args.errorOnTimingCacheMiss),
        workspace_limit_bytes=_workspace_bytes(args),
        measure="local" if is_timed else "none",
        boards=boards if is_timed else (),
        artifact_dir=args.tempdir,
        precision=precision,
        is_refittable=bool(args.refit),
        layer_precision=_layer_rules(args.layerPrecisions),
        calibration=args.calib if precision in ("int8", "best") else None,
        is_checked=precision == "fp32",
        **settings,
    )


def build_plan(args: argparse.Namespace, note: Callable[[str], None]) -> BuiltPlan:
    """Import and build, and write the plan where --saveEngine says. Raises BuilderError."""
    networks = import_networks(args)
    first = networks if isinstance(networks, Network) else next(iter(networks.values()))
    built = build(networks, builder_config(args, first, note))
    if args.deploy is not None and args.model is None:
        note("note: --deploy without --model: the weights are random")
    save_plan(args, built.to_bytes())
    return built


def refitted_plan(args: argparse.Namespace) -> bytes:
    """The plan of --loadEngine with the weights of --refitFromOnnx. Raises BuilderError."""
    data = Path(args.loadEngine).read_bytes()
    opened = open_refittable(data, source=args.loadEngine)
    networks = import_for_plan(opened.plan, opened.recipe, args.refitFromOnnx)
    return refit_plan(opened, networks).data


def save_plan(args: argparse.Namespace, data: bytes) -> None:
    """Write a plan where --saveEngine says, without its weights for --stripWeights."""
    if args.saveEngine is not None:
        content = strip_plan(data, source=args.saveEngine) if args.stripWeights else data
        write_atomically(args.saveEngine, [content])


def _target(args: argparse.Namespace) -> str:
    """What --target names; `auto` is this machine's GPU, its CPU when there is none."""
    if args.target != "auto":
        return str(args.target)
    try:
        gpu_fingerprint(args.device)
    except TargetError:
        if args.device:
            raise
        return "auto"
    return f"cuda:{args.device}"


def _precision(args: argparse.Namespace, target: str, note: Callable[[str], None]) -> str:
    fingerprint, _ = resolve_target(target)
    if fingerprint.device_kind == "cpu" and args.fp16 and not args.best:
        note("note: --fp16: this CPU target has no float16 kernels; layers stay in float32")
        return "int8" if args.int8 else "fp32"
    if args.best or (args.int8 and args.fp16):
        return "best"
    for name in ("int8", "fp16", "bf16"):
        if getattr(args, name):
            return name
    return "fp32"


def _placeholder_ranges(network: Network) -> dict[str, float]:
    tensors = [*network.inputs, *(t for layer in network.layers for t in layer.outputs)]
    return {tensor.name: _PLACEHOLDER_RANGE for tensor in tensors}


def _layer_rules(text: str | None) -> tuple[tuple[str, str], ...]:
    rules = []
    for part in split_list([text] if text else []):
        pattern, _, precision = part.rpartition(":")
        if not pattern:
            raise BuilderError(f"--layerPrecisions: '{part}' is not LAYER:PRECISION")
        rules.append((pattern, precision))
    return tuple(rules)


def _workspace_bytes(args: argparse.Namespace) -> int:
    """Limit in bytes: --memPoolSize=workspace:N counts before --workspace (MiB)."""
    for part in split_list([args.memPoolSize] if args.memPoolSize else []):
        pool, _, size = part.partition(":")
        unit = size[-1:].upper() if size[-1:].isalpha() else "M"
        digits = size[:-1] if size[-1:].isalpha() else size
        if unit not in _UNITS or not digits.isascii() or not digits.isdigit():
            raise BuilderError(f"--memPoolSize: '{part}' is not POOL:N[B|K|M|G]")
        if pool == "workspace":
            return int(digits) * _UNITS[unit]
    return int(args.workspace) << 20


def _uff_inputs(values: list[str] | None) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in values or ():
        name, *dims = value.split(",")
        if not name or not dims or not all(d.isascii() and d.isdigit() for d in dims):
            raise BuilderError(f"--uffInput: '{value}' is not NAME,C,H,W")
        shapes[name] = (1, *(int(d) for d in dims))
    return shapes
