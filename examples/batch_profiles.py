"""One plan for several batch sizes: profiles share the weights, the runtime picks and splits.

python -m examples.batch_profiles
"""

from __future__ import annotations

import numpy as np

import builder_host as bh
import runtime_edge as rt
from examples.digits import DATA

LENET = DATA / "caffe" / "lenet"
SIZES = (1, 4, 8)
QUICK = bh.BuilderConfig(measure="none")  # leave this out to time every kernel


def main() -> int:
    """Build for batches of 1, 4 and 8; classify 1, 3, 8 and 50 test pictures."""
    files = (LENET / "lenet.prototxt", LENET / "lenet_iter_9000.caffemodel")
    networks = {
        f"batch{size}": bh.import_caffe(*files, shapes={"data": (size, 1, 28, 28)})
        for size in SIZES
    }
    alone = len(bh.build(networks["batch1"], QUICK).to_bytes())
    data = bh.build(networks, QUICK).to_bytes()
    print(f"one profile {alone:,} B, three {len(data):,} B")

    stored = np.load(DATA / "images" / "mnist" / "t10k_first1000.npz")
    images = next(a for a in stored.values() if a.ndim == 3)
    labels = next(a for a in stored.values() if a.ndim == 1)
    with rt.load(data) as engine, rt.BatchRunner(engine) as runner:
        for count in (1, 3, 8, 50):
            pictures = images[:count, None].astype(np.float32) / 256
            prob = runner.run({"data": pictures})["prob"]
            right = int((prob.argmax(1) == labels[:count]).sum())
            print(f"{count} pictures: {right} right")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
