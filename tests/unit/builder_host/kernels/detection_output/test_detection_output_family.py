"""Detection output against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import AVX2, NEON, runs_here
from support.detections import BASE, CASES, arrays, built
from support.typed_kernels import run, toolchain

from builder_host.kernels.detection_output.family import FAMILY
from builder_host.network.layers import definition


@pytest.mark.parametrize("name", CASES)
def test_matches_the_reference(name: str) -> None:
    if not runs_here("avx2"):
        pytest.skip("this machine has no AVX2")
    case = built(CASES[name], 2)
    inputs = arrays(case)
    (found,) = run(FAMILY, case, AVX2, inputs)
    (wanted,) = definition("detection_output").reference(CASES[name], inputs)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_compiles_for_neon() -> None:
    case = built(BASE, 1)
    program = FAMILY.generate(case, FAMILY.tactics(case, NEON)[0], NEON)
    (result,) = toolchain(NEON).compile_objects([program.source])
    assert not hasattr(result, "error"), result
