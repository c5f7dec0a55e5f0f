// Convolution on tensor cores as an implicit matrix product: pixels x channels of all taps.
//
// A block computes TILE_PIXELS x TILE_FILTERS outputs of one group. Pixels are the rows of the
// product; their channels come in chunks of 16 bytes, tap after tap, through padded rows of shared
// memory. Weights are packed in the order of use, one 16-byte access per lane for two 8-column
// fragments, and their columns are permuted so that a lane ends with neighbouring channels.
// Weights are fetched before the wait for earlier kernels. The k range can be split over the warps
// of a block and over blocks: those of a cluster add up through distributed shared memory, others
// through a workspace and a second kernel.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_igemm
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
#define X_TYPE half
#define Y_TYPE half
#define X_N 200704
#define X_C 1
#define X_H 3584
#define X_W 64
#define X_VECTOR 8
#define X_IS_VIEW 0
#define Y_N 200704
#define Y_C 1
#define Y_H 3584
#define Y_W 64
#define Y_VECTOR 8
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define OPERAND_STAGES
#define OPERANDS_AT 0
#define INBOX_AT 0
#define EPILOGUE x0
#define TILE_PIXELS 32
#define TILE_FILTERS 64
#define TILE_K 64
#define STAGES 4
#define WARPS_M 2
#define WARPS_N 2
#define WARPS_K 2
#define SPLITS 1
#define USES_CLUSTER 0
// end of parameters
#include "convolution.cuh"
#include "sums.cuh"

constexpr int kTaps = KERNEL_H * KERNEL_W;
constexpr int kChunksOfTap = (GROUP_CHANNELS + 7) / 8;
constexpr int kChunks = kTaps * kChunksOfTap;  // 16-byte chunks of a pixel's row
constexpr int kChunksOfStep = TILE_K / 8;
constexpr int kSteps = (kChunks + kChunksOfStep - 1) / kChunksOfStep;
constexpr int kStepsOfSplit = (kSteps + SPLITS - 1) / SPLITS;
constexpr int kAhead = STAGES >= kStepsOfSplit ? kStepsOfSplit : STAGES - 1;
constexpr int kPitch = TILE_K + 8;  // halves of a row; the 16 bytes more avoid bank conflicts
constexpr int kPixelBytes = TILE_PIXELS * kPitch * 2;
constexpr int kWeightBytes = TILE_FILTERS * TILE_K * 2;
constexpr int kStageBytes = kPixelBytes + kWeightBytes;
constexpr int kRowsAtOnce = kThreads / kChunksOfStep;
constexpr int kPasses = (TILE_PIXELS + kRowsAtOnce - 1) / kRowsAtOnce;
constexpr bool kIsVectorX = X_VECTOR == 8 && X_C == 1 && GROUP_CHANNELS % 8 == 0;

struct RowPlan {
  int n_offset, origin_h, origin_w;
};

// One chunk of one pixel, element by element: channels that are no multiple of 8, odd addresses.
EP_DEVICE void copy_elements(half *to, const X_TYPE *from, int first_channel, bool is_valid) {
  float v[8];
  EP_UNROLL
  for (int i = 0; i < 8; ++i) {
    v[i] = is_valid && first_channel + i < GROUP_CHANNELS
               ? ep_to_float(
                     ep_load_pack_of_step<X_TYPE, 1, true>(from + (first_channel + i) * X_C).at[0])
               : 0.0f;
  }
  ep_store16(to, ep_pack_half8(v));
}

EP_DEVICE void load_pixels(unsigned char *stage, const X_TYPE *x, const RowPlan (&rows)[kPasses],
                           int step, bool is_aligned) {
  const int chunk = threadIdx.x % kChunksOfStep, first = threadIdx.x / kChunksOfStep;
  const int at = step * kChunksOfStep + chunk;
  const int tap = at / kChunksOfTap, channel = (at - tap * kChunksOfTap) * 8;
  const int r = tap / KERNEL_W, s = tap - r * KERNEL_W;
  half *to = reinterpret_cast<half *>(stage) + first * kPitch + chunk * 8;
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    if (TILE_PIXELS % kRowsAtOnce == 0 || first + pass * kRowsAtOnce < TILE_PIXELS) {
      int ih, iw;
      const bool in_h = RowRule::find(rows[pass].origin_h, r, ih);
      const bool in_w = ColumnRule::find(rows[pass].origin_w, s, iw);
      const bool is_valid = in_h && in_w && (kChunks % kChunksOfStep == 0 || at < kChunks);
      const X_TYPE *from = is_valid ? x + rows[pass].n_offset + ih * X_H + iw * X_W : x;
      half *row = to + pass * kRowsAtOnce * kPitch;
      if (kIsVectorX && is_aligned) {
        ep_cp_async16_zero(row, is_valid ? from + channel : from, is_valid);
      } else {
        copy_elements(row, from, channel, is_valid);
      }
    }
  }
}

EP_DEVICE void load_weights(unsigned char *stage, const half *w) {
  constexpr int chunks = kWeightBytes / 16;
  EP_UNROLL
  for (int i = 0; i < chunks; i += kThreads) {
    const int chunk = i + threadIdx.x;
    if (chunks % kThreads == 0 || chunk < chunks) {
      ep_cp_async16(stage + kPixelBytes + chunk * 16, w + chunk * 8);
    }
  }
}

EP_KERNEL __launch_bounds__(kThreads) SYMBOL(const X_TYPE *x, const half *w OPERAND_PARAMETERS,
                                             Y_TYPE *y SUMS_PARAMETER) {
  extern __shared__ __align__(128) unsigned char shared[];
#if USES_CLUSTER
  ep_cluster_arrive();  // waited for before the first write to another block
#endif
  const int split = SPLITS > 1 ? blockIdx.x : 0;
  const int group = GROUPS > 1 ? blockIdx.y / kFilterTiles : 0;
  const int filter_tile = GROUPS > 1 ? blockIdx.y % kFilterTiles : blockIdx.y;
  const int first_pixel = blockIdx.z * TILE_PIXELS;
  const int first_step = split * kStepsOfSplit;
  const int rest = kSteps - first_step;
  const int num_steps =
      kSteps % SPLITS == 0 ? kStepsOfSplit : (rest < kStepsOfSplit ? (rest > 0 ? rest : 0)
                                                                  : kStepsOfSplit);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M % WARPS_N;
  const int warp_k = warp / (WARPS_M * WARPS_N);

  w += (static_cast<ep_i64>(blockIdx.y) * kSteps + first_step) * (TILE_FILTERS * TILE_K);
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < num_steps) load_weights(shared + i * kStageBytes, w + i * (TILE_FILTERS * TILE_K));
  }
  float *operands = reinterpret_cast<float *>(shared + OPERANDS_AT);
  const int first_slot = blockIdx.y * TILE_FILTERS;
  (void)operands, (void)first_slot;
  OPERAND_STAGES
  RowPlan rows[kPasses];
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int m = first_pixel + threadIdx.x / kChunksOfStep + pass * kRowsAtOnce;
    const Pixel at = pixel_of(m);
    rows[pass].n_offset = at.n * X_N;
    rows[pass].origin_h = m < kPixels ? RowRule::origin(at.oh) : -(1 << 24);
    rows[pass].origin_w = ColumnRule::origin(at.ow);
  }
  x += group * GROUP_CHANNELS * X_C;
  const bool is_aligned = !X_IS_VIEW || ep_is_aligned(x, 16);
  ep_grid_wait();
  ep_grid_launch();
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < num_steps) load_pixels(shared + i * kStageBytes, x, rows, first_step + i, is_aligned);
    ep_cp_async_commit();
  }

  Sums acc;
  clear(acc);
  int slot = 0, free_slot = kAhead % STAGES;
  for (int i = 0; i < num_steps; ++i) {
    ep_cp_async_wait<kAhead - 1>();
    __syncthreads();
    if (kAhead < kStepsOfSplit) {
      if (i + kAhead < num_steps) {
        unsigned char *stage = shared + free_slot * kStageBytes;
        load_weights(stage, w + (i + kAhead) * (TILE_FILTERS * TILE_K));
        load_pixels(stage, x, rows, first_step + i + kAhead, is_aligned);
      }
      free_slot = free_slot + 1 == STAGES ? 0 : free_slot + 1;
    }
    ep_cp_async_commit();
    const half *pixels = reinterpret_cast<const half *>(shared + slot * kStageBytes);
    const half *a_rows[kTilesM];
    EP_UNROLL
    for (int j = 0; j < kTilesM; ++j) {
      a_rows[j] =
          pixels + ((warp_m * kTilesM + j) * 16 + lane % 16) * kPitch + lane / 16 * 8 + warp_k * 16;
    }
    const uint4 *b_chunks =
        reinterpret_cast<const uint4 *>(shared + slot * kStageBytes + kPixelBytes) +
        (warp_k * (TILE_FILTERS / 16) + warp_n * (kTilesN / 2)) * 32 + lane;
    // Fragments of the next k values are on their way while these are multiplied.
    constexpr int rounds = TILE_K / 16 / WARPS_K;
    Fragments fragments[2];
    load_fragments(fragments[0], a_rows, 0, b_chunks);
    EP_UNROLL
    for (int round = 0; round < rounds; ++round) {
      if (round + 1 < rounds) {
        const int kk = (round + 1) * WARPS_K;
        load_fragments(fragments[(round + 1) % 2], a_rows, kk * 16,
                       b_chunks + kk * (TILE_FILTERS / 16) * 32);
      }
      multiply(acc, fragments[round % 2]);
    }
    slot = slot + 1 == STAGES ? 0 : slot + 1;
  }

  const auto pixel_of_row = [&](int row, Pixel &at) {
    at = pixel_of(first_pixel + row);
    return first_pixel + row < kPixels;
  };
  store_sums(acc, shared, pixel_of_row, y OPERAND_NAMES, SUMS, split, group, filter_tile);
}
