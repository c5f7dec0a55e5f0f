"""Detection output problems with boxes and scores that float32 tells apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from builder_host.kernels.family import Problem
from builder_host.network.layers import definition
from builder_host.network.layers.detection_output import DetectionOutputParams
from builder_host.network.tensor_type import TensorType
from support.typed_kernels import layout, problem

BASE = DetectionOutputParams(
    5, nms_threshold=0.45, top_k=20, keep_top_k=12, confidence_threshold=0.2,
    code_type="center_size",
)  # fmt: skip
CASES = {
    "ssd": BASE,
    "all_kept": replace(BASE, keep_top_k=-1, top_k=-1),
    "corner": replace(BASE, code_type="corner"),
    "corner_size": replace(BASE, code_type="corner_size", variance_encoded_in_target=True),
    "per_class_boxes": replace(BASE, share_location=False),
    "no_background": replace(BASE, background_label_id=-1),
    "adaptive": replace(BASE, eta=0.9, nms_threshold=0.8),
    "nothing_found": replace(BASE, confidence_threshold=2.0),
}
PRIORS = 60


def built(params: DetectionOutputParams, images: int) -> Problem:
    sets = 1 if params.share_location else params.num_classes
    shapes = [
        (images, PRIORS * sets * 4),
        (images, PRIORS * params.num_classes),
        (1, 2, PRIORS * 4),
    ]
    outputs = definition("detection_output").infer(params, [TensorType(s) for s in shapes])
    return problem(
        "detection_output",
        params,
        [layout(s) for s in shapes],
        [layout(t.shape) for t in outputs],
        constant=(2,),
    )


def arrays(case: Problem) -> list[np.ndarray]:
    """Locations, confidences and priors; no two scores or overlaps are closer than 1e-5."""
    rng = np.random.default_rng(11)
    corner = rng.uniform(0, 0.7, (PRIORS, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.3, (PRIORS, 2))], axis=1)
    variances = np.tile([0.1, 0.1, 0.2, 0.2], (PRIORS, 1))
    prior = np.stack([boxes.reshape(-1), variances.reshape(-1)])[None].astype(np.float32)
    loc = rng.normal(0, 0.3, case.inputs[0].shape).astype(np.float32)
    conf = rng.uniform(0, 1, case.inputs[1].shape).astype(np.float32)
    return [loc, conf, prior]
