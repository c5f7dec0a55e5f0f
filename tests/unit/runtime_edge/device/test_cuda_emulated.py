"""CUDA C++ compiled for emulated threads, as a plan, through the whole runtime."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_shim import compile_emulated

import runtime_edge as rt

SOURCE = r"""
#include "ep_cuda.cuh"

EP_KERNEL scale(const float *x, const float *w, float *y, ep_i64 n) {
  ep_grid_wait();
  const ep_i64 i = blockIdx.x * (ep_i64)blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] * w[0];
}
EP_KERNEL shift(const float *x, const float *w, float *y, ep_i64 n) {
  ep_grid_wait();
  const ep_i64 i = blockIdx.x * (ep_i64)blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] + w[1];
}
EP_KERNEL reverse(const float *x, float *y, ep_i64 n) {
  extern __shared__ float shared[];
  for (ep_i64 i = threadIdx.x; i < n; i += blockDim.x) shared[i] = x[i];
  __syncthreads();
  for (ep_i64 i = threadIdx.x; i < n; i += blockDim.x) y[i] = shared[n - 1 - i];
}
EP_KERNEL cluster_sum(const float *x, float *y) { y[0] = x[0]; }
EP_KERNEL gate(const float *x, float *y) { y[0] = x[0]; }
EP_KERNEL fault(const float *x, float *y) { y[0] = x[0]; }
"""

X = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)


@pytest.fixture
def engine(plan_data):
    with rt.load(plan_data(code=compile_emulated(SOURCE, 87).read_bytes(), num_pairs=2)) as loaded:
        yield loaded


def test_threads_compute_what_the_plan_says(engine):
    assert engine.canary_report.num_compared == 100
    with engine.create_context() as context:
        expected = (X * np.float32(0.5) + np.float32(3)) * np.float32(0.5) + np.float32(3)
        assert np.array_equal(context.execute({"x": X})["y"], expected)


def test_blocks_share_memory(engine):
    with engine.create_context(profile="reverse") as context:
        assert np.array_equal(context.execute({"x": X})["y"], X[:, ::-1])
