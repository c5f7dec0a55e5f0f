"""Inference requests and answers as gRPC messages."""

from __future__ import annotations

import math
from typing import Any

from runtime_edge.serve.bodies import Body, BodyPool
from runtime_edge.serve.deployment import Deployment
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.grpc_messages import message_class
from runtime_edge.serve.infer_request import check_infer
from runtime_edge.serve.infer_work import InferWork
from runtime_edge.serve.inference import Answer
from runtime_edge.serve.shared_memory import SharedMemoryRegions
from runtime_edge.serve.tensor_types import NAMES

_TYPED = (
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
)


def infer_work(
    deployment: Deployment, request: Any, bodies: BodyPool, regions: SharedMemoryRegions | None
) -> InferWork:
    """Check a `ModelInferRequest` against a plan.

    Args:
        deployment: the plan.
        request: raw or typed contents, or shared memory.
        bodies: memory for the raw inputs, aligned and counted.
        regions: registered shared memory, None where that is off.

    Raises:
        RequestError: 400, with what is wrong; 503: no memory now.
    """
    raw = list(request.raw_input_contents)
    content: dict[str, Any] = {"parameters": _parameters(request.parameters), "inputs": []}
    if request.id:
        content["id"] = request.id
    if request.outputs:
        content["outputs"] = [
            {"name": o.name, "parameters": _parameters(o.parameters)} for o in request.outputs
        ]
    parts: list[bytes] = []
    for tensor in request.inputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": _parameters(tensor.parameters),
        }
        if "shared_memory_region" not in entry["parameters"]:
            if request.raw_input_contents:
                if not raw:
                    raise RequestError(400, f"input '{tensor.name:.80}': has no raw contents")
                parts.append(raw.pop(0))
                entry["parameters"]["binary_data_size"] = len(parts[-1])
            else:
                entry["data"] = _typed_contents(tensor)
        content["inputs"].append(entry)
    if raw:
        raise RequestError(400, f"{len(raw)} raw_input_contents belong to no input")
    body = _joined(parts, bodies)
    if body is None:
        return check_infer(deployment, content, memoryview(b""), 0, 0, regions)
    try:
        work = check_infer(deployment, content, body.view, body.address, 0, regions)
    except BaseException:
        body.release()
        raise
    work.holds.append(body)
    return work


def _joined(parts: list[bytes], bodies: BodyPool) -> Body | None:
    """The raw inputs behind each other; None of nothing."""
    nbytes = sum(map(len, parts))
    if nbytes == 0:
        return None
    body = bodies.take(nbytes)
    if body is None:
        raise bodies.refusal(nbytes)
    at = 0
    for part in parts:
        body.view[at : at + len(part)] = part
        at += len(part)
    return body


def infer_message(answer: Answer) -> Any:
    """`ModelInferResponse` of a request that was computed; outputs are raw.

    Raises:
        RequestError: 400: an output cannot be written to the shared memory that was named for it.
    """
    work = answer.work
    response = message_class("ModelInferResponse")(
        model_name=answer.plan.config.name,
        model_version=answer.plan.config.version,
        id=work.id or "",
    )
    num_inputs = work.deployment.num_inputs
    for output in work.outputs:
        binding = work.deployment.bindings[output.index]
        data = answer.outputs[output.index - num_inputs]
        shape = work.lane.output_shape(output.index, work.rows)
        tensor = response.outputs.add(
            name=binding.name,
            datatype=NAMES[binding.dtype],
            shape=shape,
        )
        if output.shared is None:
            assert data is not None
            response.raw_output_contents.append(data)
            continue
        if data is not None:
            output.shared.write(data)
        tensor.parameters["shared_memory_region"].string_param = output.shared.region.name
        tensor.parameters["shared_memory_byte_size"].int64_param = (
            math.prod(shape) * binding.dtype.size_bytes
        )
    return response


def _parameters(given: Any) -> dict[str, Any]:
    parameters = {}
    for name, value in given.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise RequestError(400, f"parameter '{name:.80}' has no value")
        parameters[name] = getattr(value, choice)
    return parameters


def _typed_contents(tensor: Any) -> list[Any]:
    """Elements of the one list that is filled; an empty list for a tensor without elements."""
    filled = [name for name in _TYPED if len(getattr(tensor.contents, name))]
    if tensor.contents.bytes_contents or len(filled) > 1:
        raise RequestError(
            400, f"input '{tensor.name:.80}': contents must be of its datatype alone"
        )
    if not filled:
        if math.prod(tensor.shape):
            raise RequestError(400, f"input '{tensor.name:.80}': has no contents")
        return []
    return list(getattr(tensor.contents, filled[0]))
