"""The node suite of the onnx package: every case whose operators are supported.

A case counts as unsupported when its report names an operator, an output, an attribute or an
element type that is not supported; `REFUSED` and `DIFFERENT` list the rest by name, with reasons.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from support.onnx_models import import_case

from builder_host.errors import ImportModelError
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import DTYPE_OF_NUMPY

Array = np.ndarray[Any, Any]

TRAINING = "inference only"
EMPTY = "a maximum of nothing"
REFUSED = {
    "test_batchnorm_epsilon_training_mode": TRAINING,
    "test_batchnorm_example_training_mode": TRAINING,
    "test_training_dropout": TRAINING,
    "test_training_dropout_default": TRAINING,
    "test_training_dropout_default_mask": TRAINING,
    "test_training_dropout_mask": TRAINING,
    "test_reduce_log_sum_exp_empty_set": EMPTY,
    "test_reduce_max_empty_set": EMPTY,
    "test_reduce_max_empty_set_bool": EMPTY,
    "test_reduce_min_empty_set": EMPTY,
    "test_equal_string": "texts are no tensors here",
    "test_equal_string_broadcast": "texts are no tensors here",
}
HALF = "a quotient of exactly .5 in float32 is not one in float64"
ALIGNED = "expected values use the unrounded output extent; ONNX Runtime and this importer do not"
DIFFERENT = {
    "test_dynamicquantizelinear": HALF,
    "test_dynamicquantizelinear_expanded": HALF,
    "test_resize_downsample_scales_cubic_align_corners": ALIGNED,
    "test_resize_downsample_scales_linear_align_corners": ALIGNED,
}
UNSUPPORTED = ("is not supported", "are supported")


def mismatch(network: Any, case: Any, inputs: dict[str, Array], expected: list[Array]) -> str:
    """What differs from the expected outputs; empty when nothing does."""
    own = {t.name: t for t in network.outputs}
    got = evaluate_network(network, {t.name: np.asarray(inputs[t.name]) for t in network.inputs})
    for output, want in zip(case.model.graph.output, map(np.asarray, expected), strict=True):
        have = got[output.name]
        if have.shape != want.shape:
            return f"{output.name}: shape {have.shape}, expected {want.shape}"
        if own[output.name].dtype is not DTYPE_OF_NUMPY[want.dtype.name]:
            return f"{output.name}: type {own[output.name].dtype}, expected {want.dtype}"
        if want.dtype.kind in "iub":
            if not np.array_equal(have.astype(np.int64), want.astype(np.int64)):
                return f"{output.name}: {have.ravel()[:8]}, expected {want.ravel()[:8]}"
            continue
        # Expected values carry the rounding of their own type: 2^-11 for float16, 2^-8 for
        # bfloat16, both over a few operations; float32 cases state 1e-3 themselves.
        narrow = want.dtype.itemsize <= 2
        rtol, atol = (1e-2, 1e-3) if narrow else (max(case.rtol, 1e-3), max(case.atol, 1e-6))
        wide = want.astype(np.float64)
        if not np.allclose(have, wide, rtol=rtol, atol=atol, equal_nan=True):
            return f"{output.name}: off by {np.nanmax(np.abs(have - wide))}"
    return ""


@pytest.mark.slow
def test_node_suite_of_the_onnx_package(capsys: pytest.CaptureFixture[str]) -> None:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own generators overflow on purpose
        cases = load_model_tests(kind="node")
    share: dict[str, Counter[str]] = defaultdict(Counter)
    wrong = {}
    for case in cases:
        graph = case.model.graph
        operators = sorted({node.op_type for node in graph.node})
        outcome = "ok"
        for values, expected in case.data_sets:
            if any(not isinstance(v, np.ndarray | np.generic) for v in [*values, *expected]):
                outcome = "no tensors"
                continue
            inputs = dict(zip((i.name for i in graph.input), values, strict=False))
            try:
                text = mismatch(import_case(case.model, inputs), case, inputs, expected)
            except ImportModelError as error:
                known = case.name in REFUSED or any(u in str(error) for u in UNSUPPORTED)
                outcome = "unsupported" if known else "wrong"
                text = "" if known else str(error)
            if text and case.name not in DIFFERENT:
                outcome, wrong[case.name] = "wrong", text
            elif text:
                outcome = "different"
        for operator in operators:
            share[operator][outcome] += 1
    with capsys.disabled():
        for operator, counts in sorted(share.items()):
            print(f"{operator:28}", ", ".join(f"{k} {n}" for k, n in counts.most_common()))
    assert wrong == {}
