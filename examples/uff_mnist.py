"""An MNIST network that TensorFlow trained and TensorRT's converter wrote as UFF.

python -m examples.uff_mnist
"""

from __future__ import annotations

import numpy as np

import builder_host as bh
import runtime_edge as rt
from examples.digits import DATA, read_digits

MODEL = DATA / "uff" / "allcnn" / "all_cnn.uff"

QUICK = bh.BuilderConfig(measure="none")  # leave this out to time every kernel


def main() -> int:
    """Register the input, which the file leaves open, and read ten digits."""
    # Inside, the network has its channels last; at its bindings images are NCHW unless
    # order="NHWC" is given.
    network = bh.import_uff(MODEL, shapes={"input_layer_1": (10, 1, 28, 28)})
    engine = rt.load(bh.build(network, QUICK).to_bytes())
    with engine.create_context() as context:
        pictures = read_digits()[:, None].astype(np.float32)
        outputs = context.execute({"input_layer_1": pictures})
        for digit, prob in enumerate(outputs["AllCNN/Softmax"]):
            print(f"{digit}.pgm: {prob.argmax()} with probability {prob.max():.4f}")
    return 0  # this little network takes the 6 for a 0


if __name__ == "__main__":
    raise SystemExit(main())
