// Convolution by warp-group products (sm_90a): filters are the rows of the product, pixels its
// columns, so that tiles of few pixels fill the chip.
//
// A block computes TILE_FILTERS x TILE_PIXELS outputs. A stage is 64 k values: the weights of the
// tile, packed as the products want them, and one row of 128 bytes per pixel, gathered chunk by
// chunk, tap after tap. Weights are fetched before the wait for earlier kernels. Rows of weights are
// permuted so that a thread ends with neighbouring filters. The k values of a stage can be split
// over warp groups, and stages over the blocks of a cluster; x has its channels together and aligned.
#include "ep_wgmma.cuh"

// parameters
#define SYMBOL conv_wgmma
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
#define X_H 3584
#define X_W 64
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
#define TILE_PIXELS 128
#define TILE_FILTERS 64
#define STAGES 4
#define WARPS_M 1
#define WARPS_N 4
#define WARPS_K 1
#define SPLITS 1
#define USES_CLUSTER 0
// end of parameters
#include "convolution.cuh"
#include "sums.cuh"
#include "columns.cuh"

constexpr int kTaps = KERNEL_H * KERNEL_W;
constexpr int kChunksOfTap = GROUP_CHANNELS / 8;
constexpr int kChunks = kTaps * kChunksOfTap;  // of 16 bytes, in a pixel's row
constexpr int kSteps = (kChunks + 7) / 8;
constexpr int kStepsOfSplit = (kSteps + SPLITS - 1) / SPLITS;
// The products of one step are under way while the next one's begin: two stages are not filled.
constexpr int kAhead = STAGES >= kStepsOfSplit ? kStepsOfSplit : STAGES - 2;
// Where all steps lie in shared memory, half of them are multiplied behind one barrier.
constexpr bool kIsResident = kAhead == kStepsOfSplit;
constexpr int kBatch = kIsResident ? (kStepsOfSplit + 1) / 2 : 1;
constexpr int kWeightBytes = TILE_FILTERS * 128;
constexpr int kStageBytes = kWeightBytes + TILE_PIXELS * 128;
constexpr int kRowsAtOnce = kThreads / 8;
constexpr int kPasses = (TILE_PIXELS + kRowsAtOnce - 1) / kRowsAtOnce;
static_assert(kAhead > 0, "a ring needs three stages");

struct RowPlan {
  int n_offset, origin_h, origin_w;
};

EP_DEVICE void load_pixels(unsigned char *stage, const X_TYPE *x, const RowPlan (&rows)[kPasses],
                           int step) {
  const int chunk = threadIdx.x % 8, first = threadIdx.x / 8;
  const int at = step * 8 + chunk;
  const int tap = at / kChunksOfTap, channel = (at - tap * kChunksOfTap) * 8;
  const int r = tap / KERNEL_W, s = tap - r * KERNEL_W;
  const int offset = r * DILATION_H * X_H + s * DILATION_W * X_W + channel;
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int row = first + pass * kRowsAtOnce;
    if (TILE_PIXELS % kRowsAtOnce == 0 || row < TILE_PIXELS) {
      int ih, iw;
      const bool in_h = RowRule::find(rows[pass].origin_h, r, ih);
      const bool in_w = ColumnRule::find(rows[pass].origin_w, s, iw);
      const bool is_valid = in_h && in_w && (kChunks % 8 == 0 || at < kChunks);
      ep_cp_async16_zero(stage + kWeightBytes + row * 128 + ((chunk ^ (row & 7)) * 16),
                         is_valid ? x + rows[pass].n_offset + offset : x, is_valid);
    }
  }
}

EP_DEVICE void load_weights(unsigned char *stage, const half *w) {
  constexpr int chunks = kWeightBytes / 16;
  EP_UNROLL
  for (int i = 0; i < chunks; i += kThreads) {
    const int chunk = i + threadIdx.x;
    if (chunks % kThreads == 0 || chunk < chunks) ep_cp_async16(stage + chunk * 16, w + chunk * 8);
  }
}

EP_KERNEL __launch_bounds__(kThreads) SYMBOL(const X_TYPE *x, const half *w OPERAND_PARAMETERS,
                                             Y_TYPE *y SUMS_PARAMETER) {
  extern __shared__ __align__(1024) unsigned char shared[];
#if USES_CLUSTER
  ep_cluster_arrive();  // waited for before the first write to another block
#endif
  const int split = SPLITS > 1 ? blockIdx.x : 0;
  const int filter_tile = blockIdx.y, first_pixel = blockIdx.z * TILE_PIXELS;
  const int first_step = split * kStepsOfSplit, rest = kSteps - first_step;
  const int num_steps = rest < kStepsOfSplit ? (rest > 0 ? rest : 0) : kStepsOfSplit;
  // The same in all lanes, which the compiler must see for warp-group instructions.
  const int warp = __shfl_sync(EP_ALL_LANES, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int group_n = warp / 4 % (WARPS_N / 4), group_k = warp / WARPS_N;

  w += (static_cast<ep_i64>(filter_tile) * kSteps + first_step) * (TILE_FILTERS * 64);
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < num_steps) load_weights(shared + i * kStageBytes, w + i * (TILE_FILTERS * 64));
  }
  float *operands = reinterpret_cast<float *>(shared + OPERANDS_AT);
  const int first_slot = filter_tile * TILE_FILTERS;
  (void)operands, (void)first_slot;
  OPERAND_STAGES
  RowPlan rows[kPasses];
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int m = first_pixel + threadIdx.x / 8 + pass * kRowsAtOnce;
    const Pixel at = pixel_of(m);
    rows[pass].origin_h = m < kPixels ? RowRule::origin(at.oh) : -(1 << 24);
    rows[pass].origin_w = ColumnRule::origin(at.ow);
    rows[pass].n_offset = at.n * X_N + RowRule::origin(at.oh) * X_H + rows[pass].origin_w * X_W;
  }
  ep_grid_wait();
  ep_grid_launch();
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < num_steps) load_pixels(shared + i * kStageBytes, x, rows, first_step + i);
    ep_cp_async_commit();
  }

  float acc[TILE_PIXELS / 2];
  EP_UNROLL
  for (int i = 0; i < TILE_PIXELS / 2; ++i) acc[i] = 0.0f;
  int slot = 0, free_slot = kAhead % STAGES;
  for (int i = 0; i < num_steps; ++i) {
    if (!kIsResident || i % kBatch == 0) {
      ep_cp_async_wait<kAhead - kBatch>();
      ep_wgmma_publish();
      __syncthreads();
    }
    if (kAhead < kStepsOfSplit) {
      if (i + kAhead < num_steps) {
        unsigned char *stage = shared + free_slot * kStageBytes;
        load_weights(stage, w + (i + kAhead) * (TILE_FILTERS * 64));
        load_pixels(stage, x, rows, first_step + i + kAhead);
      }
      free_slot = free_slot + 1 == STAGES ? 0 : free_slot + 1;
    }
    ep_cp_async_commit();
    const unsigned char *weights = shared + slot * kStageBytes + group_n * 8192;
    const unsigned char *pixels = shared + slot * kStageBytes + kWeightBytes;
    ep_wgmma_begin();
    EP_UNROLL
    for (int kk = 0; kk < 4 / WARPS_K; ++kk) {
      const int k_bytes = (group_k * (4 / WARPS_K) + kk) * 32;
      ep_wgmma_f16<TILE_PIXELS>(acc, weights + k_bytes, pixels + k_bytes);
    }
    ep_wgmma_commit();
    if (!kIsResident) ep_wgmma_wait<1>();
    slot = slot + 1 == STAGES ? 0 : slot + 1;
  }
  ep_wgmma_wait<0>();

  const auto pixel_of_row = [&](int row, Pixel &at) {
    at = pixel_of(first_pixel + row);
    return first_pixel + row < kPixels;
  };
  store_columns(acc, shared, pixel_of_row, y OPERAND_NAMES, SUMS, split, filter_tile, warp, lane);
}
