"""Comparing outputs with expected ones by trtexec's five algorithms."""

from __future__ import annotations

from typing import Any

import numpy as np

from builder_host.errors import BuilderError

ALGORITHMS = ("l0", "l1", "l2", "lInf", "cos")


def distance(actual: Any, expected: Any, algorithm: str, *, atol: float, rtol: float) -> float:
    """How far an output is from the expected one; 0 is equal.

    l0: share of elements outside atol + rtol |expected|; l1: mean absolute difference; l2: mean
    squared difference; lInf: largest absolute difference; cos: 1 - cosine.

    Raises:
        BuilderError: unknown algorithm.
    """
    a = np.asarray(actual, dtype=np.float64).reshape(-1)
    b = np.asarray(expected, dtype=np.float64).reshape(-1)
    difference = np.abs(a - b)
    if algorithm == "l0":
        return float(np.mean(~(difference <= atol + rtol * np.abs(b))))
    if algorithm == "l1":
        return float(difference.mean())
    if algorithm == "l2":
        return float(np.mean(difference**2))
    if algorithm == "lInf":
        return float(difference.max())
    if algorithm == "cos":
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        return 1.0 - float(a @ b) / norms if norms else float(np.any(a != b))
    raise BuilderError(f"--accuracyAlgorithm={algorithm}: expected one of {', '.join(ALGORITHMS)}")
