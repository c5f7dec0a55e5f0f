// Convolution of 8-bit tensors on tensor cores, as an implicit matrix product with exact sums.
//
// A block computes TILE_PIXELS x TILE_FILTERS outputs of one group. Pixels are the rows of the
// product, taps times channels its depth without gaps, in steps of TILE_K through padded rows of
// shared memory. A chunk of 16 bytes of a row comes as one asynchronous copy where channels come in
// sixteens, else piece by piece from as many taps as it spans. Weights are packed as fragments in the
// order of use and fetched before the wait for earlier kernels. The k range can be split over the
// warps of a block and over blocks.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_int8
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
#define X_TYPE ep_i8
#define X_IS_SIGNED 1
#define Y_TYPE ep_i8
#define X_N 200704
#define X_H 3584
#define X_W 64
#define X_VECTOR 16
#define X_IS_VIEW 0
#define Y_N 200704
#define Y_C 1
#define Y_H 3584
#define Y_W 64
#define Y_VECTOR 16
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define OPERAND_STAGES
#define OPERANDS_AT 0
#define EPILOGUE ep_max_const_first(-128.0f, ep_min_const_first(127.0f, x0))
#define TILE_PIXELS 32
#define TILE_FILTERS 64
#define TILE_K 128
#define STAGES 4
#define WARPS_M 2
#define WARPS_N 2
#define WARPS_K 2
#define SPLITS 1
#define USES_CLUSTER 0
// end of parameters
#include "convolution.cuh"
#include "sums.cuh"
#include "terms.cuh"

constexpr int kChunks = (kTerms + 15) / 16;  // of a pixel's row
constexpr int kChunksOfStep = TILE_K / 16;
constexpr int kSteps = (kChunks + kChunksOfStep - 1) / kChunksOfStep;
constexpr int kStepsOfSplit = (kSteps + SPLITS - 1) / SPLITS;
constexpr int kAhead = STAGES >= kStepsOfSplit ? kStepsOfSplit : STAGES - 1;
constexpr int kPitch = TILE_K + 16;  // bytes of a row; the 16 more avoid bank conflicts
constexpr int kPixelBytes = TILE_PIXELS * kPitch;
constexpr int kWeightBytes = TILE_FILTERS * TILE_K;
constexpr int kStageBytes = kPixelBytes + kWeightBytes;
constexpr int kRowsAtOnce = kThreads / kChunksOfStep;
constexpr int kPasses = (TILE_PIXELS + kRowsAtOnce - 1) / kRowsAtOnce;

template <bool is_aligned>
EP_DEVICE void copy_terms(unsigned char *to, const X_TYPE *x, const RowPlan &row, int first) {
  unsigned words[4];
  load_terms<16, is_aligned>(words, x, row, first);
  ep_store16(to, make_uint4(words[0], words[1], words[2], words[3]));
}

EP_DEVICE void load_pixels(unsigned char *stage, const X_TYPE *x, const RowPlan (&rows)[kPasses],
                           int step, bool is_aligned) {
  const int chunk = threadIdx.x % kChunksOfStep, first = threadIdx.x / kChunksOfStep;
  const int term = step * TILE_K + chunk * 16;
  unsigned char *to = stage + first * kPitch + chunk * 16;
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    if (TILE_PIXELS % kRowsAtOnce == 0 || first + pass * kRowsAtOnce < TILE_PIXELS) {
      unsigned char *row = to + pass * kRowsAtOnce * kPitch;
      if (X_VECTOR == 16 && is_aligned) {
        const X_TYPE *from = address_of(x, rows[pass], term);
        ep_cp_async16_zero(row, from != nullptr ? from : x, from != nullptr);
      } else if (is_aligned) {
        copy_terms<true>(row, x, rows[pass], term);
      } else {
        copy_terms<false>(row, x, rows[pass], term);
      }
    }
  }
}

EP_DEVICE void load_weights(unsigned char *stage, const unsigned char *w) {
  constexpr int chunks = kWeightBytes / 16;
  EP_UNROLL
  for (int i = 0; i < chunks; i += kThreads) {
    const int chunk = i + threadIdx.x;
    if (chunks % kThreads == 0 || chunk < chunks) {
      ep_cp_async16(stage + kPixelBytes + chunk * 16, w + chunk * 16);
    }
  }
}

EP_KERNEL __launch_bounds__(kThreads)
    SYMBOL(const X_TYPE *x, const unsigned char *w OPERAND_PARAMETERS, Y_TYPE *y SUMS_PARAMETER) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int split = SPLITS > 1 ? blockIdx.x : 0;
  const int group = GROUPS > 1 ? blockIdx.y / kFilterTiles : 0;
  const int filter_tile = GROUPS > 1 ? blockIdx.y % kFilterTiles : blockIdx.y;
  const int first_pixel = blockIdx.z * TILE_PIXELS;
  const int first_step = split * kStepsOfSplit;
  const int rest = kSteps - first_step;
  const int num_steps =
      kSteps % SPLITS == 0 ? kStepsOfSplit : min(max(rest, 0), kStepsOfSplit);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M % WARPS_N;
  const int warp_k = warp / (WARPS_M * WARPS_N);

  w += (static_cast<ep_i64>(blockIdx.y) * kSteps + first_step) * kWeightBytes;
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < num_steps) load_weights(shared + i * kStageBytes, w + i * kWeightBytes);
  }
  float *operands = reinterpret_cast<float *>(shared + OPERANDS_AT);
  const int first_slot = blockIdx.y * TILE_FILTERS;
  (void)operands, (void)first_slot;
  OPERAND_STAGES
  RowPlan rows[kPasses];
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    rows[pass] = row_plan(first_pixel + threadIdx.x / kChunksOfStep + pass * kRowsAtOnce);
  }
  x += group * GROUP_CHANNELS;
  const bool is_aligned = !X_IS_VIEW || ep_is_aligned(x, X_VECTOR);
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
        load_weights(stage, w + (i + kAhead) * kWeightBytes);
        load_pixels(stage, x, rows, first_step + i + kAhead, is_aligned);
      }
      free_slot = free_slot + 1 == STAGES ? 0 : free_slot + 1;
    }
    ep_cp_async_commit();
    const unsigned char *stage = shared + slot * kStageBytes;
    const unsigned char *a_rows[kTilesM];
    EP_UNROLL
    for (int j = 0; j < kTilesM; ++j) {
      const int row = (warp_m * kTilesM + j) * 16 + lane % 16;
      a_rows[j] = stage + row * kPitch + lane / 16 * 16 + warp_k * 32;
    }
    const uint4 *b_chunks = reinterpret_cast<const uint4 *>(stage + kPixelBytes) +
                            (warp_k * (TILE_FILTERS / 16) + warp_n * (kTilesN / 2)) * 32 + lane;
    // Fragments of the next k values are on their way while these are multiplied.
    constexpr int rounds = TILE_K / 32 / WARPS_K;
    Fragments fragments[2];
    load_fragments(fragments[0], a_rows, 0, b_chunks);
    EP_UNROLL
    for (int round = 0; round < rounds; ++round) {
      if (round + 1 < rounds) {
        const int kk = (round + 1) * WARPS_K;
        load_fragments(fragments[(round + 1) % 2], a_rows, kk * 32,
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
