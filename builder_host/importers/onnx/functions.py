"""Function bodies: model-local functions, and operators that their schema defines by others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx

from builder_host.errors import NetworkError
from builder_host.importers.onnx.values import OptionalValue, TensorSequence, Value
from planformat.datatypes import DataType

_CODE = {
    dtype: onnx.TensorProto.DataType.Value(
        {"FLOAT32": "FLOAT", "FLOAT64": "DOUBLE"}.get(dtype.name, dtype.name)
    )
    for dtype in DataType
}


def schema_body(
    node: onnx.NodeProto,
    schema: Any,
    opset: int,
    inputs: Sequence[Value | None],
) -> onnx.FunctionProto:
    """The function body that the schema gives for this node at this opset."""
    body = onnx.FunctionProto()
    if schema.has_function:
        data = schema.get_function_with_opset_version(
            max(v for v in schema.function_opset_versions if v <= opset)
        )
    else:
        types = [_type_proto(t).SerializeToString() for t in inputs]
        versions = schema.context_dependent_function_opset_versions
        version = max(v for v in versions if v <= opset)
        data = schema.get_context_dependent_function_with_opset_version(
            version, node.SerializeToString(), types
        )
    if not data:
        raise NetworkError(f"the schema of {node.op_type} has no function body for this form")
    body.ParseFromString(data)
    return body


def _type_proto(value: Value | None) -> onnx.TypeProto:
    match value:
        case None:
            return onnx.TypeProto()
        case TensorSequence(items=items, dtype=dtype):
            code = _CODE[dtype or DataType.FLOAT32]
            shapes = {t.shape for t in items}
            shape = shapes.pop() if len(shapes) == 1 else None
            return onnx.helper.make_sequence_type_proto(
                onnx.helper.make_tensor_type_proto(code, shape)
            )
        case OptionalValue(content=content):
            return onnx.helper.make_optional_type_proto(_type_proto(content))
        case _:
            return onnx.helper.make_tensor_type_proto(_CODE[value.dtype], value.shape)


def bound_nodes(
    body: onnx.FunctionProto, attributes: Iterable[onnx.AttributeProto]
) -> list[onnx.NodeProto]:
    """Nodes of a function body with references to attributes replaced by the caller's values."""
    values = {a.name: a for a in body.attribute_proto}
    values |= {a.name: a for a in attributes}
    return [_bound(node, values) for node in body.node]


def _bound(node: onnx.NodeProto, values: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    result = onnx.NodeProto()
    result.CopyFrom(node)
    del result.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name not in values:
                continue
            kept = onnx.AttributeProto()
            kept.CopyFrom(values[attribute.ref_attr_name])
            kept.name = attribute.name
        else:
            kept = onnx.AttributeProto()
            kept.CopyFrom(attribute)
            for graph in [kept.g] if kept.HasField("g") else kept.graphs:
                nodes = [_bound(inner, values) for inner in graph.node]
                del graph.node[:]
                graph.node.extend(nodes)
        result.attribute.append(kept)
    return result
