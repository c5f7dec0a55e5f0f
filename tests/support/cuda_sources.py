"""CUDA C++ sources for tests of the toolchain."""

from __future__ import annotations

FEATURES = r"""
#include <cuda_fp16.h>
#if __CUDA_ARCH__ >= 700
#include <mma.h>
#endif

extern "C" __global__ void __launch_bounds__(256) halves(const half2* a, half2* b) {
    b[threadIdx.x] = __hfma2(a[threadIdx.x], a[threadIdx.x + 1], b[threadIdx.x]);
}

#if __CUDA_ARCH__ >= 610 && __CUDA_ARCH__ != 620
extern "C" __global__ void __launch_bounds__(128) dp4a(const int* a, const int* b, int* c) {
    c[threadIdx.x] = __dp4a(a[threadIdx.x], b[threadIdx.x], c[threadIdx.x]);
}
#endif

#if __CUDA_ARCH__ >= 700
extern "C" __global__ void __launch_bounds__(32) wmma_f16(const half* a, const half* b, float* c) {
    using namespace nvcuda::wmma;
    fragment<matrix_a, 16, 16, 16, half, row_major> fa;
    fragment<matrix_b, 16, 16, 16, half, col_major> fb;
    fragment<accumulator, 16, 16, 16, float> fc;
    fill_fragment(fc, 0.0f);
    load_matrix_sync(fa, a, 16);
    load_matrix_sync(fb, b, 16);
    mma_sync(fc, fa, fb, fc);
    store_matrix_sync(c, fc, 16, mem_row_major);
}
#endif

#if __CUDA_ARCH__ >= 750
extern "C" __global__ void __launch_bounds__(32) mma_s8(const int* a, int* c) {
    int x = a[threadIdx.x], d[2] = {0, 0};
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(d[0]), "+r"(d[1]) : "r"(x), "r"(x));
    c[2 * threadIdx.x] = d[0];
    c[2 * threadIdx.x + 1] = d[1];
}

extern "C" __global__ void __launch_bounds__(32) mma_f16(const unsigned* a, float* c) {
    __shared__ __align__(16) unsigned tile[128];
    tile[threadIdx.x] = a[threadIdx.x];
    __syncwarp();
    unsigned r[2];
    unsigned where = (unsigned)__cvta_generic_to_shared(tile + 4 * (threadIdx.x & 15));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(where));
    float d[4] = {0, 0, 0, 0};
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(r[0]), "r"(r[1]), "r"(a[threadIdx.x]));
    for (int i = 0; i < 4; i++) c[4 * threadIdx.x + i] = d[i];
}
#endif

#if __CUDA_ARCH__ >= 800
extern "C" __global__ void __launch_bounds__(32) mma_async(const uint4* a, float* c) {
    extern __shared__ uint4 stage[];
    unsigned where = (unsigned)__cvta_generic_to_shared(stage + threadIdx.x);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(where), "l"(a + threadIdx.x));
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
    uint4 r = stage[threadIdx.x];
    float d[4] = {0, 0, 0, 0};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(r.x), "r"(r.y), "r"(r.z), "r"(r.w), "r"(r.x), "r"(r.y));
    for (int i = 0; i < 4; i++) c[4 * threadIdx.x + i] = d[i];
}
#endif

#if __CUDA_ARCH__ >= 900
extern "C" __global__ void __launch_bounds__(64) dependent(const float* a, float* b) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("barrier.cluster.arrive.aligned;\n barrier.cluster.wait.aligned;" ::: "memory");
    b[threadIdx.x] = a[threadIdx.x];
}
#endif

#if __CUDA_ARCH__ >= 900 && __CUDACC_VER_MAJOR__ >= 12
extern "C" __global__ void __launch_bounds__(32) tma(const void* map, float* c) {
    __shared__ __align__(128) float tile[256];
    __shared__ __align__(8) unsigned long long barrier;
    unsigned where = (unsigned)__cvta_generic_to_shared(tile);
    unsigned done = (unsigned)__cvta_generic_to_shared(&barrier);
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %2}], [%3];"
                 :: "r"(where), "l"(map), "r"(0), "r"(done) : "memory");
    c[threadIdx.x] = tile[threadIdx.x];
}
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
extern "C" __global__ void __launch_bounds__(128) wgmma(float* c) {
    asm volatile("wgmma.fence.sync.aligned;\n wgmma.commit_group.sync.aligned;\n"
                 "wgmma.wait_group.sync.aligned 0;" ::: "memory");
    c[threadIdx.x] = 1.0f;
}
#endif
"""
"""One kernel for each group of instructions that the architecture has."""

SPILLING = r"""
extern "C" __global__ void __launch_bounds__(1024) spilling(const float* a, float* b, int n) {
    float r[96];
    #pragma unroll
    for (int i = 0; i < 96; i++) r[i] = a[i * n + threadIdx.x];
    for (int k = 0; k < n; k++) {
        #pragma unroll
        for (int i = 0; i < 96; i++) r[i] = fmaf(r[i], r[(i + 1) % 96], a[k]);
    }
    #pragma unroll
    for (int i = 0; i < 96; i++) b[i * n + threadIdx.x] = r[i];
}
"""
"""A kernel whose 96 live values do not fit into the 64 registers that 1,024 threads leave."""


def copy_kernel(name: str, static_shared_bytes: int = 2048, threads: int = 256) -> str:
    """A kernel that passes data through static shared memory."""
    return f"""
extern "C" __global__ void __launch_bounds__({threads}) {name}(const float* a, float* b) {{
    __shared__ float tile[{static_shared_bytes // 4}];
    tile[threadIdx.x] = a[threadIdx.x];
    __syncthreads();
    b[threadIdx.x] = tile[threadIdx.x ^ 1];
}}
"""
