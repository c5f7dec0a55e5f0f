"""Build a plan of a trained SqueezeNet, classify a photograph, compare with ONNX Runtime.

python -m examples.quickstart [PICTURE]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from PIL import Image

import builder_host as bh
import runtime_edge as rt
from benchmarks.peers import interleaved, ort_session
from builder_host.cli.progress import progress_display

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
MODEL = DATA / "onnx" / "classify" / "SqueezeNet_fp16.onnx"
PICTURE = DATA / "images" / "goldfish.jpg"
LABELS = DATA / "labels" / "imagenet-simple-labels.json"
BGR_MEAN = np.array([104, 117, 123], dtype=np.float32).reshape(1, 3, 1, 1)


def read_picture(path: Path) -> np.ndarray:
    """The network's input, 1x3x224x224 float16: BGR minus the mean of the training set."""
    picture = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    bgr = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)[None, ::-1]
    return np.ascontiguousarray(bgr - BGR_MEAN).astype(np.float16)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with float32 weights: ONNX Runtime's CPU kernels want them."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in [*result.graph.input, *result.graph.output, *result.graph.value_info]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def main() -> int:
    """Run the whole story and print it."""
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    threads = len(os.sched_getaffinity(0))
    model = onnx.load(MODEL)
    values = read_picture(picture)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "squeezenet.plan"
        start = time.perf_counter()
        with progress_display(sys.stderr) as progress:
            built = bh.build(
                bh.import_onnx(MODEL), bh.BuilderConfig(num_threads=threads), progress=progress
            )
        built.save(path)
        print(f"built {path.name} in {time.perf_counter() - start:.1f} s")
        print(f"  {path.stat().st_size:,} bytes, {len(built.report.operations)} steps")
        print(f"  activation arena {built.report.arena_bytes:,} bytes", end=" ")
        print(f"(lower bound {built.report.arena_lower_bound_bytes:,})")
        for name, error in built.report.accuracy.items():
            print(f"  {name}: relative error {error:.1e} against float64")

        engine = rt.load(path)
        context = engine.create_context()
        (input_name,) = [b.name for b in engine.bindings if b.is_input]
        (output_name,) = [b.name for b in engine.bindings if not b.is_input]
        scores = context.execute({input_name: values})[output_name].reshape(-1).copy()

        labels = json.loads(LABELS.read_text())
        print(f"\n{picture.name}:")
        for index in np.argsort(-scores.astype(np.float32))[:5]:
            print(f"  {float(scores[index]):6.3f}  {labels[index]}")

        session = ort_session(widened(model).SerializeToString(), threads)
        wide = values.astype(np.float32)
        theirs = session.run([output_name], {input_name: wide})[0].reshape(-1)
        if int(np.argmax(theirs)) != int(np.argmax(scores)):
            raise SystemExit("edgeplan and ONNX Runtime disagree about the first class")
        ours, peer = interleaved(
            [
                lambda: context.execute({input_name: values}),
                lambda: session.run([output_name], {input_name: wide}),
            ],
            seconds=5.0,
        )
    print(f"\nlatency, {threads} thread(s), medians of {ours.num_calls} alternating calls:")
    print(f"  edgeplan     {ours.median_us / 1e3:7.2f} ms")
    print(f"  ONNX Runtime {peer.median_us / 1e3:7.2f} ms (float32 weights)")
    print(f"  ratio        {peer.median_us / ours.median_us:7.2f} x")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
