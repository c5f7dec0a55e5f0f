// First layer on tensor cores: at most four input channels, row-major or NHWC, to NHWC.
//
// A block computes TILE_H x TILE_W pixels x TILE_FILTERS filters. The input patch lies in shared
// memory with four halves per pixel, so that a kernel row's taps are neighbouring k values and the
// matrix rows are read straight from the patch, without any copy per tap. Matrix rows start at
// multiples of two pixels; with an odd stride a second copy of the patch, shifted by one pixel,
// serves the odd ones. Taps of a kernel row are padded with zero weights to a multiple of four.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_first
#define CHANNELS 3
#define FILTERS 64
#define IN_H 224
#define IN_W 224
#define OUT_H 112
#define OUT_W 112
#define KERNEL_H 7
#define KERNEL_W 7
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 3
#define PAD_LEFT 3
#define DILATION_H 1
#define DILATION_W 1
#define IS_TRANSPOSED 0
#define X_TYPE half
#define Y_TYPE half
#define X_N 150528
#define X_C 50176
#define X_H 224
#define X_W 1
#define Y_N 802816
#define Y_C 1
#define Y_H 7168
#define Y_W 64
#define Y_VECTOR 8
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define EPILOGUE x0
#define TILE_H 8
#define TILE_W 16
#define TILE_FILTERS 64
#define WARPS_M 4
#define WARPS_N 2
// end of parameters
#include "convolution.cuh"

constexpr int kThreads = 32 * WARPS_M * WARPS_N;
constexpr int kTapQuads = (KERNEL_W + 3) / 4;  // 16 k values each
constexpr int kSteps = KERNEL_H * kTapQuads;
constexpr int kPatchH = (TILE_H - 1) * STRIDE_H + (KERNEL_H - 1) * DILATION_H + 1;
constexpr int kPatchW = ((TILE_W - 1) * STRIDE_W + kTapQuads * 4 + 2) / 2 * 2;
constexpr bool kHasShifted = STRIDE_W % 2 == 1;
// Halves; the shifted copy starts half a row of banks later.
constexpr int kCopy = (kPatchH * kPatchW * 4 + 63) / 64 * 64 + 32;
constexpr int kWeights = kSteps * 16 * TILE_FILTERS;  // halves
constexpr int kTilesM = TILE_H * TILE_W / WARPS_M / 16;
constexpr int kTilesN = TILE_FILTERS / WARPS_N / 8;
constexpr int kRun = kTilesN < 4 ? kTilesN : 4;
constexpr int kTilesW = (OUT_W + TILE_W - 1) / TILE_W;
constexpr int kTilesH = (OUT_H + TILE_H - 1) / TILE_H;

EP_DEVICE void load_patch(half *patch, const X_TYPE *x, int first_h, int first_w) {
  for (int at = threadIdx.x; at < kPatchH * kPatchW; at += kThreads) {
    const int row = at / kPatchW, column = at - row * kPatchW;
    const int ih = first_h + row, iw = first_w + column;
    const bool is_inside = static_cast<unsigned>(ih) < static_cast<unsigned>(IN_H) &&
                           static_cast<unsigned>(iw) < static_cast<unsigned>(IN_W);
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (is_inside) {
      EP_UNROLL
      for (int c = 0; c < CHANNELS; ++c) v[c] = ep_to_float(x[ih * X_H + iw * X_W + c * X_C]);
    }
    const uint2 pixel = make_uint2(ep_pack_half2(v[0], v[1]), ep_pack_half2(v[2], v[3]));
    reinterpret_cast<uint2 *>(patch)[at] = pixel;
    if (kHasShifted && at > 0) reinterpret_cast<uint2 *>(patch + kCopy)[at - 1] = pixel;
  }
  // The last place of the shifted copy meets zero weights only, which a NaN would survive.
  if (kHasShifted && threadIdx.x == 0) {
    reinterpret_cast<uint2 *>(patch + kCopy)[kPatchH * kPatchW - 1] = make_uint2(0, 0);
  }
}

EP_KERNEL __launch_bounds__(kThreads) SYMBOL(const X_TYPE *x, const half *w OPERAND_PARAMETERS,
                                             Y_TYPE *y) {
  extern __shared__ __align__(128) unsigned char shared[];
  half *weights = reinterpret_cast<half *>(shared), *patch = weights + kWeights;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
  const int tile = blockIdx.x;
  const int n = tile / (kTilesH * kTilesW), rest = tile - n * (kTilesH * kTilesW);
  const int first_oh = rest / kTilesW * TILE_H, first_ow = rest % kTilesW * TILE_W;

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
    const int m = (warp_m * kTilesM + i) * 16 + lane % 16;
    const int row = m / TILE_W * STRIDE_H, column = m % TILE_W * STRIDE_W;
    a_rows[i] = patch + (kHasShifted ? column % 2 * (kCopy - 4) : 0) +
                (row * kPatchW + column + lane / 16 * 2) * 4;
  }
  float acc[kTilesM][kTilesN][4];
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    EP_UNROLL
    for (int j = 0; j < kTilesN; ++j) {
      EP_UNROLL
      for (int e = 0; e < 4; ++e) acc[i][j][e] = 0.0f;
    }
  }
  const uint4 *b_chunks =
      reinterpret_cast<const uint4 *>(weights) + warp_n * (kTilesN / 2) * 32 + lane;
  EP_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    const int offset = (step / kTapQuads * DILATION_H * kPatchW + step % kTapQuads * 4) * 4;
    unsigned a[kTilesM][4];
    EP_UNROLL
    for (int i = 0; i < kTilesM; ++i) ep_ldmatrix_x4(a[i], a_rows[i] + offset);
    EP_UNROLL
    for (int j = 0; j < kTilesN / 2; ++j) {
      const uint4 b = b_chunks[(step * (TILE_FILTERS / 16) + j) * 32];
      const unsigned even[2] = {b.x, b.y}, odd[2] = {b.z, b.w};
      EP_UNROLL
      for (int i = 0; i < kTilesM; ++i) {
        ep_mma_f16(acc[i][2 * j], a[i], even);
        ep_mma_f16(acc[i][2 * j + 1], a[i], odd);
      }
    }
  }
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    EP_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int m = (warp_m * kTilesM + i) * 16 + h * 8 + lane / 4;
      const Pixel at = {n, first_oh + m / TILE_W, first_ow + m % TILE_W};
      if (at.oh >= OUT_H || at.ow >= OUT_W) continue;
      EP_UNROLL
      for (int j = 0; j < kTilesN; j += kRun) {
        const int filter = blockIdx.y * TILE_FILTERS + warp_n * (kTilesN * 8) + j * 8 +
                           lane % 4 * (2 * kRun);
        if (filter >= FILTERS) continue;
        float v[2 * kRun];
        EP_UNROLL
        for (int e = 0; e < 2 * kRun; ++e) v[e] = acc[i][j + e / 2][2 * h + e % 2];
        finish<2 * kRun>(v, y OPERAND_NAMES, at, filter, filter, FILTERS - filter);
      }
    }
  }
}
