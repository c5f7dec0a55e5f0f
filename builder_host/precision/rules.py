"""Which layer is computed in which precision: the configuration's rules applied to a network."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from builder_host.errors import BuilderError
from builder_host.network.network import Layer, Network, Tensor
from builder_host.network.rules import EIGHT_BITS
from builder_host.passes import narrow_bfloat16, narrow_float, quantise
from builder_host.passes.quantise import Quantisation
from planformat.datatypes import DataType

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "best")
RULE_PRECISIONS = ("fp32", "fp16", "int8")
_NODE_NAME = re.compile(r" '(?P<name>[^']+)'$")  # at the end of a layer's origin
_BITS = {"int8": 8, "fp16": 16, "fp32": 32}

Rules = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Overflow:
    """A tensor whose values leave float16's range on sample data; no layer: a network input."""

    layer: str
    tensor: str
    largest: float

    def text(self) -> str:
        """For messages."""
        where = f"layer '{self.layer}': tensor" if self.layer else "network input"
        return f"{where} '{self.tensor}' reaches {self.largest:.4g}"


@dataclass(frozen=True, slots=True)
class AppliedPrecision:
    """What a network became.

    Attributes:
        quantisation: of the pass over dynamic ranges, None where it did not run.
        num_int8_layers: layers that multiply integers, those of the model's own Q/DQ among them.
        storage: narrowest type of the network's computed values: `fp32`, `tf32`,
            `fp16`, `bf16` or `int8`; `tf32` is stored in float32.
        tf32_layers: names of layers whose products may be rounded to 10 bits.
        unprofitable: layers that `best` left in float, where conversions would cost more than
            INT8 saves.
        overflows: what float16 could not have held; these tensors are kept in float32.
        is_overflow_unknown: values are stored in float16, and no sample data showed how large they
            become.
    """

    quantisation: Quantisation | None
    num_int8_layers: int
    storage: str
    overflows: tuple[Overflow, ...] = ()
    tf32_layers: frozenset[str] = frozenset()
    unprofitable: tuple[str, ...] = ()
    is_overflow_unknown: bool = False

    def notes(self) -> tuple[str, ...]:
        """What a user should know: counts, layers left in float and why; a sentence each."""
        found = []
        if self.num_int8_layers:
            is_one = self.num_int8_layers == 1
            found.append(
                f"{self.num_int8_layers} layer{'' if is_one else 's'} "
                f"multipl{'ies' if is_one else 'y'} 8-bit integers"
            )
        if self.quantisation is not None and self.quantisation.without_range:
            found.append(
                "stayed in float for want of a dynamic range: "
                + ", ".join(f"'{name}'" for name in self.quantisation.without_range)
            )
        if self.unprofitable:
            found.append("faster in float by the cost model: " + ", ".join(self.unprofitable))
        found += [f"kept in float32: {one.text()}" for one in self.overflows]
        if self.is_overflow_unknown:
            found.append(
                "whether values overflow float16 was not looked for: give --calibration-data"
            )
        return tuple(found)


def parse_rules(text: str) -> tuple[tuple[str, str], ...]:
    """`conv1=fp32,*head*=fp16` -> patterns and precisions.

    Raises:
        BuilderError: a part is malformed or names no precision.
    """
    rules = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        pattern, separator, precision = part.rpartition("=")
        if not separator or not pattern:
            raise BuilderError(f"'{part}' is not PATTERN=PRECISION, such as '*head*=fp16'")
        rules.append((pattern, precision))
    check_rules(rules)
    return tuple(rules)


def check_rules(rules: Rules) -> None:
    """Raise BuilderError for a rule whose precision is unknown."""
    for pattern, precision in rules:
        if precision not in RULE_PRECISIONS:
            raise BuilderError(
                f"precision '{precision}' for '{pattern}' is unknown; expected one of "
                f"{', '.join(RULE_PRECISIONS)}"
            )


def apply_precision(
    network: Network,
    precision: str,
    *,
    device_kind: str,
    has_bf16: bool = False,
    ranges: Mapping[str, float] | None,
    largest: Mapping[str, float] | None = None,
    layer_rules: Rules = (),
    tensor_rules: Rules = (),
) -> AppliedPrecision:
    """Give every layer of a fused float32 network its precision, in place.

    Args:
        network: after `run_passes`.
        precision: of all layers that no rule names; one of `PRECISIONS`.
        device_kind: `cpu` or `cuda`; CPU plans keep what is not INT8 in float32.
        has_bf16: whether a CPU has bfloat16 dot products.
        ranges: dynamic range by tensor name, None without calibration.
        largest: largest magnitude seen by tensor name, where it is more than float16 can hold.
        layer_rules: pattern of layer names (here, in the model's file, or of their outputs) and
            precision; the last that matches counts.
        tensor_rules: pattern of tensor names and the least precision they are stored in.

    Raises:
        BuilderError: a rule that matches nothing, INT8 without ranges, or values that float16
            cannot hold and no rule keeps in float32 (`best` and `int8` keep them by themselves).
    """
    _check_device(precision, layer_rules, device_kind, has_bf16)
    chosen = _layer_precisions(network, precision, layer_rules)
    floors = _tensor_precisions(network, tensor_rules)
    is_explicit = any(_is_int8(layer) for layer in network.layers)
    int8_layers = [y for y, p in chosen.items() if p in ("int8", "best")]
    quantisation = None
    if ranges is not None and int8_layers:
        wide_names = [t.name for t, least in floors.items() if _BITS[least] > 8]
        quantisation = quantise.run(
            network,
            ranges,
            int8_layers,
            allows_unsigned=device_kind == "cpu",
            wide_tensors=wide_names,
        )
        if precision == "int8" and not quantisation.layers and not is_explicit:
            raise BuilderError(_nothing_quantised(network, quantisation))
    elif "int8" in chosen.values() and not is_explicit:
        raise BuilderError(
            "precision int8 needs dynamic ranges: give a calibration table (--calibration), "
            "calibration data (--calibration-data), or a model with Q/DQ nodes"
        )
    is_narrow = device_kind == "cuda" and precision in ("fp16", "int8", "best")
    overflows: tuple[Overflow, ...] = ()
    wide = {y for y, p in chosen.items() if p == "fp32"}
    for tensor in (t for t, least in floors.items() if least == "fp32"):
        wide |= _around(network, tensor)
    if is_narrow:
        overflows = find_overflows(network, {**(ranges or {}), **(largest or {})}, wide)
        wide |= _kept_wide(network, overflows, precision)
        narrow_float.run(network, wide)
    elif precision == "bf16":
        narrow_bfloat16.run(network, wide)
    count = sum(_is_int8(layer) for layer in network.layers)
    floats = "fp16" if is_narrow else ("bf16" if precision == "bf16" else "fp32")
    storage = "int8" if count else floats
    tf32 = frozenset(
        layer.name
        for layer, own in chosen.items()
        if own == "tf32" and layer.kind in quantise.PRODUCTS and not layer.inputs[0].is_constant
    )
    return AppliedPrecision(
        quantisation,
        count,
        "tf32" if tf32 else storage,
        overflows,
        tf32,
        is_overflow_unknown=is_narrow and not ranges and not largest,
    )


def find_overflows(
    network: Network, largest: Mapping[str, float], wide: Collection[Layer] = ()
) -> tuple[Overflow, ...]:
    """Tensors that float16 cannot hold, by the largest magnitudes that sample data showed.

    Args:
        network: fused, in float32.
        largest: by any name of a tensor.
        wide: layers that store float32.
    """
    readers = network.consumers()
    stored = [("", t) for t in network.inputs if not set(readers.get(t, ())) <= set(wide)]
    stored += [(y.name, t) for y in network.layers if y not in wide for t in y.outputs]
    found = []
    for layer, tensor in stored:
        if tensor.dtype is not DataType.FLOAT32:
            continue
        names = network.names_of(tensor)
        values = [largest[name] for name in names if name in largest]
        if values and values[0] > narrow_float.LARGEST:
            found.append(Overflow(layer, names[0], values[0]))
    return tuple(found)


def _around(network: Network, tensor: Tensor) -> set[Layer]:
    """The layers that write or read a tensor."""
    return {y for y in network.layers if tensor in y.inputs or tensor in y.outputs}


def _kept_wide(network: Network, overflows: Sequence[Overflow], precision: str) -> set[Layer]:
    """Layers around what overflows; an error where the user asked for float16.

    Raises:
        BuilderError: lists the layers and how to keep them in float32.
    """
    if not overflows:
        return set()
    tensors = {name: t for t in network.tensors() for name in network.names_of(t)}
    if precision != "fp16":
        return set().union(*(_around(network, tensors[one.tensor]) for one in overflows))
    shown = "\n  ".join(one.text() for one in overflows)
    rules = ",".join(f"{one.tensor}=fp32" for one in overflows)
    raise BuilderError(
        f"{len(overflows)} of the network's values overflow float16, which ends at "
        f"{narrow_float.LARGEST:g}:\n  {shown}\n"
        f"keep them in float32: --tensor-precision '{rules}', or use --precision best"
    )


def _is_int8(layer: Layer) -> bool:
    return layer.kind in quantise.PRODUCTS and layer.inputs[0].dtype in EIGHT_BITS


def _check_device(precision: str, rules: Rules, device_kind: str, has_bf16: bool) -> None:
    if precision == "bf16" and device_kind == "cuda":
        raise BuilderError("precision bf16 has no kernels for CUDA; use fp16 or int8")
    if precision == "bf16" and not has_bf16:
        raise BuilderError(
            "precision bf16 needs a CPU with AVX512-BF16 (avx512_bf16 in cpu.features), which "
            "the target lacks; use fp32 or int8"
        )
    if device_kind == "cpu" and precision in ("fp16", "tf32"):
        raise BuilderError(
            f"precision {precision} needs a CUDA target; CPU plans compute in float32 or int8"
        )
    if device_kind == "cuda" and precision in ("fp32", "tf32") and "fp16" in (p for _, p in rules):
        raise BuilderError("single layers in fp16: use --precision fp16 and name those in fp32")


def _names(network: Network, layer: Layer) -> list[str]:
    """What a rule may call a layer: its name here, the node's in the file, those of its outputs."""
    node = _NODE_NAME.search(layer.origin)
    written = [node["name"]] if node is not None else []
    return [layer.name, *written, *(n for t in layer.outputs for n in network.names_of(t))]


def _layer_precisions(network: Network, default: str, rules: Rules) -> dict[Layer, str]:
    chosen = dict.fromkeys(network.layers, default)
    for pattern, precision in rules:
        matches = [
            layer
            for layer in network.layers
            if any(fnmatchcase(name, pattern) for name in _names(network, layer))
        ]
        if not matches:
            raise BuilderError(
                f"layer precision: no layer matches '{pattern}'; names are those of the "
                "model's layers and tensors, and of 'edgeplan build --trace'"
            )
        chosen.update(dict.fromkeys(matches, precision))
    return chosen


def _tensor_precisions(network: Network, rules: Rules) -> dict[Tensor, str]:
    floors: dict[Tensor, str] = {}
    tensors = [t for t in network.tensors() if not t.is_constant]
    for pattern, precision in rules:
        matches = [
            t for t in tensors if any(fnmatchcase(name, pattern) for name in network.names_of(t))
        ]
        if not matches:
            raise BuilderError(f"tensor precision: no tensor matches '{pattern}'")
        floors.update(dict.fromkeys(matches, precision))
    return floors


def _nothing_quantised(network: Network, quantisation: Quantisation) -> str:
    if not quantise.quantisable_layers(network):
        return "precision int8: the network has no layer that can be computed in INT8"
    shown = ", ".join(f"'{name}'" for name in quantisation.without_range[:5])
    return (
        f"precision int8: no layer could be quantised; tensors without a range: {shown or 'none'}; "
        "was the calibration table made for this model?"
    )
