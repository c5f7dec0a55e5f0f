"""Where the time of a deep network goes: GoogLeNet, step by step.

python -m examples.googlenet_profile [NUM_STEPS_SHOWN]

Without a caffemodel the weights are random, which changes no time.
"""

from __future__ import annotations

import sys

import numpy as np

import builder_host as bh
import runtime_edge as rt
from examples.digits import DATA

MODEL = DATA / "caffe" / "deploy" / "bvlc_googlenet.deploy.prototxt"


def main() -> int:
    """Build by the cost model, time every step, print the slowest ones."""
    shown = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    network = bh.import_caffe(MODEL, shapes={"data": (1, 3, 224, 224)})
    config = bh.BuilderConfig(measure="none", is_checked=False)  # by the cost model
    engine = rt.load(bh.build(network, config).to_bytes())
    with engine.create_context() as context:
        data = np.zeros((1, 3, 224, 224), np.float32)
        prob = np.empty((1, 1000), np.float32)
        times = context.measure_steps({"data": data, "prob": prob}, repeats=10)
    total = sum(time.time_us for time in times)
    print(f"{'step':40} {'tactic':48} {'us':>9} {'share':>6}")
    for time in sorted(times, key=lambda t: -t.time_us)[:shown]:
        share = time.time_us / total
        print(f"{time.name[:40]:40} {time.tactic[:48]:48} {time.time_us:9.1f} {share:6.1%}")
    print(f"{len(times)} steps, {total:.1f} us in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
