"""Hand-made plans for tests of the CUDA runtime, with kernels for the stand-in and for a GPU.

Every profile has the bindings x and y. `fast`: y = x * 0.5 + 3 by two dependent launches. `sum`:
one sum per cluster of 4 blocks. `reverse`: y = x reversed, through 96 KB of dynamic shared memory.
`gate`: y[0] = x[0] as soon as x[0] is not 0. `fault`: an illegal address.
"""

from __future__ import annotations

import struct

from planformat.canary import canary_input
from planformat.datatypes import DataType
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import (
    Argument,
    ArgumentKind,
    Binding,
    Canary,
    CodeKind,
    CodeObject,
    Kernel,
    Plan,
    Profile,
    Step,
    Variant,
)

NUM_ELEMS = 1000
SCALE, SHIFT = 0.5, 3.0
SHARED_BYTES = 96 << 10
SUM_BLOCKS, SUM_CLUSTER = 16, 4
SYMBOLS = ("scale", "shift", "cluster_sum", "reverse", "gate", "fault")

HOST_KERNELS = r"""
#include <stdlib.h>
#include <string.h>

EP_HOST_KERNEL(scale, 4) {
    const float *x = EP_POINTER(0), *w = EP_POINTER(1);
    float *y = EP_POINTER(2);
    for (int64_t i = 0; i < EP_INT64(3); ++i) y[i] = x[i] * w[0];
}

EP_HOST_KERNEL(shift, 4) {
    const float *x = EP_POINTER(0), *w = EP_POINTER(1);
    float *y = EP_POINTER(2);
    for (int64_t i = 0; i < EP_INT64(3); ++i) y[i] = x[i] + w[1];
}

EP_HOST_KERNEL(cluster_sum, 2) {
    const float *x = EP_POINTER(0);
    float *y = EP_POINTER(1);
    const unsigned int size = launch->cluster[0] * launch->block[0];
    for (unsigned int c = 0; c < launch->grid[0] / launch->cluster[0]; ++c) {
        y[c] = 0;
        for (unsigned int i = 0; i < size; ++i) y[c] += x[c * size + i];
    }
}

EP_HOST_KERNEL(reverse, 3) {
    const float *x = EP_POINTER(0);
    float *y = EP_POINTER(1), *shared = malloc(launch->shared_bytes);
    const int64_t n = EP_INT64(2);
    memcpy(shared, x, (size_t)n * 4);
    for (int64_t i = 0; i < n; ++i) y[i] = shared[n - 1 - i];
    free(shared);
}

EP_HOST_KERNEL(gate, 2) {
    const volatile float *x = EP_POINTER(0);
    float *y = EP_POINTER(1);
    while (x[0] == 0) {}
    y[0] = x[0];
}

EP_HOST_KERNEL(fault, 2) {
    (void)params;
    launch->fault(700);
}
"""

CUDA_KERNELS = r"""
#include <cooperative_groups.h>
namespace cg = cooperative_groups;

static __device__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

extern "C" __global__ void scale(const float *x, const float *w, float *y, long long n) {
    wait_for_previous();
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * w[0];
}

extern "C" __global__ void shift(const float *x, const float *w, float *y, long long n) {
    wait_for_previous();
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + w[1];
}

extern "C" __global__ void cluster_sum(const float *x, float *y) {
    __shared__ float part[64];
    cg::cluster_group cluster = cg::this_cluster();
    part[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    cluster.sync();
    if (cluster.block_rank() == 0 && threadIdx.x == 0) {
        float sum = 0;
        for (unsigned r = 0; r < cluster.num_blocks(); ++r) {
            const float *there = cluster.map_shared_rank(part, r);
            for (int i = 0; i < 64; ++i) sum += there[i];
        }
        y[blockIdx.x / cluster.num_blocks()] = sum;
    }
    cluster.sync();
}

extern "C" __global__ void reverse(const float *x, float *y, long long n) {
    extern __shared__ float shared[];
    for (long long i = threadIdx.x; i < n; i += blockDim.x) shared[i] = x[i];
    __syncthreads();
    for (long long i = threadIdx.x; i < n; i += blockDim.x) y[i] = shared[n - 1 - i];
}

extern "C" __global__ void gate(const volatile float *x, float *y) {
    while (x[0] == 0) {}
    y[0] = x[0];
}

extern "C" __global__ void fault(const float *x, float *y) { *(volatile float *)8 = x[0] + y[0]; }
"""


def plan(
    code: bytes,
    fingerprint: DeviceFingerprint,
    *,
    architecture: str,
    kind: CodeKind = CodeKind.CUBIN,
    toolchain: str = "nvrtc 12.6.85",
    num_pairs: int = 1,
    canary: bool = True,
    first_weights: bytes = b"",
) -> Plan:
    """The plan of this module.

    Args:
        code: cubin, or what the stand-in takes for one.
        fingerprint: of the device.
        architecture: `sm_XX` of the code.
        kind: of the code.
        toolchain: name and version for messages.
        num_pairs: how often scale and shift follow each other in `fast`.
        canary: whether `fast` has one.
        first_weights: before the two weights; a multiple of 256 bytes.
    """
    x, y = Argument(ArgumentKind.BINDING, 0), Argument(ArgumentKind.BINDING, 1)
    weights = Argument(ArgumentKind.WEIGHTS, len(first_weights))
    num = Argument(ArgumentKind.IMMEDIATE, NUM_ELEMS)
    grid, block = ((NUM_ELEMS + 127) // 128, 1, 1), (128, 1, 1)
    steps: list[Step] = []
    for pair in range(num_pairs):
        source = x if pair == 0 else Argument(ArgumentKind.ARENA, 8192)
        target = y if pair == num_pairs - 1 else Argument(ArgumentKind.ARENA, 8192)
        middle = Argument(ArgumentKind.ARENA, 256)
        for name, kernel, arguments in (
            ("scale", 0, (source, weights, middle, num)),
            ("shift", 1, (middle, weights, target, num)),
        ):
            steps.append(
                Step(
                    f"{name}{pair}",
                    kernel,
                    grid,
                    arguments,
                    block=block,
                    is_dependent_launch=bool(steps),
                    tactic=name,
                )
            )
    shape = (1, NUM_ELEMS)
    values = struct.unpack(f"<{NUM_ELEMS}f", canary_input(7, 0, NUM_ELEMS, DataType.FLOAT32))
    expected = [expected_value(value, num_pairs) for value in values[::10]]
    check = Canary(7, (10,), (struct.pack(f"<{len(expected)}f", *expected),), 1e-6, 0.0)
    sum_step = Step(
        "sum",
        2,
        (SUM_BLOCKS, 1, 1),
        (x, y),
        block=(64, 1, 1),
        cluster=(SUM_CLUSTER, 1, 1),
    )
    reverse_step = Step(
        "reverse", 3, (1, 1, 1), (x, y, num), block=(256, 1, 1), shared_memory_bytes=SHARED_BYTES
    )
    profiles = (
        Profile(
            "fast",
            (shape, shape),
            tuple(steps),
            arena_bytes=8192 + 4 * NUM_ELEMS,
            arena_lower_bound_bytes=4 * NUM_ELEMS,
            canary=check if canary else None,
        ),
        _single("sum", sum_step, (1, 64 * SUM_BLOCKS), (1, SUM_BLOCKS // SUM_CLUSTER)),
        _single("reverse", reverse_step, shape, shape),
        _single("gate", Step("gate", 4, (1, 1, 1), (x, y)), (1, 1), (1, 1)),
        _single("fault", Step("fault", 5, (1, 1, 1), (x, y)), (1, 1), (1, 1)),
    )
    variant = Variant(
        fingerprint,
        (CodeObject(kind, architecture, toolchain, code),),
        tuple(Kernel(symbol, 0) for symbol in SYMBOLS),
        profiles,
    )
    bindings = (Binding("x", True, DataType.FLOAT32), Binding("y", False, DataType.FLOAT32))
    data = first_weights + struct.pack("<2f", SCALE, SHIFT)
    whole = len(data) // 4096 * 4096
    lengths = tuple(size for size in (whole, len(data) - whole) if size)
    return Plan("tiny", bindings, (variant,), data, lengths, {"made_by": "tests"})


def expected_value(x: float, num_pairs: int = 1) -> float:
    """What `fast` computes for one element; exact for canary inputs and one pair."""
    for _ in range(num_pairs):
        x = x * SCALE + SHIFT
    return x


def _single(name: str, step: Step, x: tuple[int, ...], y: tuple[int, ...]) -> Profile:
    return Profile(name, (x, y), (step,), arena_bytes=0, arena_lower_bound_bytes=0)
