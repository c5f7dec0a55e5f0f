"""Dropout: nothing at inference."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem

TYPES = ("Dropout",)


def convert(layer: CaffeLayer) -> None:
    """Another name of the bottom. NVCaffe's scale_train: false scales at inference."""
    param = layer.message.dropout_param
    if not param.scale_train:
        raise LayerProblem("scale_train: false cannot be imported; train with scale_train: true")
    layer.alias(layer.bottom)
