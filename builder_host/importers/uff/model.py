"""`import_uff`: a UFF file becomes a Network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from builder_host.errors import ImportModelError
from builder_host.importers.uff.graph import GraphImporter
from builder_host.importers.uff.inputs import AxisOrder
from builder_host.importers.uff.reader import read_uff
from builder_host.network.network import Network
from builder_host.plugins.registry import PluginRegistry

__all__ = ["import_uff"]


def import_uff(
    path: str | Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    order: AxisOrder = "NCHW",
    outputs: Sequence[str] | None = None,
    plugins: PluginRegistry | None = None,
) -> Network:
    """Import a UFF network; shapes static, the batch explicit.

    Args:
        path: file that a TensorRT converter wrote from a TensorFlow network.
        shapes: shape per input, batch included; images in `order`, whatever the file uses inside.
            Needed where the file leaves dimensions open; an open batch is 1.
        order: of images at the network's inputs and outputs: tensors with four dimensions that
            convolutions and their like read or write. Others are as in the file.
        outputs: nodes to make outputs; default those that the file marks.
        plugins: asked for each operation before the built-in ones.

    Returns:
        The network; inputs, outputs and layers have the names of the file's nodes.

    Raises:
        ImportModelError: with every problem found: node, operation and what to do.
        ValueError: order is neither NCHW nor NHWC.
    """
    if order not in ("NCHW", "NHWC"):
        raise ValueError(f"order is '{order}', must be NCHW or NHWC")
    model = read_uff(path)
    importer = GraphImporter(model, shapes or {}, order, plugins or PluginRegistry())
    importer.run(outputs)
    if importer.problems:
        raise ImportModelError(str(path), list(dict.fromkeys(importer.problems)))
    importer.network.name = Path(path).stem
    return importer.network
