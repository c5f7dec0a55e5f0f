"""Answers of inference requests: JSON, and raw tensors behind it."""

from __future__ import annotations

import json
import math
from typing import Any

from runtime_edge.serve.http_messages import JSON_TYPE, Response
from runtime_edge.serve.inference import Answer
from runtime_edge.serve.tensor_types import NAMES, json_text

TENSOR_HEADER = "Inference-Header-Content-Length"
_MARK = '"\\u0000%d"'


def infer_response(answer: Answer) -> Response:
    """The HTTP response of a request that was computed.

    Raises:
        RequestError: 400: an output cannot be sent in the form that was asked for, or written to
            the shared memory that was named for it.
    """
    work = answer.work
    if work.text is not None and work.text.answer is not None:
        first = work.deployment.num_inputs
        return _raw_response(
            work.text.answer, [_present(answer.outputs[o.index - first]) for o in work.outputs]
        )
    entries: list[dict[str, Any]] = []
    raw: list[bytes] = []
    texts: list[bytes] = []
    num_inputs = work.deployment.num_inputs
    for output in work.outputs:
        binding = work.deployment.bindings[output.index]
        data = answer.outputs[output.index - num_inputs]
        shape = work.lane.output_shape(output.index, work.rows)
        entry: dict[str, Any] = {
            "name": binding.name,
            "datatype": NAMES[binding.dtype],
            "shape": list(shape),
        }
        if output.shared is not None:
            if data is not None:
                output.shared.write(data)
            entry["parameters"] = {
                "shared_memory_region": output.shared.region.name,
                "shared_memory_byte_size": math.prod(shape) * binding.dtype.size_bytes,
            }
            if output.shared.offset:
                entry["parameters"]["shared_memory_offset"] = output.shared.offset
            entries.append(entry)
            continue
        data = _present(data)
        if output.is_binary:
            entry["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            entry["data"] = f"\0{len(texts)}"
            texts.append(json_text(data, binding.dtype, f"output '{binding.name}'"))
        entries.append(entry)
    content: dict[str, Any] = {
        "model_name": answer.plan.config.name,
        "model_version": answer.plan.config.version,
    }
    if work.id is not None:
        content["id"] = work.id
    content["outputs"] = entries
    text = json.dumps(content, separators=(",", ":")).encode()
    for number, numbers in enumerate(texts):
        # The last mark is ours: an id with the same text stands before the outputs.
        before, _, after = text.rpartition((_MARK % number).encode())
        text = before + numbers + after
    if not raw:
        return Response(200, (text,), content_type=JSON_TYPE)
    if work.text is not None and len(raw) == len(work.outputs):
        work.text.answer = text  # shapes and sizes follow from the request's text
    return _raw_response(text, raw)


def _present(data: bytes | None) -> bytes:
    """An output that is not in shared memory."""
    assert data is not None
    return data


def _raw_response(text: bytes, raw: list[bytes]) -> Response:
    return Response(
        200,
        (text, *raw),
        content_type="application/octet-stream",
        headers=((TENSOR_HEADER, str(len(text))),),
    )


def num_json_elems(answer: Answer) -> int:
    """Elements that `infer_response` will write as JSON numbers."""
    work = answer.work
    return sum(
        math.prod(work.lane.output_shape(output.index, work.rows))
        for output in work.outputs
        if not output.is_binary and output.shared is None
    )
