"""Failed executions written down for `edgeplan replay`, a bounded number of them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from planformat.datatypes import DataType, TensorFormat
from runtime_edge.capture import (
    Capture,
    CapturedError,
    CapturedOptions,
    CapturedTensor,
    captured_plan,
    write_capture,
)
from runtime_edge.cli import version
from runtime_edge.errors import CaptureError

if TYPE_CHECKING:
    from runtime_edge.serve.deployment import Deployment
    from runtime_edge.serve.infer_work import InferWork

_log = logging.getLogger(__name__)

MAX_CAPTURES = 16
"""Of one plan; the first ones tell the most, later ones are not kept."""


def keep_failure(deployment: Deployment, work: InferWork, error: Exception) -> str | None:
    """Write one request of a failed execution to the plan's folder of captures.

    On the stream's thread, which has nothing better to do then; a disk or memory that fails too
    must not harm the daemon, so that it is only logged.

    Args:
        deployment: that ran; its `config.capture_failures` is the folder.
        work: the request, with its inputs.
        error: that the execution ended with.

    Returns:
        The folder of the capture; None when there are `MAX_CAPTURES` already, or on failure.
    """
    config = deployment.config
    try:
        os.makedirs(config.capture_failures, exist_ok=True)
        folder = next(
            (
                place
                for number in range(MAX_CAPTURES)
                if not os.path.exists(
                    place := os.path.join(config.capture_failures, f"{config.name}-{number}")
                )
            ),
            None,
        )
        if folder is None:
            return None
        write_capture(_capture(deployment, work, error), folder)
    except (OSError, MemoryError, CaptureError) as problem:
        _log.error("plan %s: the failure could not be captured: %r", config.name, problem)
        return None
    _log.error("plan %s: the failed request is in %s", config.name, folder)
    return folder


def _capture(deployment: Deployment, work: InferWork, error: Exception) -> Capture:
    config, lane = deployment.config, work.lane
    fingerprint = deployment.engine.fingerprint
    return Capture(
        version=version(),
        plan=captured_plan(deployment.path),
        options=CapturedOptions(
            profile=None if lane.is_batched else lane.profiles[0],
            threads=config.threads or None,
            device=config.device or None,
            allow=config.allow,
        ),
        device_kind=fingerprint.device_kind,
        fingerprint=fingerprint.fields,
        inputs=tuple(
            CapturedTensor(
                binding.name,
                _numpy_name(binding.dtype),
                lane.output_shape(index, work.rows)
                if binding.format is TensorFormat.LINEAR
                else (len(tensor.data) // binding.dtype.size_bytes,),
                bytes(tensor.data),
            )
            for index, (binding, tensor) in enumerate(
                zip(deployment.bindings, work.tensors, strict=False)
            )
        ),
        error=CapturedError(type(error).__name__, str(error)),
    )


def _numpy_name(dtype: DataType) -> str:
    """As `CapturedTensor` names element types."""
    return "uint16" if dtype is DataType.BFLOAT16 else dtype.name.lower()
