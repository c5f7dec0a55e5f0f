"""Detection output on emulated GPU threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.detections import BASE, CASES, arrays, built

from builder_host.kernels.cuda_detection_output.family import FAMILY
from builder_host.layouts import dense_layout
from builder_host.network.layers import definition
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

HOPPER = make_target("90", 4)


@pytest.mark.parametrize("name", CASES)
def test_matches_the_reference(name: str) -> None:
    case = built(CASES[name], 2)
    inputs = arrays(case)
    (wanted,) = definition("detection_output").reference(CASES[name], inputs)
    for tactic in FAMILY.tactics(case, HOPPER)[:2]:
        (found,) = run(FAMILY, case, HOPPER, inputs, tactic)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_half_precision_predictions() -> None:
    case = built(BASE, 1)
    narrow = [dense_layout(TensorType(a.shape, DataType.FLOAT16)) for a in case.inputs[:2]]
    case = replace(case, inputs=(*narrow, case.inputs[2]))
    loc, conf, prior = arrays(case)
    rounded = [loc.astype(np.float16), conf.astype(np.float16), prior]
    (wanted,) = definition("detection_output").reference(BASE, rounded)
    (found,) = run(FAMILY, case, HOPPER, rounded)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["53", "72", "87", "90", "101"])
def test_compiles_for_gpus(architecture: str) -> None:
    target = make_target(architecture)
    case = built(BASE, 2)
    sources = [FAMILY.generate(case, t, target).source for t in FAMILY.tactics(case, target)]
    assert len(compile_all(sources, architecture)) == len(sources)
