"""SSD detection output: one unit of scalar code; sorting and suppression leave little to share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.codegen.c_expression import float_literal
from builder_host.codegen.template import fill
from builder_host.kernels.family import (
    KernelFamily,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

Array = npt.NDArray[Any]

CODES = {"corner": 0, "corner_size": 1, "center_size": 2}
_TEMPLATE = Path(__file__).with_name("kernel.c")


class DetectionOutputFamily:
    """Boxes decoded once per image, a stable merge sort and greedy suppression per class."""

    name = "detection_output"
    device_kind = "cpu"

    def __init__(self) -> None:
        """Read the template."""
        self._template = _TEMPLATE.read_text()
        self.template_hash = template_hash(self._template, Path(__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """Dense LINEAR float32 tensors without an epilogue."""
        layouts = (*problem.inputs, *problem.outputs)
        return (
            isinstance(target, CpuTarget)
            and problem.kind == "detection_output"
            and problem.epilogue is None
            and all(
                item.format is TensorFormat.LINEAR
                and item.is_dense
                and item.dtype is DataType.FLOAT32
                for item in layouts
            )
            and num_priors(problem) > 0
            and problem.params.top_k != 0
        )

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Scanning every score, and sorting and comparing few candidates (a guess)."""
        del target
        scores = math.prod(problem.inputs[1].shape)
        return 1.0 + scores * 2e-3

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One."""
        del problem, target
        return [Tactic(self.name)]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """The template with all counts fixed."""
        del target
        params, priors = problem.params, num_priors(problem)
        images = problem.inputs[0].shape[0]
        sets = 1 if params.share_location else params.num_classes
        candidates = num_candidates(problem)
        symbol = symbol_for("detection_output", problem.text(), tactic.text, self.template_hash)
        source = fill(
            self._template,
            {
                "SYMBOL": symbol,
                "IMAGES": images,
                "PRIORS": priors,
                "CLASSES": params.num_classes,
                "BOX_SETS": sets,
                "BACKGROUND": params.background_label_id,
                "CODE": CODES[params.code_type],
                "USES_VARIANCES": int(not params.variance_encoded_in_target),
                "CANDIDATES": candidates,
                "KEEP": params.keep_top_k,
                "ROWS": problem.outputs[0].shape[2],
                "CONFIDENCE": float_literal(params.confidence_threshold),
                "OVERLAP": float_literal(params.nms_threshold),
                "ETA": float_literal(params.eta),
            },
        )
        entries = params.num_classes * candidates
        scratch_elems = sets * priors * 4 + 3 * priors + 1 + 5 * entries
        return Program(source, (Launch(symbol, 1, scratch_elems * 4),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Constants as they are."""
        del problem, tactic, target
        return [None if c is None else np.ascontiguousarray(c) for c in constants]


def num_candidates(problem: Problem) -> int:
    """Largest number of candidates per class that the suppression looks at."""
    priors, limit = num_priors(problem), int(problem.params.top_k)
    return priors if limit < 0 else min(limit, priors)


def num_priors(problem: Problem) -> int:
    """Number of prior boxes."""
    prior = problem.inputs[2].shape
    return math.prod(prior) // max(prior[0], 1) // 8


FAMILY: KernelFamily = DetectionOutputFamily()
