"""LeNet by Python calls, with weights from a text file.

python -m examples.mnist_api [WEIGHTS.wts]

A .wts file has the number of arrays in its first line, then a line for each: name, element type
(0: float32), number of elements, and the elements as hexadecimal words.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

import builder_host as bh
import runtime_edge as rt
from builder_host.importers.caffe.weights import read_caffemodel
from examples.digits import DATA, read_digits

Array = npt.NDArray[np.float32]

QUICK = bh.BuilderConfig(measure="none")  # leave this out to time every kernel


def write_wts(path: Path, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Write arrays in the format above."""
    lines = [str(len(arrays))]
    for name, values in arrays.items():
        words = np.ascontiguousarray(values, "<f4").view("<u4").reshape(-1)
        lines.append(" ".join([name, "0", str(words.size), *(f"{word:x}" for word in words)]))
    path.write_text("\n".join(lines) + "\n")


def read_wts(path: Path) -> dict[str, Array]:
    """Arrays by name, one-dimensional."""
    first, *lines = path.read_text().splitlines()
    if len(lines) != int(first):
        raise SystemExit(f"{path} has {len(lines)} arrays, its first line says {first}")
    arrays = {}
    for line in lines:
        name, kind, count, *words = line.split()
        if kind != "0" or len(words) != int(count):
            raise SystemExit(f"{path}: '{name}' has type {kind} and {len(words)} of {count} words")
        arrays[name] = np.array([int(word, 16) for word in words], "<u4").view("<f4")
    return arrays


def lenet(weights: Mapping[str, Array], batch: int) -> bh.Network:
    """The network of TensorRT's MNIST sample; the API brings arrays into the shapes it needs."""
    network = bh.Network("lenet")
    x = network.add_input("data", (batch, 1, 28, 28))
    x = network.add_scale(x, "uniform", scale=1 / 256).output
    x = network.add_convolution(x, 20, 5, weights["conv1filter"], weights["conv1bias"]).output
    x = network.add_pooling(x, "max", 2, strides=2).output
    x = network.add_convolution(x, 50, 5, weights["conv2filter"], weights["conv2bias"]).output
    x = network.add_pooling(x, "max", 2, strides=2).output
    x = network.add_fully_connected(x, 500, weights["ip1filter"], weights["ip1bias"]).output
    x = network.add_activation(x, "relu").output
    x = network.add_fully_connected(x, 10, weights["ip2filter"], weights["ip2bias"]).output
    network.mark_output(network.add_softmax(x, 1).output, "prob")
    return network


def main() -> int:
    """Write the weights file if none is given, read it, build, read ten digits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "lenet.wts"
        if not path.exists():
            model = read_caffemodel(DATA / "caffe" / "lenet" / "lenet_iter_9000.caffemodel")
            blobs = {
                f"{layer}{role}": array
                for layer in ("conv1", "conv2", "ip1", "ip2")
                for role, array in zip(("filter", "bias"), model.blobs[layer], strict=True)
            }
            write_wts(path, blobs)
        weights = read_wts(path)
    engine = rt.load(bh.build(lenet(weights, batch=10), QUICK).to_bytes())
    with engine.create_context() as context:
        outputs = context.execute({"data": read_digits()[:, None].astype(np.float32)})
        for digit, prob in enumerate(outputs["prob"]):
            print(f"{digit}.pgm: {prob.argmax()} with probability {prob.max():.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
