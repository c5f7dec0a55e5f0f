"""OnnxParser, CaffeParser and UffParser over edgeplan's importers."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

from builder_host.errors import BuilderError, ImportModelError
from builder_host.network.network import Network
from builder_host.plugins.registry import PluginRegistry
from builder_host.tensorrt.imported import ImportedModel, ImportedOnnx, Shapes
from builder_host.tensorrt.network import INetworkDefinition, ITensor, closed_shape
from builder_host.tensorrt.refused import PARSER
from runtime_edge.tensorrt.interfaces import ILogger, LogSeverity
from runtime_edge.tensorrt.refused import Refusing

# Edgeplan's own, in place of TensorRT's registry: creators of layers that models name.
PLUGINS = PluginRegistry()


class ParserError:
    """One problem of a model."""

    def __init__(self, text: str, node: int = -1) -> None:
        """Keep the text and the number of the node."""
        self._text, self._node = text, node

    def desc(self) -> str:
        """What is wrong, where, and what to do."""
        return self._text

    def node(self) -> int:
        """Number of the node, -1 when it is the model as a whole."""
        return self._node

    def __str__(self) -> str:
        """The text."""
        return self._text


class _Parser(Refusing):
    refused = PARSER

    def __init__(self) -> None:
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        """Problems of the last model."""
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        """One of them."""
        return self._errors[index]

    def clear_errors(self) -> None:
        """Forget them."""
        self._errors.clear()

    def __enter__(self) -> Any:
        """The parser itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to release."""

    def _take(self, error: BuilderError) -> None:
        problems = error.problems if isinstance(error, ImportModelError) else (str(error),)
        self._errors = [ParserError(text) for text in problems]


class OnnxParserFlag(enum.IntEnum):
    """Switches of the ONNX parser; this one imports the same layers with any of them."""

    NATIVE_INSTANCENORM = 0
    UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA = 1
    REPORT_CAPABILITY_DLA = 2
    ENABLE_PLUGIN_OVERRIDE = 3
    ADJUST_FOR_DLA = 4


class OnnxParser(_Parser):
    """Reads ONNX models into a network; the graph's outputs are marked."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        """Parse into this network."""
        super().__init__()
        self._network, self._logger = network, logger
        self.flags = 0

    def set_flag(self, flag: OnnxParserFlag) -> None:
        """Set a flag; plugins and instance normalisation need none."""
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: OnnxParserFlag) -> None:
        """Clear a flag."""
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: OnnxParserFlag) -> bool:
        """Whether a flag is set."""
        return bool(self.flags >> int(flag) & 1)

    def parse(self, model: bytes, path: str | None = None) -> bool:
        """A model from its bytes; its external data lies beside `path`."""
        return self._parse(bytes(model), _folder_of(path))

    def parse_from_file(self, path: str) -> bool:
        """A model file."""
        return self._parse(path)

    def supports_model(self, model: bytes, path: str | None = None) -> tuple[bool, list[Any]]:
        """Whether every node can be imported; the second item is kept for the API's sake."""
        from builder_host.importers.onnx.model import import_onnx

        source = bytes(model)
        try:
            shapes = {name: closed_shape(shape) for name, shape in _open_shapes(source).items()}
            import_onnx(source, shapes=shapes, plugins=PLUGINS, folder=_folder_of(path))
        except BuilderError as error:
            self._take(error)
            return False, []
        return True, []

    def _parse(self, source: str | bytes, folder: Path | None = None) -> bool:
        try:
            model = ImportedOnnx(source, folder, PLUGINS)
            network = self._network.take_import(model, _open_shapes(source))
        except BuilderError as error:
            self._take(error)
            for problem in self._errors:
                self._logger.log(LogSeverity.ERROR, problem.desc())
            return False
        for tensor in network.outputs:
            self._network.mark_output(self._network.imported_tensor(tensor.name))
        return True


def _folder_of(path: str | None) -> Path | None:
    return None if path is None else Path(path).parent


def _open_shapes(source: str | bytes) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs with open dimensions, which are -1. Raises ImportModelError."""
    from builder_host.importers.onnx.model import read_model

    _, model, _ = read_model(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and any(not dim.dim_value for dim in dims):
            shapes[value.name] = tuple(dim.dim_value or -1 for dim in dims)
    return shapes


class BlobNameToTensor:
    """Tensors of a Caffe network by blob name."""

    def __init__(self, network: INetworkDefinition, names: set[str]) -> None:
        """See `CaffeParser.parse`."""
        self._network, self._names = network, names

    def find(self, name: str) -> ITensor | None:
        """The tensor of a blob, None when there is none."""
        return self._network.imported_tensor(name) if name in self._names else None


class CaffeParser(_Parser):
    """Reads Caffe networks; mark the outputs afterwards."""

    def parse(
        self, deploy: str, model: str | None, network: INetworkDefinition, dtype: Any
    ) -> BlobNameToTensor:
        """Read a network.

        Raises:
            ImportModelError: every problem of the model.
        """
        from builder_host.importers.caffe.model import import_caffe

        del dtype  # weights are floats; the build chooses what they become
        own = import_caffe(deploy, model, plugins=PLUGINS)

        def imported(batch: int | None, shapes: Shapes) -> Network:
            if batch is not None:
                shapes = {t.name: (batch, *t.shape[1:]) for t in own.inputs}
            return import_caffe(deploy, model, shapes=shapes or None, plugins=PLUGINS)

        network.take_import(ImportedModel(imported))
        return BlobNameToTensor(network, {tensor.name for tensor in own.tensors()})

    def parse_binary_proto(self, filename: str) -> Any:
        """A mean image as an array."""
        from builder_host.importers.caffe.weights import read_binaryproto

        return read_binaryproto(filename)


class UffInputOrder(enum.Enum):
    """Order of an input's dimensions."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    NC = "NC"


class UffParser(_Parser):
    """Reads UFF networks; inputs and outputs are registered first."""

    def __init__(self) -> None:
        """Nothing is registered yet."""
        super().__init__()
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._outputs: list[str] = []
        self._order: Any = "NCHW"

    def register_input(
        self, name: str, shape: Any, order: UffInputOrder = UffInputOrder.NCHW
    ) -> bool:
        """Declare an input with its shape, without the batch; False if orders of two differ."""
        wanted = "NHWC" if order is UffInputOrder.NHWC else "NCHW"
        if self._inputs and wanted != self._order:
            text = f"input '{name}' has the order {wanted}, those before it {self._order}"
            self._errors.append(ParserError(f"{text}; one order for all is supported"))
            return False
        self._inputs[name] = tuple(shape)
        self._order = wanted
        return True

    def register_output(self, name: str) -> bool:
        """Declare an output."""
        self._outputs.append(name)
        return True

    def parse(self, file: str, network: INetworkDefinition, weights_type: Any = None) -> bool:
        """Read a network and mark the registered outputs.

        Raises:
            ImportModelError: every problem of the model.
        """
        from builder_host.importers.uff.model import import_uff

        del weights_type

        def imported(batch: int | None, shapes: Shapes) -> Network:
            own = {name: (batch or 1, *shape) for name, shape in self._inputs.items()}
            return import_uff(
                Path(file),
                shapes={**own, **shapes},
                order=self._order,
                outputs=self._outputs or None,
                plugins=PLUGINS,
            )

        for tensor in network.take_import(ImportedModel(imported)).outputs:
            network.mark_output(network.imported_tensor(tensor.name))
        return True
