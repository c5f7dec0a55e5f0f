"""Timing of candidates on a GPU."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from support import cuda_plans, fake_libcuda

from runtime_edge.device.cuda import CudaDevice
from runtime_edge.device.cuda_driver import CudaError
from runtime_edge.device.cuda_timing import (
    RUNS_PER_GRAPH,
    CudaModule,
    CudaTimer,
    TimedCudaLaunch,
    time_cuda_launches,
)
from runtime_edge.errors import LoadError


@pytest.fixture
def device(gpu):
    return CudaDevice(0)


@pytest.fixture
def module(device):
    return CudaModule(device, fake_libcuda.compile_kernels(cuda_plans.HOST_KERNELS), "candidate")


@pytest.fixture
def arguments(device):
    x, weights, y = (device.allocate(4000, 256) for _ in range(3))
    device.write(x, np.arange(1000, dtype=np.float32).tobytes())
    device.write(weights, np.array([2, 5], np.float32).tobytes())
    yield x, weights, y, 1000
    for address in (x, weights, y):
        device.free(address)


def test_two_candidates_are_timed_interleaved(device, module, arguments, gpu):
    gc.collect()
    before = gpu.all_live()
    launch = TimedCudaLaunch(module.function("scale"), arguments, (8, 1, 1), (128, 1, 1))
    other = TimedCudaLaunch(
        module.function("shift"), arguments, (8, 1, 1), (128, 1, 1), is_dependent_launch=True
    )
    timers = [CudaTimer(module, [launch]), CudaTimer(module, [other, other])]
    launches = gpu.calls("cuGraphLaunch")
    for _ in range(3):
        for timer in timers:
            times = timer.measure(2)
            assert len(times) == 2
            assert all(time >= 0 for time in times)
    assert gpu.calls("cuGraphLaunch") == launches + 12
    expected = np.arange(1000, dtype=np.float32) + 5
    assert np.array_equal(np.frombuffer(device.read(arguments[2], 4000), np.float32), expected)
    for timer in timers:
        timer.close()
    assert gpu.all_live() == before


def test_flushing_times_every_run_alone(module, arguments, gpu):
    gc.collect()
    before = gpu.all_live()
    fills = gpu.calls("cuMemsetD8Async")
    launch = TimedCudaLaunch(module.function("scale"), arguments, (8, 1, 1), (128, 1, 1))
    timer = CudaTimer(module, [launch], is_flushing=True)
    assert gpu.calls("cuMemsetD8Async") == fills + RUNS_PER_GRAPH
    assert len(timer.measure(2)) == 2 * RUNS_PER_GRAPH
    timer.close()
    assert gpu.all_live() == before


def test_shorthand(module, arguments):
    launch = TimedCudaLaunch(
        module.function("reverse"),
        (arguments[0], arguments[2], 1000),
        (1, 1, 1),
        (256, 1, 1),
        shared_memory_bytes=96 << 10,
    )
    assert len(time_cuda_launches(module, [launch], repeats=4)) == 4
    assert module.resources("reverse")[0] == 32


def test_candidates_that_cannot_run_are_errors_of_their_own(device, module, arguments, gpu):
    gc.collect()
    before = gpu.all_live()
    with pytest.raises(LoadError, match="candidate: kernel 'no_such'"):
        module.function("no_such")
    with pytest.raises(LoadError, match="INVALID_IMAGE"):
        CudaModule(device, b"\0\0\0\0", "candidate")
    too_much = TimedCudaLaunch(
        module.function("scale"), arguments, (1, 1, 1), (32, 1, 1), shared_memory_bytes=200_000
    )
    with pytest.raises(CudaError, match="200,000 bytes of shared memory"):
        CudaTimer(module, [too_much])
    too_wide = TimedCudaLaunch(module.function("scale"), arguments, (1, 1, 1), (2048, 1, 1))
    with pytest.raises(CudaError, match=r"block \(2048, 1, 1\).*INVALID_VALUE"):
        CudaTimer(module, [too_wide])
    gc.collect()
    assert gpu.all_live() == before
