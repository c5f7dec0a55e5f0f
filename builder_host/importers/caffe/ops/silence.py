"""Silence: reads blobs so that they are no outputs."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer

TYPES = ("Silence",)


def convert(layer: CaffeLayer) -> None:
    """Nothing is made."""
    del layer
