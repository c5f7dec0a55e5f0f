"""SqueezeNet from Caffe with the mean image of its training set subtracted inside the network.

python -m examples.caffe_mean
"""

from __future__ import annotations

import json

import numpy as np

import builder_host as bh
import runtime_edge as rt
from builder_host.network.editing import insert_before
from builder_host.network.layers.elementwise import ElementwiseParams
from examples.digits import DATA

MODEL = DATA / "caffe" / "squeezenet_v1.1"
LABELS = DATA / "labels" / "imagenet-simple-labels.json"

QUICK = bh.BuilderConfig(measure="none")  # leave this out to time every kernel


def main() -> int:
    """Classify four photographs, raw BGR pixels in."""
    photographs = np.load(MODEL / "four.in.npy")  # uint8 [4, 3, 227, 227]
    network = bh.import_caffe(
        MODEL / "deploy.prototxt",
        MODEL / "squeezenet_v1.1_fp16w.caffemodel",
        shapes={"data": photographs.shape},
    )
    # The stored mean is 256x256; the network sees the middle of it.
    mean = bh.read_binaryproto(DATA / "caffe" / "mean" / "ilsvrc_2012_mean.binaryproto")
    start = (mean.shape[2] - photographs.shape[2]) // 2
    middle = mean[:, :, start : start + 227, start : start + 227]

    first = network.layers[0]
    (pixels,) = network.inputs
    image = network.add_constant(middle, "mean_image")
    centred = insert_before(
        network, first, "elementwise", ElementwiseParams("sub"), [pixels, image], "centred"
    )
    first.inputs[0] = centred.output

    engine = rt.load(bh.build(network, QUICK).to_bytes())
    labels = json.loads(LABELS.read_text())
    with engine.create_context() as context:
        prob = context.execute({"data": photographs.astype(np.float32)})["prob"].reshape(4, -1)
        for scores in prob:
            best = int(scores.argmax())
            print(f"class {best} {labels[best]}: {scores[best]:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
