"""Split: every top is another name of the bottom."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer

TYPES = ("Split",)


def convert(layer: CaffeLayer) -> None:
    """No layer is made."""
    for top in range(len(layer.top_names)):
        layer.alias(layer.bottom, top)
