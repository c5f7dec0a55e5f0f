"""Other runtimes to compare with, and a fair way to time several functions in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

_PAUSE_S = 0.05  # after a block: ONNX Runtime's workers go on spinning on their cores for a while
_BLOCK = 4  # calls of one side in a row; the first, which finds the other's caches, is dropped


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one side in microseconds."""

    median_us: float
    p20_us: float
    p80_us: float
    min_us: float
    num_calls: int


def ort_session(model: bytes, num_threads: int) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime's CPU provider with all optimisations and default spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_call(
    model: bytes, num_threads: int, inputs: Mapping[str, npt.NDArray[np.float32]]
) -> Callable[[], list[npt.NDArray[np.float32]]]:
    """One inference of OpenVINO's CPU plugin in float32, tuned for the latency of one request.

    Float32 is asked for, because the plugin computes in bfloat16 where the CPU has it. Neither
    inputs nor outputs are copied.

    Args:
        model: ONNX file's bytes.
        num_threads: of the plugin.
        inputs: by name; read again at each call.

    Returns:
        A function that runs the model and returns its outputs in order, valid until the next call.

    Raises:
        RuntimeError: the plugin does not take over threads or precision.
    """
    import openvino

    wanted = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(num_threads),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", wanted)
    threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if (threads, precision) != (num_threads, "f32"):
        raise RuntimeError(
            f"OpenVINO runs in {precision} on {threads} thread(s), asked were f32 on {num_threads}"
        )
    request = compiled.create_infer_request()
    given = dict(inputs)
    outputs = list(compiled.outputs)

    def call() -> list[npt.NDArray[np.float32]]:
        found = request.infer(given, share_inputs=True, share_outputs=True)
        return [found[output] for output in outputs]

    return call


def interleaved(
    functions: Sequence[Callable[[], object]], *, seconds: float, min_blocks: int = 5
) -> list[Latency]:
    """Time functions in alternating blocks of calls within one run.

    Args:
        functions: each is one whole call, inputs and outputs included.
        seconds: roughly how long all of it may take.
        min_blocks: fewest blocks per function.
    """
    for function in functions:
        function()
        function()
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    block = 0
    while block < min_blocks or time.perf_counter() < end:
        for row, function in zip(times, functions, strict=True):
            for call in range(_BLOCK):
                start = time.perf_counter_ns()
                function()
                if call:
                    row.append((time.perf_counter_ns() - start) / 1000)
            time.sleep(_PAUSE_S)
        block += 1
    return [_latency(row) for row in times]


def _latency(times_us: Sequence[float]) -> Latency:
    ordered = sorted(times_us)
    last = len(ordered) - 1
    return Latency(
        statistics.median(ordered),
        ordered[round(0.2 * last)],
        ordered[round(0.8 * last)],
        ordered[0],
        len(ordered),
    )
