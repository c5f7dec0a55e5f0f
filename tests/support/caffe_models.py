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
