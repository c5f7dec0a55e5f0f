// Convolution of floats on tensor cores: products of numbers rounded to 10 bits (tf32), float sums.
//
// A block computes TILE_PIXELS x TILE_FILTERS outputs of one group. Pixels are the rows of the
// product, taps times channels its depth, in steps of 32 that pass through padded rows of shared
// memory. Weights lie filter by filter in the order of use and are fetched before the wait for
// earlier kernels. One 8x8 fragment of 16-bit elements is an 8x4 fragment of floats.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_tf32
#define BATCH 1
#define GROUPS 1
#define GROUP_CHANNELS 64
#define GROUP_FILTERS 64
#define IN_H 56
#define IN_W 56
#define OUT_H 56
#define OUT_W 56
#define KERNEL_H 3
#define KERNEL_W 3
#define STRIDE_H 1
#define STRIDE_W 1
#define PAD_TOP 1
#define PAD_LEFT 1
#define DILATION_H 1
#define DILATION_W 1
#define IS_TRANSPOSED 0
#define X_TYPE float
#define Y_TYPE float
#define X_N 200704
#define X_H 3584
#define X_W 64
#define X_IS_VIEW 0
#define Y_N 200704
#define Y_C 1
#define Y_H 3584
#define Y_W 64
#define Y_VECTOR 4
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define EPILOGUE x0
#define TILE_PIXELS 64
#define TILE_FILTERS 64
#define WARPS_M 2
#define WARPS_N 2
#define STAGES 3
// end of parameters
#include "convolution.cuh"

constexpr int kTileK = 32;
constexpr int kPitch = kTileK + 4;  // floats of a row; the 16 bytes more avoid bank conflicts
constexpr int kThreads = WARPS_M * WARPS_N * 32;
constexpr int kPixels = BATCH * OUT_H * OUT_W;
constexpr int kChunksOfTap = GROUP_CHANNELS / 4;
constexpr int kChunks = KERNEL_H * KERNEL_W * kChunksOfTap;  // 16-byte chunks of a pixel's row
constexpr int kChunksOfStep = kTileK / 4;
constexpr int kSteps = (kChunks + kChunksOfStep - 1) / kChunksOfStep;
constexpr int kAhead = STAGES - 1;
constexpr int kStageFloats = (TILE_PIXELS + TILE_FILTERS) * kPitch;
constexpr int kRowsAtOnce = kThreads / kChunksOfStep;
constexpr int kPasses = (TILE_PIXELS + kRowsAtOnce - 1) / kRowsAtOnce;
constexpr int kFilterTiles = (GROUP_FILTERS + TILE_FILTERS - 1) / TILE_FILTERS;
constexpr int kTilesM = TILE_PIXELS / WARPS_M / 16;  // 16-row fragments of a warp
constexpr int kTilesN = TILE_FILTERS / WARPS_N / 8;  // 8-column fragments of a warp

struct RowPlan {
  int n_offset, origin_h, origin_w;
};

EP_DEVICE void load_pixels(float *stage, const float *x, const RowPlan (&rows)[kPasses], int step,
                           bool is_aligned) {
  const int chunk = threadIdx.x % kChunksOfStep, first = threadIdx.x / kChunksOfStep;
  const int at = step * kChunksOfStep + chunk;
  const int tap = at / kChunksOfTap, channel = (at - tap * kChunksOfTap) * 4;
  const int r = tap / KERNEL_W, s = tap - r * KERNEL_W;
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int row = first + pass * kRowsAtOnce;
    if (TILE_PIXELS % kRowsAtOnce == 0 || row < TILE_PIXELS) {
      int ih, iw;
      const bool in_h = RowRule::find(rows[pass].origin_h, r, ih);
      const bool in_w = ColumnRule::find(rows[pass].origin_w, s, iw);
      const bool is_valid = in_h && in_w && at < kChunks;
      const float *from = is_valid ? x + rows[pass].n_offset + ih * X_H + iw * X_W + channel : x;
      float *to = stage + row * kPitch + chunk * 4;
      if (is_aligned) {
        ep_cp_async16_zero(to, from, is_valid);
      } else {
        EP_UNROLL
        for (int i = 0; i < 4; ++i) to[i] = is_valid ? from[i] : 0.0f;
      }
    }
  }
}

EP_DEVICE void load_weights(float *stage, const float *w) {
  constexpr int chunks = TILE_FILTERS * kChunksOfStep;
  float *to = stage + TILE_PIXELS * kPitch;
  EP_UNROLL
  for (int i = 0; i < chunks; i += kThreads) {
    const int at = i + threadIdx.x;
    if (chunks % kThreads == 0 || at < chunks) {
      ep_cp_async16(to + at / kChunksOfStep * kPitch + at % kChunksOfStep * 4, w + at * 4);
    }
  }
}

EP_DEVICE void round_to_tf32(unsigned (&r)[4]) {
  EP_UNROLL
  for (int i = 0; i < 4; ++i) r[i] = ep_to_tf32(__uint_as_float(r[i]));
}

EP_KERNEL __launch_bounds__(kThreads) SYMBOL(const float *x, const float *w OPERAND_PARAMETERS,
                                             float *y) {
  extern __shared__ __align__(128) float shared[];
  const int group = GROUPS > 1 ? blockIdx.y / kFilterTiles : 0;
  const int filter_tile = GROUPS > 1 ? blockIdx.y % kFilterTiles : blockIdx.y;
  const int first_pixel = blockIdx.z * TILE_PIXELS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;

  w += static_cast<ep_i64>(blockIdx.y) * kSteps * (TILE_FILTERS * kTileK);
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < kSteps) load_weights(shared + i * kStageFloats, w + i * (TILE_FILTERS * kTileK));
  }
  RowPlan rows[kPasses];
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int m = first_pixel + threadIdx.x / kChunksOfStep + pass * kRowsAtOnce;
    const Pixel at = pixel_of(m);
    rows[pass].n_offset = at.n * X_N;
    rows[pass].origin_h = m < kPixels ? RowRule::origin(at.oh) : -(1 << 24);
    rows[pass].origin_w = ColumnRule::origin(at.ow);
  }
  x += group * GROUP_CHANNELS;
  const bool is_aligned = !X_IS_VIEW || ep_is_aligned(x, 16);
  ep_grid_wait();
  ep_grid_launch();
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < kSteps) load_pixels(shared + i * kStageFloats, x, rows, i, is_aligned);
    ep_cp_async_commit();
  }

  float acc[kTilesM][kTilesN][4];
  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    EP_UNROLL
    for (int j = 0; j < kTilesN; ++j) {
      EP_UNROLL
      for (int k = 0; k < 4; ++k) acc[i][j][k] = 0.0f;
    }
  }
  for (int step = 0; step < kSteps; ++step) {
    ep_cp_async_wait<kAhead - 1>();
    __syncthreads();
    if (step + kAhead < kSteps) {
      float *stage = shared + (step + kAhead) % STAGES * kStageFloats;
      load_weights(stage, w + (step + kAhead) * (TILE_FILTERS * kTileK));
      load_pixels(stage, x, rows, step + kAhead, is_aligned);
    }
    ep_cp_async_commit();
    const float *pixels = shared + step % STAGES * kStageFloats;
    const float *filters = pixels + TILE_PIXELS * kPitch;
    EP_UNROLL
    for (int k = 0; k < kTileK; k += 8) {
      unsigned a[kTilesM][4], b[kTilesN / 2][4];
      EP_UNROLL
      for (int i = 0; i < kTilesM; ++i) {
        // matrices: rows 0-7 and 8-15 of k .. k + 3, then both of k + 4 .. k + 7
        const int row = (warp_m * kTilesM + i) * 16 + lane % 16;
        ep_ldmatrix_x4(a[i], pixels + row * kPitch + k + lane / 16 * 4);
        round_to_tf32(a[i]);
      }
      EP_UNROLL
      for (int j = 0; j < kTilesN / 2; ++j) {
        // matrices: k .. k + 3 and k + 4 .. k + 7 of eight filters, then of the next eight
        const int filter = (warp_n * kTilesN + 2 * j) * 8 + lane / 16 * 8 + lane % 8;
        ep_ldmatrix_x4(b[j], filters + filter * kPitch + k + lane / 8 % 2 * 4);
        round_to_tf32(b[j]);
      }
      EP_UNROLL
      for (int i = 0; i < kTilesM; ++i) {
        EP_UNROLL
        for (int j = 0; j < kTilesN; ++j) {
          const unsigned pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          ep_mma_tf32(acc[i][j], a[i], pair);
        }
      }
    }
  }

  EP_UNROLL
  for (int i = 0; i < kTilesM; ++i) {
    EP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int m = first_pixel + (warp_m * kTilesM + i) * 16 + half * 8 + lane / 4;
      if (m >= kPixels) continue;
      const Pixel at = pixel_of(m);
      EP_UNROLL
      for (int j = 0; j < kTilesN; ++j) {
        const int filter = filter_tile * TILE_FILTERS + (warp_n * kTilesN + j) * 8 + lane % 4 * 2;
        if (filter >= GROUP_FILTERS) continue;
        float v[2] = {acc[i][j][half * 2], acc[i][j][half * 2 + 1]};
        finish<2>(v, y OPERAND_NAMES, at, group * GROUP_FILTERS + filter,
                  group * (kFilterTiles * TILE_FILTERS) + filter, GROUP_FILTERS - filter);
      }
    }
  }
}
