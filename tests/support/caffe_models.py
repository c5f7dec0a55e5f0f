"""Small Caffe models written for a test: prototxt text and arrays become a pair of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.importers.caffe import schema
from builder_host.importers.caffe.model import import_caffe
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network

Array = npt.NDArray[Any]

# What the published prototxt files of tests/data/caffe/deploy leave to the caller.
TOPOLOGY_OPTIONS: dict[str, dict[str, Any]] = {
    "bvlc_googlenet.train_val.prototxt": {"shapes": {"data": (1, 3, 224, 224)}},
    "cifar10_full_sigmoid_train_test_bn.prototxt": {"shapes": {"data": (1, 3, 32, 32)}},
    "lenet_train_test.prototxt": {"shapes": {"data": (1, 1, 28, 28)}},
    "lrcn.prototxt": {
        "shapes": {
            "data": (2, 3, 227, 227),
            "cont_sentence": (3, 2),
            "input_sentence": (3, 2),
        },
        "stages": ["test-on-train", "freeze-convnet", "factored", "2-layer"],
    },
    "mnist_autoencoder.prototxt": {
        "shapes": {"data": (1, 1, 28, 28)},
        "stages": ["test-on-test"],
        "outputs": ["decode1neuron"],
    },
    "mnist_siamese_train_test.prototxt": {"shapes": {"pair_data": (1, 2, 28, 28)}},
    "s2vt.prototxt": {
        "shapes": {
            "cont_sentence": (80, 32),
            "input_sentence": (80, 32),
            "stage_indicator": (80, 32),
            "frame_fc7": (80, 32, 4096),
        },
        "stages": ["test-on-val", "factored", "2-layer"],
    },
    "siftflow-fcn8s.test.prototxt": {"shapes": {"data": (1, 3, 64, 64)}},
    "squeezenet_v1.1.train_val.prototxt": {"shapes": {"data": (1, 3, 227, 227)}},
}


def write_model(
    folder: Path, text: str, blobs: Mapping[str, Sequence[Array]] | None = None
) -> tuple[Path, Path | None]:
    """Write `m.prototxt`, and `m.caffemodel` when blobs per layer name are given."""
    prototxt = folder / "m.prototxt"
    prototxt.write_text(text)
    if blobs is None:
        return prototxt, None
    net = schema.message_class("NetParameter")()
    for name, arrays in blobs.items():
        layer = net.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add()
            blob.shape.dim.extend(np.shape(array))
            blob.data.extend(np.ravel(array).tolist())
    caffemodel = folder / "m.caffemodel"
    caffemodel.write_bytes(net.SerializeToString())
    return prototxt, caffemodel


def import_text(
    folder: Path, text: str, blobs: Mapping[str, Sequence[Array]] | None = None, **options: Any
) -> Network:
    """Import a model given as text."""
    return import_caffe(*write_model(folder, text, blobs), **options)


def with_inputs(shapes: Mapping[str, Sequence[int]], layers: str) -> str:
    """Prototxt text with Input layers before `layers`."""
    inputs = [
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {d}" for d in shape)
        + " } } }\n"
        for name, shape in shapes.items()
    ]
    return "".join(inputs) + layers


def run_layer(
    folder: Path,
    body: str,
    inputs: Mapping[str, Array],
    blobs: Sequence[Array] | None = None,
    tops: Sequence[str] = ("y",),
) -> list[Array]:
    """Outputs in float64 of one layer `t` with the given `type:` and parameters."""
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    made = " ".join(f'top: "{name}"' for name in tops)
    text = with_inputs(
        {name: array.shape for name, array in inputs.items()},
        f'layer {{ name: "t" {bottoms} {made} {body} }}\n',
    )
    network = import_text(folder, text, None if blobs is None else {"t": blobs}, outputs=tops)
    results = evaluate_network(network, inputs)
    return [results[name] for name in tops]
