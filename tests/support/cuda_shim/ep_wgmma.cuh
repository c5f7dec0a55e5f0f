// Stand-in for the product's ep_wgmma.cuh: a product is done at once, each lane reads its operands.
#pragma once
#include "ep_cuda.cuh"

EP_DEVICE void ep_wgmma_begin() {}
EP_DEVICE void ep_wgmma_commit() {}
template <int num_open>
EP_DEVICE void ep_wgmma_wait() {}
EP_DEVICE void ep_wgmma_publish() {}

// Element of a row of 64 halves whose 16-byte chunks are exchanged.
EP_DEVICE float emu_wgmma_element(unsigned start, int row, int k) {
    const unsigned at = start + row * 128 + k * 2;
    return (float)*(const half *)(emu::shared_memory() + (at ^ ((at >> 7 & 7) << 4)));
}

template <int columns>
EP_DEVICE void ep_wgmma_f16(float (&d)[columns / 2], const void *a, const void *b) {
    const unsigned a_start = ep_shared_address(a), b_start = ep_shared_address(b);
    if (a_start % 32 || b_start % 32) {
        emu::fail("an operand of a warp group's product is not aligned to 16 k values");
    }
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    for (int j = 0; j < columns / 8; ++j) {
        for (int h = 0; h < 2; ++h) {
            for (int e = 0; e < 2; ++e) {
                const int row = warp * 16 + lane / 4 + h * 8, column = j * 8 + lane % 4 * 2 + e;
                float sum = d[j * 4 + h * 2 + e];
                for (int k = 0; k < 16; ++k) {
                    sum += emu_wgmma_element(a_start, row, k) *
                           emu_wgmma_element(b_start, column, k);
                }
                d[j * 4 + h * 2 + e] = sum;
            }
        }
    }
}
