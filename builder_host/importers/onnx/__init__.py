"""ONNX importer: a `.onnx` file or a ModelProto becomes a Network.

`model.py` is the door; `graph.py` walks the nodes; each module in `ops/` translates one operator or
one tight family of operators and is found by its place.
"""

from builder_host.importers.onnx.model import import_onnx

__all__ = ["import_onnx"]
