"""The door of the ONNX importer: file, bytes or ModelProto in, Network out."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

from builder_host.errors import ImportModelError
from builder_host.importers.onnx.graph import GraphImporter
from builder_host.importers.onnx.shapes import bind_inputs
from builder_host.importers.onnx.weights import TensorReader
from builder_host.network.network import Network
from builder_host.plugins.registry import PluginRegistry

_OPSETS_SINCE = 3  # older files state no opset and mean the first one
_FREE_TEXT = ("doc_string", "metadata_props", "producer_name", "producer_version")


def import_onnx(
    path_or_model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    plugins: PluginRegistry | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Network:
    """Import an ONNX model.

    Shapes become static, everything that the weights alone decide is computed now, and tensors keep
    the names of the ONNX values.

    Args:
        path_or_model: model file, its bytes, or a ModelProto.
        shapes: shape by input name, batch included, for inputs with unknown dimensions.
        outputs: values to make outputs instead of the graph's own; the rest is left out.
        plugins: asked for each operator before the built-in rules.
        folder: of external data; None: the model file's.

    Returns:
        The network; input and output names and order are those of the graph.

    Raises:
        ImportModelError: holds every problem found in the model.
    """
    label, model, own = read_model(path_or_model)
    reader = TensorReader(own if folder is None else Path(folder))
    return _imported(label, model, reader, shapes or {}, outputs, plugins)


def import_with_files(
    path: Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    plugins: PluginRegistry | None = None,
) -> tuple[Network, list[Path]]:
    """As `import_onnx` of a file, and the files of external data that were read, sorted."""
    label, model, folder = read_model(path)
    reader = TensorReader(folder)
    network = _imported(label, model, reader, shapes or {}, outputs, plugins)
    return network, [path.parent / location for location in sorted(reader.external)]


def read_model(
    path_or_model: str | os.PathLike[str] | bytes | onnx.ModelProto,
) -> tuple[str, onnx.ModelProto, Path | None]:
    """What messages call a model, the model, and the folder of its external data.

    Args:
        path_or_model: as for `import_onnx`.

    Raises:
        ImportModelError: the file cannot be read, or is no ONNX model.
    """
    if isinstance(path_or_model, onnx.ModelProto):
        return "ONNX model", path_or_model, None
    if isinstance(path_or_model, bytes):
        return "ONNX model", _decoded("ONNX model", path_or_model), None
    path = Path(path_or_model)
    try:
        return str(path), _decoded(str(path), path.read_bytes()), path.parent
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImportModelError(str(path), [f"the file cannot be read: {reason}"]) from error


def _decoded(label: str, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        text = (
            f"the {len(data):,} bytes are no ONNX model ({error}); the file was cut short or is "
            "another format"
        )
        raise ImportModelError(label, [text]) from error
    if not model.opset_import and 0 < model.ir_version < _OPSETS_SINCE:
        model.opset_import.add(version=1)
    if not model.HasField("graph") or not model.opset_import:
        text = (
            f"the {len(data):,} bytes hold no ONNX graph with an opset; the file was cut short or "
            "is another format"
        )
        raise ImportModelError(label, [text])
    damaged = _damaged_text(model)
    if damaged:
        text = f"field '{damaged}' holds no UTF-8 text; the file is damaged: fetch it again"
        raise ImportModelError(label, [text])
    return model


def _damaged_text(message: Message) -> str | None:
    """Name of a text field that holds other bytes, anywhere inside; protobuf 2 allows them."""
    for name, is_text in _text_fields(message.DESCRIPTOR):
        value = getattr(message, name)
        if isinstance(value, Message) and not message.HasField(name):
            continue  # its default, which may hold defaults without end
        values: Any = [value] if isinstance(value, str | bytes | Message) else value
        if is_text:
            if any(isinstance(v, bytes) for v in values):
                return name
            continue
        for inner in values:
            found = _damaged_text(inner)
            if found:
                return f"{name}.{found}"
    return None


@functools.cache
def _text_fields(descriptor: Any) -> tuple[tuple[str, bool], ...]:
    """Names of the fields that are text (True) or messages (False).

    Fields of bytes are left out: reading one copies its content, which may be all weights.
    """
    return tuple(
        (str(field.name), field.type == field.TYPE_STRING)
        for field in descriptor.fields
        if field.type in (field.TYPE_STRING, field.TYPE_MESSAGE) and field.name not in _FREE_TEXT
    )


def _imported(
    label: str,
    model: onnx.ModelProto,
    reader: TensorReader,
    shapes: Mapping[str, Sequence[int]],
    outputs: Sequence[str] | None,
    plugins: PluginRegistry | None,
) -> Network:
    initialized = {t.name for t in model.graph.initializer}
    initialized |= {t.values.name for t in model.graph.sparse_initializer}
    free = [i for i in model.graph.input if i.name not in initialized]
    bound, problems = bind_inputs(free, shapes)
    network = Network(model.graph.name or "onnx")
    importer = GraphImporter(model, network, reader, problems, plugins)
    importer.run(bound, [i.name for i in free], outputs)
    if problems:
        raise ImportModelError(label, problems)
    return network
