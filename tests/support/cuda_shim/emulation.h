// CUDA threads on a CPU: every thread of a cluster of blocks is a coroutine of one system thread.
//
// A thread runs until it waits at a barrier (warp, block or cluster); then another one runs. Warp
// instructions (shuffles, mma, ldmatrix) exchange their operands through per-warp slots. Threads
// run in ascending or, on request, descending order, so that a missing barrier shows as a
// difference. Dynamic shared memory and stacks start as NaN.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __global__ __attribute__((visibility("default")))
#define __device__ inline
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __cluster_dims__(...)
#define EP_EMULATION 1

struct dim3 {
    unsigned x, y, z;
};
typedef struct __align__(16) { unsigned x, y, z, w; } uint4;
typedef struct __align__(8) { unsigned x, y; } uint2;
typedef struct __align__(16) { int x, y, z, w; } int4;
typedef struct __align__(8) { int x, y; } int2;
typedef struct __align__(16) { float x, y, z, w; } float4;
typedef struct __align__(8) { float x, y; } float2;
static inline float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return float2{x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return uint4{x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return int4{x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return int2{x, y}; }

namespace emu {

constexpr int kWarp = 32;
constexpr int kStackBytes = 96 * 1024;
constexpr int kSlotBytes = 256;  // operands of one lane in one warp instruction
constexpr int kMaxCopies = 4096;

struct Barrier {
    int waiting = 0, generation = 0, members = 0;
};

constexpr int kMaxClusterBlocks = 16, kMaxArrivals = 8;  // counting barriers of a block

struct Arrival {
    Barrier barrier;
    int left = 1, bytes = 0;  // announcements and bytes that the phase still waits for
};

struct Copy {
    void *to;
    const void *from;
    int bytes, zeros, group;
};

struct Warp {
    Barrier barrier;
    int num_lanes = 0;
    unsigned turn = 0;
    unsigned char slots[2][kWarp][kSlotBytes];
};

struct Block {
    Barrier barrier;
    dim3 index;
    int rank = 0;
    unsigned char *shared = nullptr;
    Warp *warps = nullptr;
};

struct Thread {
    void *stack_pointer = nullptr;
    unsigned char *stack = nullptr;
    Block *block = nullptr;
    Warp *warp = nullptr;
    dim3 index;
    int lane = 0;
    bool is_done = false;
    const Barrier *waits_for = nullptr;
    int waits_generation = 0, arrived_generation = 0;
    unsigned turn = 0;
    Copy *copies = nullptr;
    int num_copies = 0, num_groups = 0, num_finished = 0;
};

extern Thread *current;
extern Barrier cluster_barrier;
extern Arrival arrivals[kMaxClusterBlocks * kMaxArrivals];
extern dim3 grid_extent, block_extent;
extern int cluster_size;
extern Block *cluster_blocks;
extern int shared_bytes;

void yield();

static inline void fail(const char *text) {
    fprintf(stderr, "emulation: %s\n", text);
    abort();
}

static inline void wait_at(Barrier *barrier) {
    if (++barrier->waiting >= barrier->members) {
        barrier->waiting = 0;
        barrier->generation++;
        return;
    }
    current->waits_for = barrier;
    current->waits_generation = barrier->generation;
    yield();
}

// The two halves of a barrier; a thread waits for the generation that it arrived in.
static inline void arrive_at(Barrier *barrier) {
    current->arrived_generation = barrier->generation;
    if (++barrier->waiting >= barrier->members) {
        barrier->waiting = 0;
        barrier->generation++;
    }
}
static inline void wait_for(Barrier *barrier) {
    if (barrier->generation != current->arrived_generation) return;
    current->waits_for = barrier;
    current->waits_generation = current->arrived_generation;
    yield();
}

// Give this lane's operands, get all lanes' operands; valid until the lane's next but one exchange.
static inline const unsigned char (*exchange(const void *operands, int bytes))[kSlotBytes] {
    Warp *warp = current->warp;
    unsigned turn = current->turn++ & 1;
    if (bytes > kSlotBytes) fail("operands of a warp instruction exceed their slot");
    memcpy(warp->slots[turn][current->lane], operands, bytes);
    wait_at(&warp->barrier);
    return warp->slots[turn];
}

static inline unsigned char *shared_memory() { return current->block->shared; }

}  // namespace emu

#define threadIdx (emu::current->index)
#define blockIdx (emu::current->block->index)
#define blockDim (emu::block_extent)
#define gridDim (emu::grid_extent)
#define warpSize 32

static inline void __syncthreads() { emu::wait_at(&emu::current->block->barrier); }
static inline void __syncwarp(unsigned = ~0u) { emu::wait_at(&emu::current->warp->barrier); }

template <typename T>
static inline T emu_lane_value(T value, int lane) {
    auto slots = emu::exchange(&value, sizeof value);
    T result;
    memcpy(&result, slots[lane], sizeof result);
    return result;
}
template <typename T>
static inline T __shfl_sync(unsigned, T value, int lane, int width = 32) {
    int own = emu::current->lane;
    return emu_lane_value(value, (own / width) * width + ((unsigned)lane) % width);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
    int own = emu::current->lane, from = own ^ mask;
    return emu_lane_value(value, from / width == own / width ? from : own);
}
template <typename T>
static inline T __shfl_down_sync(unsigned, T value, int delta, int width = 32) {
    int own = emu::current->lane;
    return emu_lane_value(value, own % width + delta < width ? own + delta : own);
}
template <typename T>
static inline T __shfl_up_sync(unsigned, T value, int delta, int width = 32) {
    int own = emu::current->lane;
    return emu_lane_value(value, own % width >= delta ? own - delta : own);
}
static inline unsigned __ballot_sync(unsigned, int predicate) {
    int value = predicate != 0;
    auto slots = emu::exchange(&value, sizeof value);
    unsigned result = 0;
    for (int lane = 0; lane < emu::current->warp->num_lanes; lane++) {
        int one;
        memcpy(&one, slots[lane], sizeof one);
        result |= (unsigned)one << lane;
    }
    return result;
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }

template <typename T>
static inline T atomicAdd(T *to, T value) {
    T old = *to;
    *to = old + value;
    return old;
}
template <typename T>
static inline T __ldg(const T *p) { return *p; }
static inline float __int_as_float(int v) { float r; memcpy(&r, &v, 4); return r; }
static inline int __float_as_int(float v) { int r; memcpy(&r, &v, 4); return r; }
static inline float __uint_as_float(unsigned v) { float r; memcpy(&r, &v, 4); return r; }
static inline unsigned __float_as_uint(float v) { unsigned r; memcpy(&r, &v, 4); return r; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline long long min(long long a, long long b) { return a < b ? a : b; }
static inline long long max(long long a, long long b) { return a > b ? a : b; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float emu_rsqrtf(float x) { return 1.0f / sqrtf(x); }
#define rsqrtf emu_rsqrtf
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
