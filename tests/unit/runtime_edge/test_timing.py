"""Timing of kernels outside of a plan, as the tuner does it."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from support import tiny_plans

from runtime_edge.device.cpu import smallest_share
from runtime_edge.device.cpu_timing import CpuModule, CpuTimer, TimedLaunch, time_launches


@pytest.fixture(scope="module")
def module():
    return CpuModule(tiny_plans.code())


def launches(module, x, w, middle, y):
    scale, shift = module.address("scale"), module.address("shift")
    return [
        TimedLaunch(scale, (x.ctypes.data, w.ctypes.data, middle.ctypes.data), 10),
        TimedLaunch(shift, (middle.ctypes.data, w.ctypes.data, y.ctypes.data), 10, 400),
    ]


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_launches_run_and_are_timed(module, num_workers):
    x, w = np.arange(1000, dtype=np.float32), np.array([0.5, 3], np.float32)
    middle, y = np.zeros_like(x), np.zeros_like(x)
    work = launches(module, x, w, middle, y)
    times = time_launches(module, work, num_workers=num_workers, repeats=7)
    assert len(times) == 7
    assert all(time > 0 for time in times)
    assert np.array_equal(y, x * np.float32(0.5) + np.float32(3))


def test_flush_is_written_and_not_timed(module):
    x, y = np.ones(1000, np.float32), np.zeros(10, np.float32)
    launch = TimedLaunch(module.address("slow_sum"), (x.ctypes.data, y.ctypes.data, 1), 10)
    flush = bytearray(64 << 20)
    times = time_launches(module, [launch], repeats=9, flush=flush)
    assert flush[0] == flush[64] == flush[-64] == 9
    # Writing 64 MiB takes milliseconds, the sum of 10,000 numbers some ten microseconds.
    assert min(times) < 1000


def test_a_longer_job_takes_longer(module):
    x, y = np.ones(1000, np.float32), np.zeros(10, np.float32)

    def minimum(times: int) -> float:
        arguments = (x.ctypes.data, y.ctypes.data, times)
        launch = TimedLaunch(module.address("slow_sum"), arguments, 10)
        return min(time_launches(module, [launch], repeats=20))

    assert minimum(100) > 10 * minimum(1)


def test_timers_of_several_candidates_are_interleaved(module):
    x, w = np.arange(1000, dtype=np.float32), np.array([0.5, 3], np.float32)
    middle, y = np.zeros_like(x), np.zeros_like(x)
    timers = [CpuTimer(module, launches(module, x, w, middle, y), num_workers=2) for _ in range(3)]
    for _ in range(20):
        for timer in timers:
            y[:] = 0
            timer.run()
            assert np.array_equal(y, x * np.float32(0.5) + np.float32(3))
            timer.measure(1)
    for timer in timers:
        timer.close()


def test_shares_follow_the_measured_time():
    step = tiny_plans.plan().variants[0].profiles[0].steps[0]  # 10 units

    def share(measured_us, workers=1):
        from dataclasses import replace

        return smallest_share(replace(step, measured_us=measured_us), workers)

    assert share(None) == 1
    assert share(2.0) == 10  # too little to share
    assert share(1.0, workers=2) == 10
    assert share(5.0) == 2  # 0.5 µs per unit: two make up 1 µs
    assert share(100.0) == 1


def test_addresses_of_missing_symbols(module):
    from runtime_edge import LoadError

    assert ctypes.cast(module.address("scale"), ctypes.c_void_p).value
    with pytest.raises(LoadError, match="'nothing' is not exported"):
        module.address("nothing")
