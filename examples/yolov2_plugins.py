"""The head of YOLOv2 twice: by plugins with kernels of their own, and by built-in layers.

python -m examples.yolov2_plugins
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import builder_host as bh
import runtime_edge as rt
from builder_host.plugins import load_plugins

HERE = Path(__file__).parent / "plugins"

QUICK = bh.BuilderConfig(measure="none")  # leave this out to time every kernel


def main() -> int:
    """Build both, run both on the same feature maps, compare."""
    generator = np.random.default_rng(0)
    inputs = {
        "fine": generator.standard_normal((1, 16, 26, 26)).astype(np.float32),
        "coarse": generator.standard_normal((1, 64, 13, 13)).astype(np.float32),
    }
    results = {}
    for name, plugins in (("plugins", load_plugins([HERE / "yolov2.py"])), ("built in", None)):
        network = bh.import_caffe(HERE / "yolov2_head.prototxt", plugins=plugins)
        built = bh.build(network, QUICK)
        print(f"{name}:")
        for row in built.report.operations:
            print(f"  {row.name:32} {row.tactic}")
        for key, value in built.plan.provenance.items():
            if key.startswith("plugin "):
                print(f"  the plan says: {key} {value}")
        engine = rt.load(built.to_bytes())  # no plugin file is read here, nor on a board
        with engine.create_context() as context:
            results[name] = context.execute(inputs)["boxes"].copy()
    difference = float(np.abs(results["plugins"] - results["built in"]).max())
    print(f"largest difference {difference:.1e}")
    return 0 if difference < 1e-5 else 1


if __name__ == "__main__":
    raise SystemExit(main())
