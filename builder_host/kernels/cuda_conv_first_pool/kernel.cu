// First layer on tensor cores, and the maximum of 2x2 windows of its result, which is never stored.
//
// At most four input channels, row-major or NHWC, of float or half. A block computes
// TILE_H x TILE_W pixels x TILE_FILTERS filters: whole windows, whose pixels are neighbouring rows
// of the product (windows.cuh). The input patch lies in shared memory with four halves per pixel,
// so that a kernel row's taps are neighbouring k values and eight matrix rows are eight pixels in a
// row; with an odd stride a second copy of the patch, shifted by one pixel, keeps those of odd
// columns aligned. Taps of a kernel row are padded with zero weights to a multiple of four.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_first_pool
#define BATCH 1
#define GROUPS 1
#define CHANNELS 3
#define FILTERS 32
#define GROUP_FILTERS 32
#define IN_H 416
#define IN_W 416
#define OUT_H 416
#define OUT_W 416
#define POOLED_H 208
#define POOLED_W 208
#define KERNEL_H 3
#define KERNEL_W 3
#define STRIDE_H 1
#define STRIDE_W 1
#define PAD_TOP 1
#define PAD_LEFT 1
#define DILATION_H 1
#define IS_TRANSPOSED 0
#define DILATION_W 1
#define X_TYPE half
#define Y_TYPE half
#define X_N 519168
#define X_C 173056
#define X_H 416
#define X_W 1
#define Y_N 1384448
#define Y_C 1
#define Y_H 6656
#define Y_W 32
#define Y_VECTOR 8
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define EPILOGUE x0
#define TILE_PIXELS 128
#define TILE_H 8
#define TILE_W 16
#define TILE_FILTERS 32
#define WARPS_M 4
#define WARPS_N 1
// end of parameters
#define WARPS_K 1
#define SPLITS 1
#define USES_CLUSTER 0
#include "convolution.cuh"
#include "sums.cuh"
#include "windows.cuh"

constexpr int kTapQuads = (KERNEL_W + 3) / 4;  // 16 k values each
constexpr int kSteps = KERNEL_H * kTapQuads;
constexpr int kPatchH = (TILE_H - 1) * STRIDE_H + (KERNEL_H - 1) * DILATION_H + 1;
constexpr int kPatchW = ((TILE_W - 1) * STRIDE_W + kTapQuads * 4 + 2) / 2 * 2;
constexpr int kPatch = kPatchH * kPatchW;
constexpr bool kHasShifted = STRIDE_W % 2 == 1;
// Halves; the shifted copy starts half a row of banks later.
constexpr int kCopy = (kPatch * 4 + 63) / 64 * 64 + 32;
constexpr int kWeights = kSteps * 16 * TILE_FILTERS;  // halves
constexpr int kTilesH = (OUT_H + TILE_H - 1) / TILE_H;
constexpr int kTilesW = (OUT_W + TILE_W - 1) / TILE_W;

EP_DEVICE uint2 pixel_at(const X_TYPE *x, int ih, int iw) {
  float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (static_cast<unsigned>(ih) < static_cast<unsigned>(IN_H) &&
      static_cast<unsigned>(iw) < static_cast<unsigned>(IN_W)) {
    EP_UNROLL
    for (int c = 0; c < CHANNELS; ++c) v[c] = ep_to_float(x[ih * X_H + iw * X_W + c * X_C]);
  }
  return make_uint2(ep_pack_half2(v[0], v[1]), ep_pack_half2(v[2], v[3]));
}

EP_DEVICE void load_patch(half *patch, const X_TYPE *x, int first_h, int first_w) {
  uint2 *whole = reinterpret_cast<uint2 *>(patch), *shifted = whole + kCopy / 4;
  for (int at = threadIdx.x; at < kPatch; at += kThreads) {
    const int row = at / kPatchW;
    const uint2 pixel = pixel_at(x, first_h + row, first_w + at - row * kPatchW);
    whole[at] = pixel;
    if (kHasShifted && at > 0) shifted[at - 1] = pixel;
  }
  // The last place of the shifted copy meets zero weights only, which a NaN would survive.
  if (kHasShifted && threadIdx.x == 0) shifted[kPatch - 1] = make_uint2(0, 0);
}

EP_KERNEL __launch_bounds__(kThreads) SYMBOL(const X_TYPE *x, const half *w OPERAND_PARAMETERS,
                                             Y_TYPE *y) {
  extern __shared__ __align__(128) unsigned char shared[];
  half *weights = reinterpret_cast<half *>(shared), *patch = weights + kWeights;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
  const int n = blockIdx.x / (kTilesH * kTilesW), place = blockIdx.x - n * (kTilesH * kTilesW);
  const int first_oh = place / kTilesW * TILE_H, first_ow = place % kTilesW * TILE_W;

  w += blockIdx.y * kWeights;
  for (int i = threadIdx.x; i < kWeights / 8; i += kThreads) {
    ep_cp_async16(weights + i * 8, w + i * 8);
  }
  ep_cp_async_commit();
  ep_grid_wait();
  ep_grid_launch();
  load_patch(patch, x + n * X_N, first_oh * STRIDE_H - PAD_TOP, first_ow * STRIDE_W - PAD_LEFT);
  ep_cp_async_wait<0>();
  __syncthreads();

  const half *a_rows[kTilesM];
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    int row, column;
    place_of_row((warp_m * kTilesM + i) * 16 + lane % 16, row, column);
    column *= STRIDE_W;
    a_rows[i] = patch + (kHasShifted ? column % 2 * (kCopy - 4) : 0) +
                (row * STRIDE_H * kPatchW + column + lane / 16 * 2) * 4;
  }
  const uint4 *b_chunks =
      reinterpret_cast<const uint4 *>(weights) + warp_n * (kTilesN / 2) * 32 + lane;
  Sums acc;
  clear(acc);
  EP_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    Fragments fragments;
    load_fragments(fragments, a_rows,
                   (step / kTapQuads * DILATION_H * kPatchW + step % kTapQuads * 4) * 4,
                   b_chunks + step * (TILE_FILTERS / 16) * 32);
    multiply(acc, fragments);
  }
  ep_grid_wait_to_store();
  store_windows(acc, n, first_oh / 2, first_ow / 2, warp_m,
                blockIdx.y * TILE_FILTERS + warp_n * (kTilesN * 8), y OPERAND_NAMES);
}
