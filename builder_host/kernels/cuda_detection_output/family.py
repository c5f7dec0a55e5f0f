"""SSD detection output on CUDA: a block per class and image, then one that packs the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen import cuda_expression
from builder_host.codegen.c_expression import float_literal
from builder_host.codegen.loop_nest_cuda import CUDA_TYPES, conversion
from builder_host.codegen.template import fill
from builder_host.kernels.cuda_loop_nest.cost import LAUNCH_US
from builder_host.kernels.detection_output.family import CODES, num_candidates, num_priors
from builder_host.kernels.family import (
    Array,
    GridLaunch,
    KernelFamily,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType, TensorFormat

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_HEADERS = Path(cuda_expression.__file__).parent / "cuda_include"
_DTYPES = (DataType.FLOAT32, DataType.FLOAT16)
_BARRIER_US = 0.1  # one candidate of the greedy suppression: a barrier of one block (a guess)


class CudaDetectionOutputFamily:
    """Kernel family `cuda_detection_output`."""

    name = "cuda_detection_output"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        Path(__file__).read_text(),
        *(path.read_text() for path in sorted(_HEADERS.glob("*.cuh"))),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Dense LINEAR tensors of float32 or float16 without an epilogue."""
        layouts = (*problem.inputs, *problem.outputs)
        return (
            isinstance(target, CudaTarget)
            and problem.kind == "detection_output"
            and problem.epilogue is None
            and all(
                item.format is TensorFormat.LINEAR and item.is_dense and item.dtype in _DTYPES
                for item in layouts
            )
            and num_priors(problem) > 0
            and problem.params.top_k != 0
            and problem.inputs[0].shape[0] > 0
        )

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Two launches, a scan of the scores and the candidates one after another."""
        del target
        scores = num_priors(problem) / 256 * 0.01
        return LAUNCH_US * 2 + scores + min(num_candidates(problem), 200) * _BARRIER_US

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Threads of a block."""
        del problem, target
        return [Tactic(self.name, (("threads", n),)) for n in (256, 128, 512)]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """Two kernels and their workspace."""
        params, priors = problem.params, num_priors(problem)
        images, candidates = problem.inputs[0].shape[0], num_candidates(problem)
        threads = int(tactic.values["threads"])
        parts = (problem.text(), tactic.text, self.template_hash, target.sm)
        suppress = symbol_for("cuda_detection_suppress", *parts)
        collect = symbol_for("cuda_detection_collect", *parts)
        prior_keys = _power_of_two(priors)
        image_keys = _power_of_two(params.num_classes * candidates)
        names = ("LOC", "CONF", "PRIOR")
        types = {
            f"{name}_TYPE": CUDA_TYPES[layout.dtype]
            for name, layout in zip(
                (*names, "OUT"), (*problem.inputs, *problem.outputs), strict=True
            )
        }
        values = {
            f"{name}_VALUE": conversion("element", layout.dtype, DataType.FLOAT32)
            for name, layout in zip(names, problem.inputs, strict=True)
        }
        out = problem.outputs[0].dtype
        source = fill(
            _TEMPLATE,
            {
                "SUPPRESS": suppress,
                "COLLECT": collect,
                **types,
                **values,
                "OUT_VALUE": conversion("value", DataType.FLOAT32, out),
                "IMAGES": images,
                "PRIORS": priors,
                "CLASSES": params.num_classes,
                "BOX_SETS": 1 if params.share_location else params.num_classes,
                "BACKGROUND": params.background_label_id,
                "CODE": CODES[params.code_type],
                "USES_VARIANCES": int(not params.variance_encoded_in_target),
                "CANDIDATES": candidates,
                "KEEP": params.keep_top_k,
                "ROWS": problem.outputs[0].shape[2],
                "CONFIDENCE": float_literal(params.confidence_threshold),
                "OVERLAP": float_literal(params.nms_threshold),
                "ETA": float_literal(params.eta),
                "PRIOR_KEYS": prior_keys,
                "IMAGE_KEYS": image_keys,
                "NUM_THREADS": threads,
            },
        )
        lists = images * params.num_classes
        workspace_bytes = 8 * (lists * prior_keys + image_keys)
        workspace_bytes += lists * (candidates * 2 * 20 + 4)
        is_dependent = target.has_dependent_launch
        block = (threads, 1, 1)
        grid = (params.num_classes, images, 1)
        launches = (
            GridLaunch(suppress, grid, block, is_dependent=is_dependent),
            GridLaunch(collect, (1, 1, 1), block, is_dependent=is_dependent),
        )
        return Program(source, launches, math.ceil(workspace_bytes / 8) * 8)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Constants as they are."""
        del problem, tactic, target
        return [None if c is None else np.ascontiguousarray(c) for c in constants]


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()


FAMILY: KernelFamily = CudaDetectionOutputFamily()
