/* What generated CUDA kernels include: the instructions that C++ has no words for.
 *
 * Every inline assembly of the product is in this file, so that kernels also compile for a CPU
 * against a stand-in (tests/support/cuda_shim). Where an architecture lacks an instruction, the
 * function either does the same by other means (stated) or is not there.
 * Needs NVRTC or nvcc, C++17, CUDA 11.8 or later. Math functions: ep_cuda_math.cuh.
 */
#ifndef EP_CUDA_CUH
#define EP_CUDA_CUH

#include <cuda_fp16.h>

#ifdef __CUDA_ARCH__
#define EP_ARCH (__CUDA_ARCH__ / 10)
#else
#define EP_ARCH 0 /* the host pass of nvcc */
#endif

#define EP_KERNEL extern "C" __global__ void
#define EP_DEVICE static __device__ __forceinline__
#define EP_RESTRICT __restrict__
#define EP_UNROLL _Pragma("unroll")
#define EP_NO_UNROLL _Pragma("unroll 1")
#define EP_WARP 32
#define EP_ALL_LANES 0xffffffffu

typedef signed char ep_i8;
typedef unsigned char ep_u8;
typedef short ep_i16;
typedef unsigned short ep_u16;
typedef int ep_i32;
typedef unsigned int ep_u32;
typedef long long ep_i64;
typedef unsigned long long ep_u64;

/* --- programmatic dependent launch (sm_90 and later; elsewhere nothing) ---------------------- */

/* Wait until all earlier work in the stream is done and visible: before the first read of what an
 * earlier step wrote, and before the first write.
 * EP_STARTS_EARLY: the builder found that what the kernel reads was complete before the step ahead
 * began (builder_host/emit/early_start.py). It then waits before its first write only, and the two run
 * side by side; what it reads before that must not come from L1, which may hold older data. */
EP_DEVICE void ep_grid_wait() {
#if EP_ARCH >= 90 && !defined(EP_STARTS_EARLY)
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* Before the first write, in kernels that can start early. */
EP_DEVICE void ep_grid_wait_to_store() {
#if EP_ARCH >= 90 && defined(EP_STARTS_EARLY)
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* Let the next kernel start its own preparations. */
EP_DEVICE void ep_grid_launch() {
#if EP_ARCH >= 90
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* --- addresses and 16-byte accesses ------------------------------------------------------------ */

/* Address of shared memory as ldmatrix and cp.async want it. */
EP_DEVICE unsigned ep_shared_address(const void *p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
EP_DEVICE bool ep_is_aligned(const void *p, unsigned bytes) {
  return (reinterpret_cast<ep_u64>(p) & (bytes - 1)) == 0;
}
EP_DEVICE uint4 ep_load16(const void *p) { return *static_cast<const uint4 *>(p); }
EP_DEVICE void ep_store16(void *p, uint4 v) { *static_cast<uint4 *>(p) = v; }
/* Data that is read once in a launch and written by no kernel (weights): no place in L1 (sm_70). */
EP_DEVICE uint4 ep_load16_stream(const void *p) {
#if EP_ARCH < 70
  return __ldg(static_cast<const uint4 *>(p));
#else
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(p));
  return v;
#endif
}
/* Ask for a line to come to L2; never faults, orders nothing. */
EP_DEVICE void ep_prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

/* --- half ------------------------------------------------------------------------------------ */

EP_DEVICE float ep_half_to_float(half x) { return __half2float(x); }
EP_DEVICE half ep_float_to_half(float x) { return __float2half_rn(x); }
/* Two floats as two halves; `low` has the lower address. */
EP_DEVICE unsigned ep_pack_half2(float low, float high) {
  const half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const unsigned *>(&both);
}
EP_DEVICE float ep_unpack_low(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}
EP_DEVICE float ep_unpack_high(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits >> 16)));
}
EP_DEVICE void ep_unpack_half8(uint4 bits, float (&x)[8]) {
  const unsigned parts[4] = {bits.x, bits.y, bits.z, bits.w};
  EP_UNROLL
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = ep_unpack_low(parts[i]);
    x[2 * i + 1] = ep_unpack_high(parts[i]);
  }
}
EP_DEVICE uint4 ep_pack_half8(const float (&x)[8]) {
  return make_uint4(ep_pack_half2(x[0], x[1]), ep_pack_half2(x[2], x[3]),
                    ep_pack_half2(x[4], x[5]), ep_pack_half2(x[6], x[7]));
}
/* Larger (smaller) of two pairs of halves; a NaN stays one on sm_80 and later only. */
EP_DEVICE unsigned ep_max_half2(unsigned a, unsigned b) {
#if EP_ARCH >= 80
  unsigned r;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
#else
  const float low_a = ep_unpack_low(a), low_b = ep_unpack_low(b);
  const float high_a = ep_unpack_high(a), high_b = ep_unpack_high(b);
  const unsigned low = (low_a > low_b || low_a != low_a) ? a : b;
  const unsigned high = (high_a > high_b || high_a != high_a) ? a : b;
  return (low & 0xffffu) | (high & 0xffff0000u);
#endif
}

/* --- fast functions: 2 ulp, denormals are zero ------------------------------------------------- */

EP_DEVICE float ep_exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
EP_DEVICE float ep_reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* --- lanes of a warp ----------------------------------------------------------------------------- */

/* Sum (largest) over groups of `width` neighbouring lanes, the same bits in each of them.
 * All lanes of the warp must call; width is a power of two up to 32. */
template <int width = 32>
EP_DEVICE float ep_warp_sum(float x) {
  EP_UNROLL
  for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(EP_ALL_LANES, x, step);
  return x;
}
template <int width = 32>
EP_DEVICE float ep_warp_max(float x) {
  EP_UNROLL
  for (int step = width / 2; step > 0; step /= 2) {
    const float y = __shfl_xor_sync(EP_ALL_LANES, x, step);
    x = (x > y || x != x) ? x : y;
  }
  return x;
}

/* --- asynchronous copies from global to shared memory ---------------------------------------------
 * sm_80 and later; before that they are ordinary copies that have ended when the call returns.
 * Either way: commit, wait, then __syncthreads() before other threads read. */

/* 16 bytes past L1; both addresses are multiples of 16. */
EP_DEVICE void ep_cp_async16(void *shared, const void *global) {
#if EP_ARCH >= 80
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(ep_shared_address(shared)),
               "l"(global)
               : "memory");
#else
  *static_cast<uint4 *>(shared) = *static_cast<const uint4 *>(global);
#endif
}
/* The same, or 16 zero bytes where `is_valid` is false; `global` is then not read but must be an
 * address (any). */
EP_DEVICE void ep_cp_async16_zero(void *shared, const void *global, bool is_valid) {
#if EP_ARCH >= 80
  const int num_bytes = is_valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ep_shared_address(shared)),
               "l"(global), "r"(num_bytes)
               : "memory");
#else
  *static_cast<uint4 *>(shared) =
      is_valid ? *static_cast<const uint4 *>(global) : make_uint4(0, 0, 0, 0);
#endif
}
/* 4 bytes through L1, or 4 zero bytes; both addresses are multiples of 4. */
EP_DEVICE void ep_cp_async4_zero(void *shared, const void *global, bool is_valid) {
#if EP_ARCH >= 80
  const int num_bytes = is_valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(ep_shared_address(shared)),
               "l"(global), "r"(num_bytes)
               : "memory");
#else
  *static_cast<unsigned *>(shared) = is_valid ? *static_cast<const unsigned *>(global) : 0u;
#endif
}
/* End a group of copies. */
EP_DEVICE void ep_cp_async_commit() {
#if EP_ARCH >= 80
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Wait until at most `num_open` of this thread's latest groups are under way. */
template <int num_open>
EP_DEVICE void ep_cp_async_wait() {
#if EP_ARCH >= 80
  asm volatile("cp.async.wait_group %0;" ::"n"(num_open) : "memory");
#endif
}

/* --- matrix fragments and products (all 32 lanes together) -------------------------------------- */

#if EP_ARCH >= 75 || EP_ARCH == 0
/* 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8. */
EP_DEVICE void ep_ldmatrix_x4(unsigned (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(ep_shared_address(row))
               : "memory");
}
EP_DEVICE void ep_ldmatrix_x2(unsigned (&r)[2], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(ep_shared_address(row))
               : "memory");
}
EP_DEVICE void ep_ldmatrix_x4_trans(unsigned (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(ep_shared_address(row))
               : "memory");
}
EP_DEVICE void ep_ldmatrix_x2_trans(unsigned (&r)[2], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(ep_shared_address(row))
               : "memory");
}

/* d += a * b on fp16 with float sums: m16n8k16 (sm_75: two m16n8k8, the lower k first).
 * Lane l, g = l / 4, t = l % 4, pairs of halves:
 *   a[0]: row g, k 2t..   a[1]: row g + 8, k 2t..   a[2]: row g, k 2t + 8..   a[3]: row g + 8, ..
 *   b[0]: k 2t.., column g   b[1]: k 2t + 8.., column g
 *   d[0..1]: row g, columns 2t, 2t + 1   d[2..3]: row g + 8 */
EP_DEVICE void ep_mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if EP_ARCH >= 80
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif EP_ARCH >= 75
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}
#endif

#if EP_ARCH >= 80 || EP_ARCH == 0
/* A float rounded to tf32 (10 bits of fraction), nearest, ties away from zero. */
EP_DEVICE unsigned ep_to_tf32(float x) {
  unsigned r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}
/* d += a * b on tf32: m16n8k8. Lane l, g = l / 4, t = l % 4:
 *   a[0]: row g, k t   a[1]: row g + 8, k t   a[2]: row g, k t + 4   a[3]: row g + 8, k t + 4
 *   b[0]: k t, column g   b[1]: k t + 4, column g   d: as for fp16 */
EP_DEVICE void ep_mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

#if EP_ARCH >= 75 || EP_ARCH == 0
/* d += a * b on 8-bit integers, exact: m16n8k32 (sm_75: four m8n8k16). b is signed, a when
 * `is_signed`. Lane l, g = l / 4, t = l % 4, four bytes each:
 *   a[0]: row g, k 4t..   a[1]: row g + 8, k 4t..   a[2]: row g, k 4t + 16..   a[3]: row g + 8, ..
 *   b[0]: k 4t.., column g   b[1]: k 4t + 16.., column g   d: as for fp16 */
template <bool is_signed>
EP_DEVICE void ep_mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if EP_ARCH >= 80
  if constexpr (is_signed) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#elif EP_ARCH >= 75
  EP_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = i % 2, k = i / 2;
    if constexpr (is_signed) {
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                   : "+r"(d[2 * row]), "+r"(d[2 * row + 1])
                   : "r"(a[2 * k + row]), "r"(b[k]));
    } else {
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                   : "+r"(d[2 * row]), "+r"(d[2 * row + 1])
                   : "r"(a[2 * k + row]), "r"(b[k]));
    }
  }
#endif
}
#endif

/* sum + dot product of four bytes each, b signed, a when `is_signed`: one instruction on sm_61 and
 * later, except sm_62; four products elsewhere. */
template <bool is_signed>
EP_DEVICE int ep_dot4(unsigned a, unsigned b, int sum) {
#if EP_ARCH >= 61 && EP_ARCH != 62
  int found;
  if constexpr (is_signed) {
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(found) : "r"(a), "r"(b), "r"(sum));
  } else {
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(found) : "r"(a), "r"(b), "r"(sum));
  }
  return found;
#else
  EP_UNROLL
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = (a >> (8 * i)) & 0xffu;
    const int left = is_signed ? static_cast<ep_i8>(byte) : static_cast<int>(byte);
    sum += left * static_cast<int>(static_cast<ep_i8>(b >> (8 * i)));
  }
  return sum;
#endif
}

/* --- thread block clusters (sm_90 and later) ------------------------------------------------------ */

#if EP_ARCH >= 90 || EP_ARCH == 0
/* Number of this block within its cluster. */
EP_DEVICE unsigned ep_cluster_rank() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/* Barrier of all threads of the cluster; shared memory written before it is visible after it. */
EP_DEVICE void ep_cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}
/* The two halves of that barrier: what a thread has read or written before it arrives is done when
 * the others' wait ends; what it does in between is not waited for. All threads call both. */
EP_DEVICE void ep_cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
EP_DEVICE void ep_cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/* Read the place of `local` in the shared memory of block `rank` of the cluster. */
EP_DEVICE float ep_cluster_load(const float *local, unsigned rank) {
  unsigned address;
  float value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(ep_shared_address(local)), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
  return value;
}
EP_DEVICE float4 ep_cluster_load4(const float *local, unsigned rank) {
  unsigned address;
  float4 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(ep_shared_address(local)), "r"(rank));
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
/* Write to the place of `local` in the shared memory of block `rank`, which must have started: some
 * cluster barrier lies behind. The next one makes it visible there. */
EP_DEVICE void ep_cluster_store2(float *local, unsigned rank, float2 v) {
  unsigned address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(ep_shared_address(local)), "r"(rank));
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1,%2};" ::"r"(address), "f"(v.x), "f"(v.y)
               : "memory");
}
EP_DEVICE void ep_cluster_store4(float *local, unsigned rank, float4 v) {
  unsigned address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(ep_shared_address(local)), "r"(rank));
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address), "f"(v.x), "f"(v.y),
               "f"(v.z), "f"(v.w)
               : "memory");
}
/* Address of the place of `local` in the shared memory of block `rank`, for the stores below. */
EP_DEVICE unsigned ep_cluster_address(const void *local, unsigned rank) {
  unsigned address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(ep_shared_address(local)), "r"(rank));
  return address;
}

/* Counting barriers in shared memory (CUDA 12.2): 8 bytes each. A phase ends when the announced
 * bytes have arrived; bytes may arrive before they are announced. */

/* One thread sets a barrier up; a cluster barrier then makes it known to the other blocks. */
EP_DEVICE void ep_arrival_init(ep_u64 *barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(ep_shared_address(barrier))
               : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
/* One thread says, once in each phase, how many bytes the phase waits for. */
EP_DEVICE void ep_arrival_expect(ep_u64 *barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                   ep_shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
/* Wait for the end of the phase with this parity (0 for the first); what arrived is visible. */
EP_DEVICE void ep_arrival_wait(ep_u64 *barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(ep_shared_address(barrier)),
      "r"(parity)
      : "memory");
}
/* 16 bytes to another block, counted by a barrier of that block. */
EP_DEVICE void ep_cluster_send16(unsigned address, uint4 v, unsigned barrier_address) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1,%2,%3,%4}, "
      "[%5];" ::"r"(address),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier_address)
      : "memory");
}
#endif

#include "ep_cuda_math.cuh"

#endif
