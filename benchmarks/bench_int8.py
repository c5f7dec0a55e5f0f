"""CNN topologies in INT8 on the CPU: edgeplan in int8 and float32, ONNX Runtime in static QDQ.

All sides run in this process with the same number of threads, in alternating blocks, batch 1. The
peer is made by onnxruntime.quantization (QDQ, per channel, UINT8 activations, INT8 weights) from
the same random calibration images that give edgeplan its dynamic ranges. `QDQ` is that very model
built by edgeplan; its outputs are compared with the peer's. The networks end before their soft-max.
Weights are random: errors against float32 say only that nothing is broken. Run on an otherwise idle
machine:

    python -m benchmarks.bench_int8 --threads 1 --timing-cache bench.cache squeezenet_v1.1 resnet50
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

import builder_host as bh
import runtime_edge as rt
from benchmarks.peers import Latency, interleaved, ort_session
from benchmarks.topologies import TOPOLOGIES

Array = npt.NDArray[Any]

NETWORKS = ("squeezenet_v1.1", "mobilenet_v1", "mobilenet_v2", "googlenet", "resnet50")
_NUM_IMAGES = 4


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Random calibration images, one at a time."""

    def __init__(self) -> None:
        """Fixed seed: both sides see the same images."""
        rng = np.random.default_rng(7)
        shape = (_NUM_IMAGES, 1, 3, 224, 224)
        self.images: list[Array] = list(rng.standard_normal(shape).astype(np.float32))
        self._next = 0

    def get_next(self) -> dict[str, Array] | None:
        """The next image, None after the last."""
        self._next += 1
        return {"data": self.images[self._next - 1]} if self._next <= len(self.images) else None


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model up to the input of its last node, which becomes the output `logits`."""
    last = model.graph.node.pop()
    if last.op_type != "Softmax":
        raise ValueError(f"the last node is {last.op_type}, expected Softmax")
    model.graph.node[-1].output[0] = "logits"
    del model.graph.output[:]
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 1000])
    model.graph.output.append(logits)
    return model


def ranges_of(model: onnx.ModelProto, images: list[Array]) -> dict[str, float]:
    """Largest magnitude of every tensor over the images, computed by ONNX Runtime in float32."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    known = {value.name for value in wide.graph.output}
    for node in model.graph.node:
        new = [name for name in node.output if name not in known]
        wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in new)
    session = ort_session(wide.SerializeToString(), 2)
    names = [output.name for output in session.get_outputs()]
    found: dict[str, float] = {"data": 0.0}
    for image in images:
        values = zip(["data", *names], [image, *session.run(names, {"data": image})], strict=True)
        for name, value in values:
            found[name] = max(found.get(name, 0.0), float(np.abs(value).max()))
    return {name: largest for name, largest in found.items() if largest > 0}


def quantised_by_ort(model: onnx.ModelProto, folder: Path) -> bytes:
    """The model as static QDQ."""
    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, source)
    quantize_static(
        source,
        target,
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return target.read_bytes()


def plan_of(model: onnx.ModelProto, args: argparse.Namespace, path: Path, **options: Any) -> Any:
    """An execution context of a plan built with these options."""
    config = bh.BuilderConfig(
        num_threads=args.threads,
        timing_cache=args.timing_cache,
        is_checked=args.check,
        **options,
    )
    bh.build(bh.import_onnx(model), config).save(path)
    return rt.load(path).create_context()


def relative_error(got: Array, wanted: Array) -> float:
    """L2 norm of the difference over that of the reference."""
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def bench_one(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Build, compare and time one topology; a row of the table."""
    model = without_softmax(TOPOLOGIES[name]())
    reader = Images()
    ranges = ranges_of(model, reader.images)
    values = reader.images[0]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        floats = plan_of(model, args, folder / "fp32.plan")
        integers = plan_of(
            model, args, folder / "int8.plan", precision="int8", dynamic_ranges=ranges
        )
        explicit = quantised_by_ort(model, folder)
        same = plan_of(onnx.load_from_string(explicit), args, folder / "qdq.plan")
        peer = ort_session(explicit, args.threads)
        wanted = floats.execute({"data": values})["logits"].copy()
        ours = relative_error(integers.execute({"data": values})["logits"], wanted)
        result = peer.run(None, {"data": values})[0]
        theirs = relative_error(result, wanted)
        apart = relative_error(same.execute({"data": values})["logits"], result)
        times = interleaved(
            [
                lambda: integers.execute({"data": values}),
                lambda: floats.execute({"data": values}),
                lambda: same.execute({"data": values}),
                lambda: peer.run(None, {"data": values}),
            ],
            seconds=args.seconds,
        )
    return row_of(name, times) | {"error": ours, "ort_error": theirs, "qdq_apart": apart}


def row_of(name: str, times: list[Latency]) -> dict[str, object]:
    """Medians, minima and ratios."""
    int8, fp32, qdq, ort = times
    return {
        "network": name,
        "int8_ms": int8.median_us / 1e3,
        "int8_p20_p80_ms": [int8.p20_us / 1e3, int8.p80_us / 1e3],
        "fp32_ms": fp32.median_us / 1e3,
        "qdq_ms": qdq.median_us / 1e3,
        "ort_int8_ms": ort.median_us / 1e3,
        "against_fp32": fp32.median_us / int8.median_us,
        "against_ort": ort.median_us / int8.median_us,
        "against_fp32_minima": fp32.min_us / int8.min_us,
        "against_ort_minima": ort.min_us / int8.min_us,
        "qdq_against_ort": ort.median_us / qdq.median_us,
        "qdq_against_ort_minima": ort.min_us / qdq.min_us,
        "num_calls": int8.num_calls,
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"default: {', '.join(NETWORKS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="timing per network")
    parser.add_argument("--timing-cache")
    parser.add_argument("--check", action="store_true", help="also check against float64")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = set(args.networks) - set(TOPOLOGIES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(TOPOLOGIES)}")
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser's advice
    rows = []
    print(
        f"{'network':16} {'int8 ms':>8} {'fp32 ms':>8} {'QDQ ms':>8} {'ORT ms':>8} {'/fp32':>6} "
        f"{'/ORT':>6} {'QDQ/ORT':>7} {'of minima':>16} {'error':>8} {'ORT err':>8} {'QDQ-ORT':>8}",
        file=sys.stderr,
    )
    for name in args.networks or NETWORKS:
        row = bench_one(name, args)
        rows.append(row)
        minima = "/".join(
            f"{row[key + '_minima']:.2f}"
            for key in ("against_fp32", "against_ort", "qdq_against_ort")
        )
        print(
            f"{name:16} {row['int8_ms']:8.2f} {row['fp32_ms']:8.2f} {row['qdq_ms']:8.2f} "
            f"{row['ort_int8_ms']:8.2f} {row['against_fp32']:6.2f} {row['against_ort']:6.2f} "
            f"{row['qdq_against_ort']:7.2f} {minima:>16} {row['error']:8.1e} "
            f"{row['ort_error']:8.1e} {row['qdq_apart']:8.1e}",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps({"threads": args.threads, "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
