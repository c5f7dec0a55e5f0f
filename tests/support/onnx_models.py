"""Small ONNX models made in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from builder_host.errors import ImportModelError
from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network

Array = np.ndarray[Any, Any]
FLOAT = TensorProto.FLOAT


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 13,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of float inputs; unchecked on purpose, so that broken ones can be made."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, FLOAT, list(s)) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def single(
    op_type: str,
    x: Array,
    constants: Sequence[Any] = (),
    *,
    opset: int = 13,
    outputs: int = 1,
    **attributes: Any,
) -> list[Array]:
    """Outputs of one operator on `x` and constant further inputs (None leaves one out)."""
    names = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(constants))]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, **attributes)
    known = {f"c{i}": c for i, c in enumerate(constants) if c is not None}
    network = import_onnx(model([node], {"x": x.shape}, results, known, opset=opset))
    values = evaluate_network(network, {"x": x})
    return [values[name] for name in results]


def problems_of(model_or_bytes: Any, **options: Any) -> tuple[str, ...]:
    """Problems that the import reports; fails when there are none."""
    try:
        import_onnx(model_or_bytes, **options)
    except ImportModelError as error:
        return error.problems
    raise AssertionError("the import was expected to fail")


def frozen(case: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with some inputs made initialisers."""
    result = onnx.ModelProto()
    result.CopyFrom(case)
    for name, value in values.items():
        result.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    kept = [i for i in result.graph.input if i.name not in values]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    return result
