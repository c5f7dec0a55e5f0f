"""LeNet from Caffe; pixels are scaled inside the network.

python -m examples.caffe_mnist
"""

from __future__ import annotations

import numpy as np

import builder_host as bh
import runtime_edge as rt
from builder_host.network.editing import insert_before
from builder_host.network.layers.scale import ScaleParams
from examples.digits import DATA, read_digits

LENET = DATA / "caffe" / "lenet"

QUICK = bh.BuilderConfig(measure="none")  # leave this out to time every kernel


def main() -> int:
    """Build, save, load, read ten digits."""
    network = bh.import_caffe(
        LENET / "lenet.prototxt",
        LENET / "lenet_iter_9000.caffemodel",
        shapes={"data": (10, 1, 28, 28)},
    )
    # The network was trained on pixels / 256: put the division in front of its first layer.
    first = network.layers[0]
    (pixels,) = network.inputs
    factor = network.add_constant(np.full((1, 1, 1, 1), 1 / 256, np.float32), "pixel_scale")
    scale = ScaleParams(has_shift=False, has_scale=True, has_power=False)
    scaled = insert_before(network, first, "scale", scale, [pixels, factor], "scaled")
    first.inputs[0] = scaled.output

    engine = rt.load(bh.build(network, QUICK).to_bytes())
    with engine.create_context() as context:
        outputs = context.execute({"data": read_digits()[:, None].astype(np.float32)})
        for digit, prob in enumerate(outputs["prob"]):
            print(f"{digit}.pgm: {prob.argmax()} with probability {prob.max():.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
