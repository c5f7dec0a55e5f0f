"""Running a network on data with every tensor observed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.calibration.batches import Source, batched
from builder_host.calibration.histogram import Histogram
from builder_host.calibration.table import CalibrationTable, table_of_ranges
from builder_host.calibration.thresholds import Calibrator, Options
from builder_host.config import BuilderConfig
from builder_host.errors import BuilderError
from builder_host.measure.local import load_context
from builder_host.network.copying import copy_network
from builder_host.network.network import Network, Tensor
from builder_host.passes import narrow_float
from builder_host.passes.pipeline import run_passes

Progress = Callable[[str, int, int], None]
_HEADER = {"EntropyCalibration2", "EntropyCalibration", "MinMaxCalibration", "LegacyCalibration"}


def collect_histograms(
    network: Network,
    data: Source,
    *,
    is_after_fusion: bool = True,
    config: BuilderConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Histogram]:
    """Run the float network on this machine's CPU and count the magnitudes of its tensors.

    Args:
        network: as imported; it is left as it is.
        data: samples, see `batches.batched`; read once.
        is_after_fusion: observe the fused network's tensors, else those of the network as imported.
        config: threads, compiler and artifact store are taken from it.
        progress: called with a phase's name, samples done and samples in all (0: unknown).

    Returns:
        One histogram per tensor name, inputs included.

    Raises:
        BuilderError: no data, data that does not fit, or values that are not finite.
    """
    progress = progress or _no_progress
    probe, observed = observed_network(network, is_after_fusion=is_after_fusion)
    inputs = {t.name for t in probe.inputs}
    names = {t.name: _public_name(probe, t) for t in observed}
    histograms = {name: Histogram() for name in names.values()}
    total = len(data) if isinstance(data, Sized) else 0
    execute = executor(probe, config, progress)
    done = 0
    for arrays, count in batched(data, probe.inputs):
        outputs = execute(arrays)
        batch = probe.inputs[0].shape[0]
        for tensor in observed:
            values = arrays[tensor.name] if tensor.name in inputs else outputs[tensor.name]
            try:
                histograms[names[tensor.name]].add(_samples_of(values, count, batch))
            except BuilderError as error:
                raise BuilderError(f"tensor '{tensor.name}', sample {done}: {error}") from error
        done += count
        progress("calibrate", done, total or done)
    if not done:
        raise BuilderError("no sample to calibrate with")
    return histograms


def calibrate(
    network: Network,
    data: Source,
    calibrator: Calibrator,
    options: Options | None = None,
    *,
    config: BuilderConfig | None = None,
    progress: Progress | None = None,
) -> CalibrationTable:
    """Dynamic ranges of a network's tensors. Arguments as for `collect_histograms`."""
    histograms = collect_histograms(
        network,
        data,
        is_after_fusion=calibrator.is_after_fusion,
        config=config,
        progress=progress,
    )
    chosen = options or Options()
    ranges: dict[str, float] = {}
    for number, (name, histogram) in enumerate(histograms.items(), start=1):
        ranges[name] = _rounded(calibrator.threshold(histogram, chosen))
        if progress is not None:
            progress("ranges", number, len(histograms))
    maker = "TRT-8601" if calibrator.title in _HEADER else "EDGEPLAN-1"
    largest = {n: h.largest for n, h in histograms.items() if h.largest > narrow_float.LARGEST}
    return table_of_ranges(f"{maker}-{calibrator.title}", ranges, largest)


def observed_network(network: Network, *, is_after_fusion: bool) -> tuple[Network, list[Tensor]]:
    """A copy whose float tensors are all outputs, and these tensors, inputs among them."""
    probe = copy_network(network)
    if is_after_fusion:
        run_passes(probe)
    computed = [t for layer in probe.layers for t in layer.outputs if _is_observed(t)]
    for tensor in computed:
        if tensor not in probe.outputs:
            probe.mark_output(tensor)
    return probe, [*(t for t in probe.inputs if _is_observed(t)), *computed]


def executor(
    network: Network, config: BuilderConfig | None, progress: Progress
) -> Callable[[dict[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]:
    """A function that runs a network in float32 on this machine's CPU, kernels not tuned."""
    from builder_host.builder import build

    given = config or BuilderConfig()
    plain = replace(
        BuilderConfig(),
        measure="none",
        is_checked=False,
        num_threads=given.num_threads,
        num_jobs=given.num_jobs,
        compiler=given.compiler,
        artifact_dir=given.artifact_dir,
    )
    built = build(network, plain, progress=progress)
    context = load_context(built.plan)
    results: dict[str, npt.NDArray[Any]] = {}

    def execute(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        nonlocal results
        results = context.execute(arrays, results) if results else context.execute(arrays)
        return results

    return execute


def _rounded(largest: float) -> float:
    """To 12 bits: the last bits of float32 sums depend on the kernel, the table must not."""
    mantissa, exponent = math.frexp(largest)
    return math.ldexp(round(mantissa * 4096) / 4096, exponent)


def _is_observed(tensor: Tensor) -> bool:
    return tensor.dtype.is_float and tensor.type.num_elems > 0


def _public_name(network: Network, tensor: Tensor) -> str:
    return network.names_of(tensor)[0]


def _samples_of(values: npt.NDArray[Any], count: int, batch: int) -> npt.NDArray[Any]:
    """The rows that belong to real samples; the others fill up the last batch."""
    if count == batch or values.ndim == 0 or values.shape[0] % batch:
        return values
    return np.asarray(values[: values.shape[0] // batch * count])


def _no_progress(_phase: str, _done: int, _total: int) -> None:
    pass
