"""Checking a plan against the float64 reference, and the canary that goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import NUMPY_OF_DTYPE, Network
from planformat.canary import canary_input
from planformat.datatypes import DataType
from planformat.limits import MAX_CANARY_BYTES
from planformat.plan import Binding, Canary, Plan

CANARY_SEED = 1
_CANARY_ELEMS = 4096  # per output at most; longer outputs are sampled
# Canary tolerances, relative to the largest output and to each value. The same code on the same
# device repeats its bits; against the float64 reference float32 networks stay within 1e-3 and
# float16 ones, with some fifty roundings of 2^-11 in a row, within 2e-2.
TOLERANCE_OF_SAME_CODE = (1e-5, 1e-4)
TOLERANCE_OF_PRECISION = {
    "fp32": (1e-3, 1e-3),
    "tf32": (1e-2, 1e-2),
    "fp16": (2e-2, 2e-2),
    "bf16": (1e-1, 1e-1),
    "int8": (5e-2, 5e-2),
}
# Relative L2 errors above which a plan must be wrong. Sums of integers are exact; what float32
# rounds to another integer than float64, about one value in 10^5, moves by one step of 127.
ERROR_LIMITS = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 1e-2, "bf16": 5e-2, "int8": 2e-2}


def stored_type(dtype: DataType) -> np.dtype[Any]:
    """Numpy type of an element type; bfloat16 is that of ml_dtypes, which NumPy computes with."""
    if dtype is DataType.BFLOAT16:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(NUMPY_OF_DTYPE[dtype])


def canary_arrays(network_inputs: Sequence[Any], seed: int) -> dict[str, npt.NDArray[Any]]:
    """Canary inputs as arrays, by name, for tensors with `name`, `shape` and `dtype`."""
    return {
        tensor.name: np.frombuffer(
            canary_input(seed, index, tensor.type.num_elems, tensor.dtype),
            dtype=stored_type(tensor.dtype),
        ).reshape(tensor.shape)
        for index, tensor in enumerate(network_inputs)
    }


def reference_outputs(network: Network) -> dict[str, npt.NDArray[Any]]:
    """Outputs of a network in float64 for the canary's inputs."""
    return evaluate_network(network, canary_arrays(network.inputs, CANARY_SEED))


def check_outputs(
    reference: Mapping[str, npt.NDArray[Any]],
    outputs: Mapping[str, npt.NDArray[Any]],
    float_limit: float,
) -> dict[str, float]:
    """Relative L2 error of each output against the float64 reference.

    Raises:
        BuilderError: an error above `float_limit` (at least 1e-2 for 16-bit outputs), or more than
            1 % of unequal integers: kernels of any sensible network stay orders of magnitude
            below, so the plan is wrong.
    """
    errors: dict[str, float] = {}
    for name, expected in reference.items():
        actual = outputs[name]
        if expected.dtype.kind == "f":
            wide = np.asarray(actual, dtype=np.float64)
            finite = np.isfinite(expected)
            if not np.array_equal(finite, np.isfinite(wide)):
                raise BuilderError(f"output '{name}' is not finite where the reference is")
            norm = float(np.linalg.norm(expected[finite]))
            error = float(np.linalg.norm((wide - expected)[finite])) / max(norm, 1e-30)
            limit = max(float_limit, 1e-2) if actual.dtype.itemsize == 2 else float_limit
        else:
            error = float(np.mean(actual != expected)) if actual.size else 0.0
            limit = 1e-2
        errors[name] = error
        if not error <= limit:
            raise BuilderError(
                f"output '{name}' differs from the float64 reference by {error:.3g} "
                f"(limit {limit:g}): the plan would be wrong and is not written; "
                "build with --trace and report it, or with --no-check if the network is sensitive"
            )
    return errors


def make_canary(
    bindings: Sequence[Binding],
    outputs: Mapping[str, npt.NDArray[Any]],
    latency_us: float | None,
    tolerance: tuple[float, float],
) -> Canary:
    """A canary that expects `outputs`.

    Args:
        bindings: of the plan.
        outputs: by name.
        latency_us: median of one inference on the target, or None.
        tolerance: absolute, as a share of the largest output value, and relative to each value.
    """
    expected: list[bytes] = []
    strides: list[int] = []
    largest = 0.0
    widest = max((b.dtype.size_bytes for b in bindings if not b.is_input), default=1)
    num_outputs = sum(not binding.is_input for binding in bindings)
    limit = max(1, min(_CANARY_ELEMS, MAX_CANARY_BYTES // (widest * max(1, num_outputs))))
    for binding in bindings:
        if binding.is_input:
            continue
        flat = np.asarray(outputs[binding.name]).reshape(-1)
        flat = flat.astype(stored_type(binding.dtype))
        stride = max(1, -(-flat.size // limit))
        strides.append(stride)
        expected.append(flat[::stride].tobytes())
        if binding.dtype.is_float and flat.size:
            wide = np.abs(flat.astype(np.float64))
            finite = wide[np.isfinite(wide)]
            largest = max(largest, float(finite.max(initial=0.0)))
    return Canary(
        seed=CANARY_SEED,
        strides=tuple(strides),
        outputs=tuple(expected),
        absolute_tolerance=float(np.float32(tolerance[0] * largest)),
        relative_tolerance=float(np.float32(tolerance[1])),
        latency_us=latency_us,
    )


def with_canary(plan: Plan, index: int, canary: Canary) -> Plan:
    """The plan (of one variant) with a canary in the profile of that index."""
    variant = plan.variants[0]
    profiles = tuple(
        replace(profile, canary=canary) if number == index else profile
        for number, profile in enumerate(variant.profiles)
    )
    return replace(plan, variants=(replace(variant, profiles=profiles),))


def only_profile(plan: Plan, index: int) -> Plan:
    """The plan (of one variant) with one of its profiles."""
    variant = plan.variants[0]
    return replace(plan, variants=(replace(variant, profiles=(variant.profiles[index],)),))
