"""The canary: one inference on known inputs, compared with what the builder computed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from planformat.canary import canary_input, compare_output, sample_output
from planformat.plan import Binding, Profile
from planformat.tensors import storage_elems
from runtime_edge.device.base import Device, Program
from runtime_edge.errors import CanaryError
from runtime_edge.memory import ALIGNMENT_BYTES, round_up

_RETIME_BELOW_US = 20_000.0


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What the canary inference of one profile gave.

    Attributes:
        profile: its name.
        num_compared: output elements that were compared.
        latency_us: of one inference here, warm when it is short enough to be repeated at load.
        built_latency_us: median when the plan was built, None if it was never measured.
    """

    profile: str
    num_compared: int
    latency_us: float
    built_latency_us: float | None

    def text(self) -> str:
        """One line for logs."""
        line = (
            f"profile '{self.profile}': canary passed, {self.num_compared:,} values, "
            f"{self.latency_us:,.0f} µs"
        )
        if self.built_latency_us:
            ratio = self.latency_us / self.built_latency_us
            line += f" ({ratio:.2f} times the {self.built_latency_us:,.0f} µs at build)"
        return line


def binding_region_bytes(bindings: Sequence[Binding], profile: Profile) -> int:
    """Device memory that `run_canary` needs for the bindings of a profile."""
    return sum(
        round_up(_elems(b, s) * b.dtype.size_bytes, ALIGNMENT_BYTES)
        for b, s in zip(bindings, profile.shapes, strict=True)
    )


def run_canary(
    device: Device,
    program: Program,
    bindings: Sequence[Binding],
    profile: Profile,
    region: int,
    *,
    source: str,
) -> CanaryReport:
    """Run the canary of a profile.

    Args:
        device: where the program runs.
        program: made for the profile.
        bindings: of the plan.
        profile: has a canary.
        region: address of binding_region_bytes bytes, aligned to 64.
        source: name of the plan for messages.

    Raises:
        CanaryError: outputs differ by more than the tolerance; names output, index and values.
    """
    canary = profile.canary
    assert canary is not None
    address = region
    outputs = []
    for index, (binding, shape) in enumerate(zip(bindings, profile.shapes, strict=True)):
        num_elems = _elems(binding, shape)
        nbytes = num_elems * binding.dtype.size_bytes
        program.addresses[index] = address
        if binding.is_input:
            device.write(address, canary_input(canary.seed, index, num_elems, binding.dtype))
        else:
            outputs.append((binding, address, nbytes))
        address += round_up(nbytes, ALIGNMENT_BYTES)
    start = time.perf_counter_ns()
    program.run()
    latency_us = (time.perf_counter_ns() - start) / 1000
    num_compared = 0
    for number, (binding, output, nbytes) in enumerate(outputs):
        stride, expected = canary.strides[number], canary.outputs[number]
        difference = compare_output(
            expected,
            sample_output(device.read(output, nbytes), stride, binding.dtype),
            binding.dtype,
            absolute_tolerance=canary.absolute_tolerance,
            relative_tolerance=canary.relative_tolerance,
        )
        if difference is not None:
            raise CanaryError(
                f"plan {source}: canary of profile '{profile.name}' failed: output "
                f"'{binding.name}' element {difference.index * stride:,} is "
                f"{difference.actual:.9g}, at build it was {difference.expected:.9g} (tolerance "
                f"{canary.absolute_tolerance:g} + {canary.relative_tolerance:g} of the value). "
                "The device computes other numbers than the builder: rebuild the plan for it"
            )
        num_compared += len(expected) // binding.dtype.size_bytes
    if latency_us < _RETIME_BELOW_US:
        start = time.perf_counter_ns()
        program.run()
        latency_us = min(latency_us, (time.perf_counter_ns() - start) / 1000)
    return CanaryReport(profile.name, num_compared, latency_us, canary.latency_us)


def _elems(binding: Binding, shape: tuple[int, ...]) -> int:
    return storage_elems(shape, binding.format)
