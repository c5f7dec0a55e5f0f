"""What a plan tells about each of its operations."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from builder_host.emit.operation_count import count_operations
from builder_host.emit.tuned import TunedOperation
from builder_host.expressions import text as expression_text
from builder_host.layouts import Layout
from builder_host.lowering.draft import Draft
from builder_host.lowering.placement import View
from planformat.details import OperationDetails, TensorDetails


def operation_details(
    item: TunedOperation, steps: tuple[int, ...], draft: Draft
) -> OperationDetails:
    """Kind, parameters, work and tensors of an operation.

    Args:
        item: the operation with its tactic.
        steps: indices of its steps in the profile.
        draft: of the profile; knows names and scales of its tensors.
    """
    operation, problem = item.operation, item.operation.problem
    inputs = [
        _tensor(view, layout, constant.name if constant is not None else "")
        for view, layout, constant in zip(
            operation.inputs, problem.inputs, operation.constants, strict=True
        )
    ]
    outputs = [
        _tensor(view, layout, "")
        for view, layout in zip(operation.outputs, problem.outputs, strict=True)
    ]
    if len(operation.layer.outputs) == len(outputs) and operation.name == operation.layer.name:
        outputs = [
            replace(found, model_name=draft.network.names_of(t)[0], scale=draft.scale_of(t))
            for found, t in zip(outputs, operation.layer.outputs, strict=True)
        ]
    return OperationDetails(
        name=operation.name,
        kind=problem.kind,
        origin=operation.layer.origin,
        params=repr(problem.params),
        epilogue=expression_text(problem.epilogue.expr) if problem.epilogue else "",
        num_operations=count_operations(problem),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        steps=steps,
        num_candidates=item.selection.num_candidates,
        source_sha256=hashlib.sha256(item.program.source.encode()).hexdigest(),
    )


def _tensor(view: View | None, layout: Layout, constant: str) -> TensorDetails:
    name = constant if view is None else view.root.name
    if view is not None and view.offset_bytes:
        name += f"+{view.offset_bytes}"
    return TensorDetails(name, layout.text(), layout.stored_bytes, view is None)
