"""Filter: items of the batch whose selector is not 0; the selector must be a constant."""

from __future__ import annotations

import numpy as np

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.gather import GatherParams

TYPES = ("Filter",)


def convert(layer: CaffeLayer) -> None:
    """All bottoms but the last, without the items whose selector (the last bottom) is 0."""
    if len(layer.bottoms) < 2 or len(layer.top_names) != len(layer.bottoms) - 1:
        raise LayerProblem(
            f"has {len(layer.bottoms)} bottoms and {len(layer.top_names)} tops; it takes one top "
            "per bottom, and a selector behind the bottoms"
        )
    *sources, selector = layer.bottoms
    if selector.values is None:
        raise LayerProblem(
            "the selector is computed, so the batch of the tops depends on the data; a plan has "
            "fixed shapes: cut the network before it with outputs=[...] (--outputs)"
        )
    chosen = np.flatnonzero(selector.values)
    if not chosen.size:
        raise LayerProblem("the selector leaves no item")
    for top, source in enumerate(sources):
        if not source.shape or source.shape[0] != selector.values.size:
            raise LayerProblem(
                f"the selector has {selector.values.size} items, bottom {top} is "
                f"{shape_text(source)}"
            )
        indices = layer.network.add_constant(chosen.astype(np.int64), f"{layer.name}.items{top}")
        if source.values is not None:
            layer.alias(layer.constant(source.values[chosen], f"chosen{top}"), top)
        else:
            layer.emit("gather", GatherParams(0), [source, indices], top)
