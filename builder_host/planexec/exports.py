"""JSON files in the shapes that scripts written for trtexec read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder_host.planexec.inference import Query
from planformat.details import plan_details
from planformat.plan import Plan
from runtime_edge.context import StepTime


def write_json(path: str, content: Any) -> None:
    """Write a file that ends with a line end."""
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def times(queries: Sequence[Query]) -> list[dict[str, float]]:
    """`--exportTimes`."""
    return [
        {
            "startEnqMs": q.start_enqueue,
            "endEnqMs": q.end_enqueue,
            "startH2dMs": q.start_h2d,
            "endH2dMs": q.end_h2d,
            "startComputeMs": q.start_compute,
            "endComputeMs": q.end_compute,
            "startD2hMs": q.start_d2h,
            "endD2hMs": q.end_d2h,
            "h2dMs": q.h2d,
            "computeMs": q.compute,
            "d2hMs": q.d2h,
            "latencyMs": q.latency,
        }
        for q in queries
    ]


def outputs(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`--exportOutput`."""
    return [
        {
            "name": name,
            "dimensions": "x".join(map(str, array.shape)),
            "values": array.reshape(-1).tolist(),
        }
        for name, array in arrays.items()
    ]


def profile(steps: Sequence[StepTime], repeats: int) -> list[dict[str, Any]]:
    """`--exportProfile`: times are the medians over the repeats."""
    total = sum(step.time_us for step in steps) or 1.0
    return [
        {"count": repeats},
        *(
            {
                "name": step.name,
                "timeMs": step.time_us * repeats / 1e3,
                "averageMs": step.time_us / 1e3,
                "medianMs": step.time_us / 1e3,
                "percentage": step.time_us / total * 100,
            }
            for step in steps
        ),
    ]


def layer_info(plan: Plan, variant: int, number: int) -> dict[str, Any]:
    """`--exportLayerInfo`: one entry per operation of a profile."""
    details = plan_details(plan)
    if details is None:
        names = [step.name for step in plan.variants[variant].profiles[number].steps]
        return {"Layers": names, "Bindings": [binding.name for binding in plan.bindings]}
    layers = [
        {
            "Name": operation.name,
            "LayerType": operation.kind,
            "Inputs": [
                {"Name": t.name, "Format/Datatype": t.layout}
                for t in operation.inputs
                if not t.is_constant
            ],
            "Outputs": [{"Name": t.name, "Format/Datatype": t.layout} for t in operation.outputs],
            "ParameterText": operation.params,
            "Epilogue": operation.epilogue,
            "TacticName": plan.variants[variant].profiles[number].steps[operation.steps[0]].tactic,
            "Origin": operation.origin,
        }
        for operation in details.variants[variant][number].operations
        if operation.steps
    ]
    return {"Layers": layers, "Bindings": [binding.name for binding in plan.bindings]}


def refittable(plan: Plan, variant: int, number: int) -> list[tuple[str, list[str]]]:
    """`--dumpRefit`: operations of a profile with the constants that refitting may change."""
    details = plan_details(plan)
    operations = details.variants[variant][number].operations if details is not None else ()
    found = [
        (o.name, [f"{t.model_name or t.name} {t.layout}" for t in o.inputs if t.is_constant])
        for o in operations
    ]
    return [(name, weights) for name, weights in found if weights]
