"""The importer that a file's ending names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder_host.errors import BuilderError
from builder_host.network.network import Network
from builder_host.network.origin import origin_of_files
from builder_host.plugins.registry import PluginRegistry

if TYPE_CHECKING:
    from builder_host.importers.uff.inputs import AxisOrder

ENDINGS = (".onnx", ".pb", ".prototxt", ".uff")


def import_model_file(
    model: str | Path,
    weights: str | Path | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    uff_order: AxisOrder = "NCHW",
    plugins: PluginRegistry | None = None,
) -> Network:
    """Import a model by one of `ENDINGS`.

    Args:
        model: network file.
        weights: caffemodel of a prototxt.
        shapes: per input, batch included.
        outputs: tensors to make outputs instead of the model's own.
        uff_order: order of images at the inputs and outputs of a UFF network.
        plugins: asked before the built-in operators.

    Raises:
        BuilderError: a missing file, an unknown ending, weights that the format does not take.
        ImportModelError: with every problem of the model.
    """
    paths = [Path(model), *((Path(weights),) if weights else ())]
    for one in paths:
        if not one.is_file():
            raise BuilderError(f"{one}: no such file")
    network, external = _imported(
        paths[0], weights, shapes=shapes, outputs=outputs, uff_order=uff_order, plugins=plugins
    )
    network.origin = origin_of_files([*paths, *external], outputs=outputs, image_order=uff_order)
    return network


def _imported(
    path: Path,
    weights: str | Path | None,
    *,
    shapes: Mapping[str, Sequence[int]] | None,
    outputs: Sequence[str] | None,
    uff_order: AxisOrder,
    plugins: PluginRegistry | None,
) -> tuple[Network, list[Path]]:
    """The network, and files that the model names and that were read."""
    if path.suffix not in ENDINGS:
        raise BuilderError(
            f"{path}: unknown kind of model '{path.suffix}'; expected {', '.join(ENDINGS)}"
        )
    if path.suffix == ".prototxt":
        from builder_host.importers.caffe.model import import_caffe

        return import_caffe(path, weights, shapes=shapes, outputs=outputs, plugins=plugins), []
    if weights is not None:
        raise BuilderError(f"{weights}: a {path.suffix} model holds its weights; give one file")
    if path.suffix == ".onnx":
        from builder_host.importers.onnx.model import import_with_files

        return import_with_files(path, shapes=shapes, outputs=outputs, plugins=plugins)
    if path.suffix == ".pb":
        from builder_host.importers.tensorflow.model import import_tensorflow

        return import_tensorflow(path, shapes=shapes, outputs=outputs, plugins=plugins), []
    from builder_host.importers.uff.model import import_uff

    network = import_uff(path, shapes=shapes, order=uff_order, outputs=outputs, plugins=plugins)
    return network, []
