"""LeNet in 8 bits: calibrated on a hundred digits, compared with float32 on nine hundred others.

python -m examples.int8_mnist
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import builder_host as bh
import runtime_edge as rt
from builder_host.calibration.collect import calibrate
from builder_host.calibration.thresholds import find_calibrator
from examples.digits import DATA

LENET = DATA / "caffe" / "lenet"
BATCH, CALIBRATED = 100, 100
QUICK = bh.BuilderConfig(measure="none", is_checked=False)  # leave `measure` out to time kernels


def main() -> int:
    """Print how many digits each plan reads, and how large its weights are."""
    digits = np.load(DATA / "images" / "mnist" / "t10k_first1000.npz")
    images = digits["images"][:, None].astype(np.float32) / np.float32(256)
    network = bh.import_caffe(
        LENET / "lenet.prototxt",
        LENET / "lenet_iter_9000.caffemodel",
        shapes={"data": (BATCH, 1, 28, 28)},
    )
    samples = ({"data": image[None]} for image in images[:CALIBRATED])
    table = calibrate(network, samples, find_calibrator("entropy"), config=QUICK)
    for config in (QUICK, replace(QUICK, precision="int8", calibration=table)):
        engine = rt.load(bh.build(network, config).to_bytes())
        right = _num_right(engine, images[CALIBRATED:], digits["labels"][CALIBRATED:])
        print(f"{config.precision}: {right} of 900 right, weights {engine.weights_bytes:,} bytes")
    return 0


def _num_right(engine: rt.Engine, images: Any, labels: Any) -> int:
    with engine.create_context() as context:
        answers = [
            context.execute({"data": images[start : start + BATCH]})["prob"].argmax(1)
            for start in range(0, len(images), BATCH)
        ]
    return int((np.concatenate(answers) == labels).sum())


if __name__ == "__main__":
    raise SystemExit(main())
