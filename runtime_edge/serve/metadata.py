"""What the protocol tells about server and models."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runtime_edge.serve.deployment import Deployment
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.lanes import metadata_shape
from runtime_edge.serve.repository import ServedPlan
from runtime_edge.serve.tensor_types import NAMES

EXTENSIONS = (
    "binary_tensor_data",
    "statistics",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "schedule_policy",
    "system_shared_memory",
)


def server_version() -> str:
    """Of the installed distribution."""
    try:
        return version("edgeplan")
    except PackageNotFoundError:
        return "0"


def server_metadata() -> dict[str, Any]:
    """Answer of GET /v2."""
    return {"name": "edgeplan", "version": server_version(), "extensions": list(EXTENSIONS)}


def model_metadata(plan: ServedPlan) -> dict[str, Any]:
    """Answer of GET /v2/models/NAME.

    Raises:
        RequestError: 400: the plan is not loaded.
    """
    deployment = ready_deployment(plan)
    tensors = [
        {
            "name": binding.name,
            "datatype": NAMES[binding.dtype],
            "shape": metadata_shape(deployment.lanes, index),
        }
        for index, binding in enumerate(deployment.bindings)
    ]
    return {
        "name": plan.config.name,
        "versions": [plan.config.version],
        "platform": "edgeplan_plan",
        "inputs": tensors[: deployment.num_inputs],
        "outputs": tensors[deployment.num_inputs :],
    }


def model_config(plan: ServedPlan) -> dict[str, Any]:
    """Answer of GET /v2/models/NAME/config, in Triton's words.

    Raises:
        RequestError: 400: the plan is not loaded.
    """
    deployment = ready_deployment(plan)
    is_batched = deployment.lanes[0].is_batched
    tensors = []
    for index, binding in enumerate(deployment.bindings):
        shape = metadata_shape(deployment.lanes, index)
        tensors.append(
            {
                "name": binding.name,
                "data_type": "TYPE_" + NAMES[binding.dtype],
                "dims": shape[1:] if is_batched else shape,
            }
        )
    config: dict[str, Any] = {
        "name": plan.config.name,
        "platform": "edgeplan_plan",
        "backend": "edgeplan",
        "max_batch_size": deployment.lanes[0].max_rows if is_batched else 0,
        "input": tensors[: deployment.num_inputs],
        "output": tensors[deployment.num_inputs :],
        "instance_group": [{"name": plan.config.name, "count": 1, "kind": _kind(deployment)}],
    }
    if is_batched:
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": int(plan.config.batch_delay_us),
            "priority_levels": plan.config.priority_levels,
            "default_priority_level": plan.config.default_priority,
        }
    return config


def index_entry(plan: ServedPlan) -> dict[str, str]:
    """Entry of POST /v2/repository/index."""
    return {
        "name": plan.config.name,
        "version": plan.config.version,
        "state": plan.state,
        "reason": plan.reason,
    }


def ready_deployment(plan: ServedPlan) -> Deployment:
    """The version that serves now.

    Raises:
        RequestError: 400: there is none.
    """
    if plan.deployment is None:
        raise RequestError(400, f"model '{plan.config.name}' is not ready: {plan.reason}")
    return plan.deployment


def _kind(deployment: Deployment) -> str:
    return "KIND_GPU" if deployment.engine.device.kind == "cuda" else "KIND_CPU"
