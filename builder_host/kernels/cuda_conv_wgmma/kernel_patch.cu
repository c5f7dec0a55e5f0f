// Convolution by warp-group products (sm_90a) that reads its input patch once for all taps.
//
// For strides and dilations of one. A block computes TILE_H x TILE_W pixels x TILE_FILTERS filters.
// For each chunk of 64 channels the patch of input pixels lies in shared memory, PATCH_W pixels to a
// row; the pixels of a tap are the patch's rows from a constant one on, COLUMNS of them, some of
// which belong to no pixel of the tile. Weights stream through a ring of steps, tap after tap of a
// chunk, and begin before the wait for earlier kernels. Splits take chunks.
#include "ep_wgmma.cuh"

// parameters
#define SYMBOL conv_wgmma_patch
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
#define TILE_PIXELS 64
#define TILE_H 4
#define TILE_W 14
#define TILE_FILTERS 64
#define STAGES 6
#define PATCHES 1
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
constexpr int kChannelChunks = (GROUP_CHANNELS + 63) / 64;
constexpr int kChunksOfSplit = (kChannelChunks + SPLITS - 1) / SPLITS;
constexpr int kStepsOfSplit = kChunksOfSplit * kTaps;
constexpr int kAhead = STAGES >= kStepsOfSplit ? kStepsOfSplit : STAGES - 2;
// Where all steps lie in shared memory, those of a patch are multiplied behind one barrier.
constexpr bool kIsResident = kAhead == kStepsOfSplit && PATCHES >= kChunksOfSplit;
constexpr int kBatch = kIsResident ? kTaps : 1;
constexpr int kPatchH = TILE_H + KERNEL_H - 1, kPatchW = TILE_W + KERNEL_W - 1;
// Products read TILE_PIXELS rows from any tap on; those past the patch belong to no pixel.
constexpr int kPatchRows = (TILE_PIXELS + (KERNEL_H - 1) * kPatchW + KERNEL_W + 6) / 8 * 8;
constexpr int kPatchBytes = kPatchRows * 128;
constexpr int kWeightBytes = TILE_FILTERS * 128;  // of a step
constexpr int kTilesH = (OUT_H + TILE_H - 1) / TILE_H;
constexpr int kTilesW = (OUT_W + TILE_W - 1) / TILE_W;
static_assert(kAhead > 0, "a ring needs three stages");
static_assert((TILE_H - 1) * kPatchW + TILE_W <= TILE_PIXELS, "the tile has more pixels");
// The patch of a chunk is fetched during the chunk before, behind its first step.
static_assert(PATCHES >= kChunksOfSplit || (PATCHES > 1 && kAhead < kTaps), "patches come too late");

EP_DEVICE void load_patch(unsigned char *patch, const X_TYPE *x, int first_h, int first_w,
                          int chunk_of_channels) {
  constexpr int chunks = kPatchH * kPatchW * 8;
  EP_UNROLL
  for (int i = 0; i < chunks; i += kThreads) {
    const int at = i + threadIdx.x;
    if (chunks % kThreads == 0 || at < chunks) {
      const int pixel = at / 8, chunk = at % 8;
      const int row = pixel / kPatchW, column = pixel - row * kPatchW;
      const int ih = first_h + row, iw = first_w + column;
      const int channel = chunk_of_channels * 64 + chunk * 8;
      const bool is_valid = static_cast<unsigned>(ih) < static_cast<unsigned>(IN_H) &&
                            static_cast<unsigned>(iw) < static_cast<unsigned>(IN_W) &&
                            (GROUP_CHANNELS % 64 == 0 || channel < GROUP_CHANNELS);
      ep_cp_async16_zero(patch + pixel * 128 + ((chunk ^ (pixel & 7)) * 16),
                         is_valid ? x + ih * X_H + iw * X_W + channel : x, is_valid);
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
  unsigned char *patches = shared + STAGES * kWeightBytes;
#if USES_CLUSTER
  ep_cluster_arrive();  // waited for before the first write to another block
#endif
  const int split = SPLITS > 1 ? blockIdx.x : 0, filter_tile = blockIdx.y;
  const int n = blockIdx.z / (kTilesH * kTilesW), place = blockIdx.z - n * (kTilesH * kTilesW);
  const int first_oh = place / kTilesW * TILE_H, first_ow = place % kTilesW * TILE_W;
  const int first_chunk = split * kChunksOfSplit, rest = kChannelChunks - first_chunk;
  const int num_chunks = rest < kChunksOfSplit ? (rest > 0 ? rest : 0) : kChunksOfSplit;
  const int num_steps = num_chunks * kTaps;
  // The same in all lanes, which the compiler must see for warp-group instructions.
  const int warp = __shfl_sync(EP_ALL_LANES, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int group_n = warp / 4 % (WARPS_N / 4), group_k = warp / WARPS_N;

  w += (static_cast<ep_i64>(filter_tile) * kChannelChunks + first_chunk) * kTaps *
       (TILE_FILTERS * 64);
  EP_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (i < num_steps) load_weights(shared + i * kWeightBytes, w + i * (TILE_FILTERS * 64));
  }
  float *operands = reinterpret_cast<float *>(shared + OPERANDS_AT);
  const int first_slot = filter_tile * TILE_FILTERS;
  (void)operands, (void)first_slot;
  OPERAND_STAGES
  const int first_h = first_oh - PAD_TOP, first_w = first_ow - PAD_LEFT;
  x += n * X_N;
  ep_grid_wait();
  ep_grid_launch();
  EP_UNROLL
  for (int i = 0; i < PATCHES; ++i) {
    if (i < num_chunks) load_patch(patches + i * kPatchBytes, x, first_h, first_w, first_chunk + i);
    if (i < kAhead) ep_cp_async_commit();
  }
  EP_UNROLL
  for (int i = PATCHES; i < kAhead; ++i) ep_cp_async_commit();

  float acc[TILE_PIXELS / 2];
  EP_UNROLL
  for (int i = 0; i < TILE_PIXELS / 2; ++i) acc[i] = 0.0f;
  int slot = 0, free_slot = kAhead % STAGES, tap = 0, chunk = 0;
  for (int i = 0; i < num_steps; ++i) {
    if (!kIsResident || tap == 0) {
      ep_cp_async_wait<kAhead - kBatch>();
      ep_wgmma_publish();
      __syncthreads();
    }
    if (kAhead < kStepsOfSplit) {
      if (i + kAhead < num_steps) {
        load_weights(shared + free_slot * kWeightBytes, w + (i + kAhead) * (TILE_FILTERS * 64));
      }
      free_slot = free_slot + 1 == STAGES ? 0 : free_slot + 1;
    }
    if (PATCHES < kChunksOfSplit && tap == 1) {
      const int next = chunk + PATCHES - 1;
      if (chunk > 0 && next < num_chunks) {
        load_patch(patches + next % PATCHES * kPatchBytes, x, first_h, first_w, first_chunk + next);
      }
    }
    ep_cp_async_commit();
    const unsigned char *weights = shared + slot * kWeightBytes + group_n * 8192;
    const unsigned char *pixels = patches + chunk % PATCHES * kPatchBytes +
                                  (tap / KERNEL_W * kPatchW + tap % KERNEL_W) * 128;
    ep_wgmma_begin();
    EP_UNROLL
    for (int kk = 0; kk < 4 / WARPS_K; ++kk) {
      const int k_bytes = (group_k * (4 / WARPS_K) + kk) * 32;
      ep_wgmma_f16<TILE_PIXELS>(acc, weights + k_bytes, pixels + k_bytes);
    }
    ep_wgmma_commit();
    if (!kIsResident) ep_wgmma_wait<1>();
    slot = slot + 1 == STAGES ? 0 : slot + 1;
    if (++tap == kTaps) {
      tap = 0;
      ++chunk;
    }
  }
  ep_wgmma_wait<0>();

  const auto pixel_of_row = [&](int row, Pixel &at) {
    const int h = row / kPatchW, column = row - h * kPatchW;
    at = Pixel{n, first_oh + h, first_ow + column};
    return h < TILE_H && column < TILE_W && at.oh < OUT_H && at.ow < OUT_W;
  };
  store_columns(acc, shared, pixel_of_row, y OPERAND_NAMES, SUMS, split, filter_tile, warp, lane);
}
