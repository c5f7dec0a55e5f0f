// Convolution on tensor cores and the maximum of 2x2 windows of its result, which is never stored.
//
// A block computes TILE_H x TILE_W pixels x TILE_FILTERS filters: whole windows, whose pixels are
// neighbouring rows of the product (windows.cuh). A stage is TILE_K channels: the patch of input
// pixels that the tile needs, and the weights of all taps. x has its channels together and aligned
// to 16 bytes. OUT_H and OUT_W are the rows and columns of the convolution that lie in windows.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_pool
#define BATCH 1
#define GROUPS 1
#define CHANNELS 64
#define FILTERS 64
#define GROUP_FILTERS 64
#define IN_H 224
#define IN_W 224
#define OUT_H 224
#define OUT_W 224
#define POOLED_H 112
#define POOLED_W 112
#define KERNEL_H 3
#define KERNEL_W 3
#define STRIDE_H 1
#define STRIDE_W 1
#define PAD_TOP 1
#define PAD_LEFT 1
#define DILATION_H 1
#define DILATION_W 1
#define IS_TRANSPOSED 0
#define X_TYPE half
#define Y_TYPE half
#define X_N 3211264
#define X_H 14336
#define X_W 64
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
#define OPERAND_STAGES
#define OPERANDS_AT 0
#define EPILOGUE x0
#define TILE_PIXELS 128
#define TILE_H 8
#define TILE_W 16
#define TILE_FILTERS 64
#define TILE_K 16
#define STAGES 3
#define WARPS_M 4
#define WARPS_N 2
// end of parameters
#define WARPS_K 1
#define SPLITS 1
#define USES_CLUSTER 0
#include "convolution.cuh"
#include "sums.cuh"
#include "windows.cuh"

constexpr int kTaps = KERNEL_H * KERNEL_W;
constexpr int kPatchH = (TILE_H - 1) * STRIDE_H + (KERNEL_H - 1) * DILATION_H + 1;
constexpr int kPatchW = (TILE_W - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1;
constexpr int kPitch = TILE_K + 8;  // halves of a pixel; 16 bytes more avoid bank conflicts
constexpr int kPatchBytes = (kPatchH * kPatchW * kPitch * 2 + 127) / 128 * 128;
constexpr int kWeights = kTaps * TILE_FILTERS * TILE_K;  // of a stage, in halves
constexpr int kStageBytes = kPatchBytes + kWeights * 2;
constexpr int kSteps = (CHANNELS + TILE_K - 1) / TILE_K;
constexpr int kAhead = STAGES >= kSteps ? kSteps : STAGES - 1;
constexpr int kTilesH = (OUT_H + TILE_H - 1) / TILE_H;
constexpr int kTilesW = (OUT_W + TILE_W - 1) / TILE_W;

EP_DEVICE void load_patch(unsigned char *stage, const half *x, int first_h, int first_w, int step) {
  constexpr int chunks_of_pixel = TILE_K / 8, chunks = kPatchH * kPatchW * chunks_of_pixel;
  half *patch = reinterpret_cast<half *>(stage);
  for (int at = threadIdx.x; at < chunks; at += kThreads) {
    const int pixel = at / chunks_of_pixel, chunk = at % chunks_of_pixel;
    const int row = pixel / kPatchW, column = pixel - row * kPatchW;
    const int ih = first_h + row, iw = first_w + column;
    const int channel = step * TILE_K + chunk * 8;
    const bool is_valid = static_cast<unsigned>(ih) < static_cast<unsigned>(IN_H) &&
                          static_cast<unsigned>(iw) < static_cast<unsigned>(IN_W) &&
                          (CHANNELS % TILE_K == 0 || channel < CHANNELS);
    ep_cp_async16_zero(patch + pixel * kPitch + chunk * 8,
                       is_valid ? x + ih * X_H + iw * X_W + channel : x, is_valid);
  }
}

EP_DEVICE void load_weights(unsigned char *stage, const half *w) {
  for (int i = threadIdx.x; i < kWeights / 8; i += kThreads) {
    ep_cp_async16(stage + kPatchBytes + i * 16, w + i * 8);
  }
}

EP_KERNEL __launch_bounds__(kThreads) SYMBOL(const X_TYPE *x, const half *w OPERAND_PARAMETERS,
                                             Y_TYPE *y) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int n = blockIdx.z / (kTilesH * kTilesW), place = blockIdx.z - n * (kTilesH * kTilesW);
  const int first_oh = place / kTilesW * TILE_H, first_ow = place % kTilesW * TILE_W;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;

  w += static_cast<ep_i64>(blockIdx.y) * kSteps * kWeights;
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) load_weights(shared + i * kStageBytes, w + i * kWeights);
  float *operands = reinterpret_cast<float *>(shared + OPERANDS_AT);
  const int first_slot = blockIdx.y * TILE_FILTERS;
  (void)operands, (void)first_slot;
  OPERAND_STAGES
  const int first_h = first_oh * STRIDE_H - PAD_TOP, first_w = first_ow * STRIDE_W - PAD_LEFT;
  x += n * X_N;
  int row_offsets[kTilesM];
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    int row, column;
    place_of_row((warp_m * kTilesM + i) * 16 + lane % 16, row, column);
    row_offsets[i] = (row * STRIDE_H * kPatchW + column * STRIDE_W) * kPitch + lane / 16 * 8;
  }
  ep_grid_wait();
  ep_grid_launch();
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    load_patch(shared + i * kStageBytes, x, first_h, first_w, i);
    ep_cp_async_commit();
  }

  Sums acc;
  clear(acc);
  int slot = 0, free_slot = kAhead % STAGES;
  for (int i = 0; i < kSteps; ++i) {
    ep_cp_async_wait<kAhead - 1>();
    __syncthreads();
    if (kAhead < kSteps) {
      if (i + kAhead < kSteps) {
        unsigned char *stage = shared + free_slot * kStageBytes;
        load_weights(stage, w + (i + kAhead) * kWeights);
        load_patch(stage, x, first_h, first_w, i + kAhead);
      }
      free_slot = free_slot + 1 == STAGES ? 0 : free_slot + 1;
    }
    ep_cp_async_commit();
    const half *patch = reinterpret_cast<const half *>(shared + slot * kStageBytes);
    const half *a_rows[kTilesM];
    EP_UNROLL
    for (int j = 0; j < kTilesM; ++j) a_rows[j] = patch + row_offsets[j];
    const uint4 *b_chunks =
        reinterpret_cast<const uint4 *>(shared + slot * kStageBytes + kPatchBytes) +
        warp_n * (kTilesN / 2) * 32 + lane;
    // Fragments of the next k values are on their way while these are multiplied.
    constexpr int rounds_of_tap = TILE_K / 16, rounds = kTaps * rounds_of_tap;
    Fragments fragments[2];
    load_fragments(fragments[0], a_rows, 0, b_chunks);
    EP_UNROLL
    for (int round = 0; round < rounds; ++round) {
      if (round + 1 < rounds) {
        const int tap = (round + 1) / rounds_of_tap, kk = (round + 1) % rounds_of_tap;
        const int offset =
            (tap / KERNEL_W * DILATION_H * kPatchW + tap % KERNEL_W * DILATION_W) * kPitch;
        load_fragments(fragments[(round + 1) % 2], a_rows, offset + kk * 16,
                       b_chunks + (round + 1) * (TILE_FILTERS / 16) * 32);
      }
      multiply(acc, fragments[round % 2]);
    }
    slot = slot + 1 == STAGES ? 0 : slot + 1;
  }
  ep_grid_wait_to_store();
  store_windows(acc, n, first_oh / 2, first_ow / 2, warp_m, first_slot + warp_n * (kTilesN * 8),
                y OPERAND_NAMES);
}
