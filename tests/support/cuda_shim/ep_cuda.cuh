// Stand-in for the product's ep_cuda.cuh: the same functions on emulated threads.
#pragma once
#include "cuda_fp16.h"

#ifndef EP_ARCH
#define EP_ARCH 90
#endif
#define EP_KERNEL extern "C" __global__ void
#define EP_DEVICE static inline __attribute__((unused))
#define EP_RESTRICT __restrict
#define EP_UNROLL
#define EP_NO_UNROLL
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

EP_DEVICE void ep_grid_wait() {}
EP_DEVICE void ep_grid_wait_to_store() {}
EP_DEVICE void ep_grid_launch() {}

EP_DEVICE unsigned ep_shared_address(const void *p) {
    return (unsigned)((const unsigned char *)p - emu::shared_memory());
}
EP_DEVICE bool ep_is_aligned(const void *p, unsigned bytes) {
    return ((uint64_t)p & (bytes - 1)) == 0;
}
EP_DEVICE void emu_require_aligned(const void *p, unsigned bytes) {
    if (!ep_is_aligned(p, bytes)) emu::fail("a vector access is not aligned");
}
EP_DEVICE uint4 ep_load16(const void *p) {
    emu_require_aligned(p, 16);
    return *(const uint4 *)p;
}
EP_DEVICE void ep_store16(void *p, uint4 v) {
    emu_require_aligned(p, 16);
    *(uint4 *)p = v;
}
EP_DEVICE uint4 ep_load16_stream(const void *p) { return ep_load16(p); }
EP_DEVICE void ep_prefetch_l2(const void *) {}

EP_DEVICE float ep_half_to_float(half x) { return __half2float(x); }
EP_DEVICE half ep_float_to_half(float x) { return __float2half_rn(x); }
EP_DEVICE unsigned ep_pack_half2(float low, float high) {
    return __half_as_ushort(half(low)) | (unsigned)__half_as_ushort(half(high)) << 16;
}
EP_DEVICE float ep_unpack_low(unsigned bits) {
    return (float)__ushort_as_half((unsigned short)bits);
}
EP_DEVICE float ep_unpack_high(unsigned bits) {
    return (float)__ushort_as_half((unsigned short)(bits >> 16));
}
EP_DEVICE void ep_unpack_half8(uint4 bits, float (&x)[8]) {
    const unsigned parts[4] = {bits.x, bits.y, bits.z, bits.w};
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = ep_unpack_low(parts[i]);
        x[2 * i + 1] = ep_unpack_high(parts[i]);
    }
}
EP_DEVICE uint4 ep_pack_half8(const float (&x)[8]) {
    return make_uint4(ep_pack_half2(x[0], x[1]), ep_pack_half2(x[2], x[3]),
                      ep_pack_half2(x[4], x[5]), ep_pack_half2(x[6], x[7]));
}
EP_DEVICE unsigned ep_max_half2(unsigned a, unsigned b) {
    auto larger = [](float x, float y) { return (x > y || x != x) ? x : y; };
    return ep_pack_half2(larger(ep_unpack_low(a), ep_unpack_low(b)),
                         larger(ep_unpack_high(a), ep_unpack_high(b)));
}

EP_DEVICE float ep_exp2_fast(float x) { return exp2f(x); }
EP_DEVICE float ep_reciprocal_fast(float x) { return 1.0f / x; }

template <int width = 32>
EP_DEVICE float ep_warp_sum(float x) {
    for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}
template <int width = 32>
EP_DEVICE float ep_warp_max(float x) {
    for (int step = width / 2; step > 0; step /= 2) {
        const float y = __shfl_xor_sync(~0u, x, step);
        x = (x > y || x != x) ? x : y;
    }
    return x;
}

// Copies happen when they are waited for, no sooner: a forgotten wait shows.
EP_DEVICE void emu_copy(void *to, const void *from, int bytes, bool is_valid) {
    emu_require_aligned(to, bytes);
    emu::Thread *t = emu::current;
    if (EP_ARCH < 80) {
        is_valid ? memcpy(to, from, bytes) : memset(to, 0, bytes);
        return;
    }
    if (is_valid) emu_require_aligned(from, bytes);
    if (t->num_copies == emu::kMaxCopies) emu::fail("too many copies under way");
    if (!t->copies) t->copies = (emu::Copy *)malloc(sizeof(emu::Copy) * emu::kMaxCopies);
    t->copies[t->num_copies++] = emu::Copy{to, from, bytes, !is_valid, t->num_groups};
}
EP_DEVICE void ep_cp_async16(void *to, const void *from) { emu_copy(to, from, 16, true); }
EP_DEVICE void ep_cp_async16_zero(void *to, const void *from, bool is_valid) {
    emu_copy(to, from, 16, is_valid);
}
EP_DEVICE void ep_cp_async4_zero(void *to, const void *from, bool is_valid) {
    emu_copy(to, from, 4, is_valid);
}
EP_DEVICE void ep_cp_async_commit() { emu::current->num_groups++; }
template <int num_open>
EP_DEVICE void ep_cp_async_wait() {
    emu::Thread *t = emu::current;
    int kept = 0;
    for (int i = 0; i < t->num_copies; i++) {
        const emu::Copy &copy = t->copies[i];
        if (copy.group >= t->num_groups - num_open) {
            t->copies[kept++] = copy;
        } else if (copy.zeros) {
            memset(copy.to, 0, copy.bytes);
        } else {
            memcpy(copy.to, copy.from, copy.bytes);
        }
    }
    t->num_copies = kept;
}

template <int count>
EP_DEVICE void emu_ldmatrix(unsigned (&r)[count], const void *row, bool is_transposed) {
    emu_require_aligned(row, 16);
    auto slots = emu::exchange(&row, sizeof row);
    const int lane = emu::current->lane;
    for (int m = 0; m < count; m++) {
        unsigned short pair[2];
        for (int i = 0; i < 2; i++) {
            const int from_row = is_transposed ? lane % 4 * 2 + i : lane / 4;
            const int column = is_transposed ? lane / 4 : lane % 4 * 2 + i;
            const unsigned short *p;
            memcpy(&p, slots[m * 8 + from_row], sizeof p);
            pair[i] = p[column];
        }
        r[m] = pair[0] | (unsigned)pair[1] << 16;
    }
    emu::wait_at(&emu::current->warp->barrier);  // a real warp reads all of it at once
}
EP_DEVICE void ep_ldmatrix_x4(unsigned (&r)[4], const void *row) { emu_ldmatrix(r, row, false); }
EP_DEVICE void ep_ldmatrix_x2(unsigned (&r)[2], const void *row) { emu_ldmatrix(r, row, false); }
EP_DEVICE void ep_ldmatrix_x4_trans(unsigned (&r)[4], const void *row) {
    emu_ldmatrix(r, row, true);
}
EP_DEVICE void ep_ldmatrix_x2_trans(unsigned (&r)[2], const void *row) {
    emu_ldmatrix(r, row, true);
}

EP_DEVICE void ep_mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const unsigned own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    auto slots = emu::exchange(own, sizeof own);
    const int lane = emu::current->lane, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        const int row = g + i / 2 * 8, column = 2 * t + i % 2;
        float sum = d[i];
        for (int k = 0; k < 16; k++) {
            const _Float16 *left = (const _Float16 *)slots[row % 8 * 4 + k % 8 / 2];
            const _Float16 *right = (const _Float16 *)slots[column * 4 + k % 8 / 2];
            sum += (float)left[(k / 8 * 2 + row / 8) * 2 + k % 2] *
                   (float)right[(4 + k / 8) * 2 + k % 2];
        }
        d[i] = sum;
    }
}
EP_DEVICE unsigned ep_to_tf32(float x) {
    return (__float_as_uint(x) + 0x1000u) & ~0x1fffu;
}
EP_DEVICE void ep_mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const unsigned own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    auto slots = emu::exchange(own, sizeof own);
    const int lane = emu::current->lane, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        const int row = g + i / 2 * 8, column = 2 * t + i % 2;
        float sum = d[i];
        for (int k = 0; k < 8; k++) {
            const unsigned *left = (const unsigned *)slots[row % 8 * 4 + k % 4];
            const unsigned *right = (const unsigned *)slots[column * 4 + k % 4];
            sum += __uint_as_float(left[k / 4 * 2 + row / 8] & ~0x1fffu) *
                   __uint_as_float(right[4 + k / 4] & ~0x1fffu);
        }
        d[i] = sum;
    }
}
template <bool is_signed>
EP_DEVICE void ep_mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const unsigned own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    auto slots = emu::exchange(own, sizeof own);
    const int lane = emu::current->lane, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        const int row = g + i / 2 * 8, column = 2 * t + i % 2;
        unsigned sum = (unsigned)d[i];  // wraps, as on the device
        for (int k = 0; k < 32; k++) {
            const unsigned char *left = (const unsigned char *)slots[row % 8 * 4 + k % 16 / 4];
            const signed char *right = (const signed char *)slots[column * 4 + k % 16 / 4];
            const unsigned char byte = left[(k / 16 * 2 + row / 8) * 4 + k % 4];
            const int factor = is_signed ? (int)(signed char)byte : (int)byte;
            sum += (unsigned)(factor * (int)right[(4 + k / 16) * 4 + k % 4]);
        }
        d[i] = (int)sum;
    }
}
template <bool is_signed>
EP_DEVICE int ep_dot4(unsigned a, unsigned b, int sum) {
    for (int i = 0; i < 4; i++) {
        const unsigned char byte = (unsigned char)(a >> 8 * i);
        const int factor = is_signed ? (int)(signed char)byte : (int)byte;
        sum += factor * (int)(ep_i8)(b >> 8 * i);
    }
    return sum;
}

EP_DEVICE unsigned ep_cluster_rank() { return emu::current->block->rank; }
EP_DEVICE void ep_cluster_sync() { emu::wait_at(&emu::cluster_barrier); }
EP_DEVICE void ep_cluster_arrive() { emu::arrive_at(&emu::cluster_barrier); }
EP_DEVICE void ep_cluster_wait() { emu::wait_for(&emu::cluster_barrier); }
EP_DEVICE float ep_cluster_load(const float *local, unsigned rank) {
    if ((int)rank >= emu::cluster_size) emu::fail("no block of that rank in the cluster");
    const unsigned char *base = emu::cluster_blocks[rank].shared;
    return *(const float *)(base + ep_shared_address(local));
}
EP_DEVICE float4 ep_cluster_load4(const float *local, unsigned rank) {
    emu_require_aligned(local, 16);
    if ((int)rank >= emu::cluster_size) emu::fail("no block of that rank in the cluster");
    const unsigned char *base = emu::cluster_blocks[rank].shared;
    return *(const float4 *)(base + ep_shared_address(local));
}
EP_DEVICE void ep_cluster_store2(float *local, unsigned rank, float2 v) {
    emu_require_aligned(local, 8);
    if ((int)rank >= emu::cluster_size) emu::fail("no block of that rank in the cluster");
    *(float2 *)(emu::cluster_blocks[rank].shared + ep_shared_address(local)) = v;
}
EP_DEVICE void ep_cluster_store4(float *local, unsigned rank, float4 v) {
    emu_require_aligned(local, 16);
    if ((int)rank >= emu::cluster_size) emu::fail("no block of that rank in the cluster");
    *(float4 *)(emu::cluster_blocks[rank].shared + ep_shared_address(local)) = v;
}
// Rank above 20 bits of offset: shared memory is smaller than that.
EP_DEVICE unsigned ep_cluster_address(const void *local, unsigned rank) {
    if ((int)rank >= emu::cluster_size) emu::fail("no block of that rank in the cluster");
    return rank << 20 | ep_shared_address(local);
}

// Counting barriers live in a table beside shared memory, found by their place in it.
EP_DEVICE emu::Arrival *emu_arrival(unsigned address) {
    const unsigned place = (address & 0xfffff) / 8 % emu::kMaxArrivals;
    return &emu::arrivals[(address >> 20) * emu::kMaxArrivals + place];
}
EP_DEVICE unsigned emu_own_address(const void *p) {
    return (unsigned)emu::current->block->rank << 20 | ep_shared_address(p);
}
EP_DEVICE void emu_count(emu::Arrival *one) {
    if (one->left || one->bytes) return;
    one->left = 1;
    one->barrier.generation++;
}
EP_DEVICE void ep_arrival_init(ep_u64 *barrier) {
    *emu_arrival(emu_own_address(barrier)) = emu::Arrival{{}, 1, 0};
}
EP_DEVICE void ep_arrival_expect(ep_u64 *barrier, unsigned bytes) {
    emu::Arrival *one = emu_arrival(emu_own_address(barrier));
    if (!one->left) emu::fail("bytes are announced twice in one phase");
    one->left = 0;
    one->bytes += (int)bytes;
    emu_count(one);
}
EP_DEVICE void ep_arrival_wait(ep_u64 *barrier, unsigned parity) {
    emu::Arrival *one = emu_arrival(emu_own_address(barrier));
    if ((unsigned)one->barrier.generation % 2 != parity) return;
    emu::current->waits_for = &one->barrier;
    emu::current->waits_generation = one->barrier.generation;
    emu::yield();
}
EP_DEVICE void ep_cluster_send16(unsigned address, uint4 v, unsigned barrier_address) {
    if (address % 16) emu::fail("a store to another block is not aligned");
    memcpy(emu::cluster_blocks[address >> 20].shared + (address & 0xfffff), &v, 16);
    emu::Arrival *one = emu_arrival(barrier_address);
    one->bytes -= 16;
    emu_count(one);
}

#include "ep_cuda_math.cuh"
