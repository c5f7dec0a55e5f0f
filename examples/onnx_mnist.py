"""The MNIST network of the ONNX model zoo.

python -m examples.onnx_mnist
"""

from __future__ import annotations

import numpy as np

import builder_host as bh
import runtime_edge as rt
from examples.digits import DATA, read_digits

MODEL = DATA / "onnx" / "mnist" / "mnist-8.onnx"

QUICK = bh.BuilderConfig(measure="none")  # leave this out to time every kernel


def main() -> int:
    """Read ten digits one by one."""
    engine = rt.load(bh.build(bh.import_onnx(MODEL), QUICK).to_bytes())
    (name,) = [b.name for b in engine.bindings if b.is_input]
    with engine.create_context() as context:
        for digit, picture in enumerate(read_digits()):
            (scores,) = context.execute({name: picture[None, None].astype(np.float32)}).values()
            print(f"{digit}.pgm: {scores.argmax()} with score {scores.max():.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
