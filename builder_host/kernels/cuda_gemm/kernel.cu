/* A few rows times a matrix: y[row][column] = sum over depth of x[row][depth] * w[column][depth].
 *
 * One warp (or SPLIT of them) has COLUMNS_PER_WARP columns; its lanes take 16 bytes of depth each in
 * turn, AHEAD of them under way. Weights are packed with rows of whole chunks, zeros behind the last
 * column, so that loads need no tests; the first ones start before the kernel ahead has ended.
 * Sums are float32, joined in a fixed order.
 */
#include "ep_cuda.cuh"

// parameters
#define KERNEL cuda_gemm_default
#define X_TYPE half
#define Y_TYPE half
#define ROWS 1
#define COLUMNS 1000
#define DEPTH 2048
#define X_STRIDE 2048
#define Y_STRIDE 1000
#define ROW_TILE 1
#define COLUMNS_PER_WARP 1
#define SPLIT 1
#define NUM_WARPS 4
#define AHEAD 4
#define OPERAND_PARAMETERS
#define OPERAND_LOADS
#define EPILOGUE x0
// end of parameters

constexpr int kPack = 16 / sizeof(X_TYPE);
constexpr int kChunks = (DEPTH + kPack - 1) / kPack;
constexpr int kStep = 32 * SPLIT;
constexpr int kSums = ROW_TILE * COLUMNS_PER_WARP;
static_assert(kSums <= 32, "one lane stores each result");
static_assert(NUM_WARPS % SPLIT == 0, "a block holds whole groups of warps");

template <bool is_aligned>
EP_DEVICE void load_x(float (&values)[kPack], const X_TYPE *row, int chunk) {
  const X_TYPE *from = row + chunk * kPack;
  if (DEPTH % kPack == 0 || chunk + 1 < kChunks) {
    const EpPack<X_TYPE, kPack> pack = ep_load_pack_if<X_TYPE, kPack, is_aligned>(from);
    EP_UNROLL
    for (int i = 0; i < kPack; ++i) values[i] = ep_to_float(pack.at[i]);
  } else {
    EP_UNROLL
    for (int i = 0; i < kPack; ++i) {
      values[i] = chunk * kPack + i < DEPTH ? ep_to_float(from[i]) : 0.0f;
    }
  }
}

EP_DEVICE void unpack(float (&values)[kPack], uint4 bits) {
  const EpPack<X_TYPE, kPack> pack = *reinterpret_cast<const EpPack<X_TYPE, kPack> *>(&bits);
  EP_UNROLL
  for (int i = 0; i < kPack; ++i) values[i] = ep_to_float(pack.at[i]);
}

template <bool is_aligned>
EP_DEVICE void accumulate(float (&sums)[ROW_TILE][COLUMNS_PER_WARP],
                          uint4 (&ahead)[COLUMNS_PER_WARP][AHEAD], const X_TYPE *x,
                          const uint4 *weights, int row, int first) {
  for (int base = first; base < kChunks; base += AHEAD * kStep) {
    EP_UNROLL
    for (int a = 0; a < AHEAD; ++a) {
      const int chunk = base + a * kStep, next = chunk + AHEAD * kStep;
      if (chunk >= kChunks) break;
      float b[COLUMNS_PER_WARP][kPack];
      EP_UNROLL
      for (int c = 0; c < COLUMNS_PER_WARP; ++c) {
        unpack(b[c], ahead[c][a]);
        if (next < kChunks) ahead[c][a] = ep_load16_stream(weights + c * kChunks + next);
      }
      EP_UNROLL
      for (int r = 0; r < ROW_TILE; ++r) {
        if (ROWS % ROW_TILE != 0 && row + r >= ROWS) break;
        float values[kPack];
        load_x<is_aligned>(values, x + static_cast<ep_i64>(row + r) * X_STRIDE, chunk);
        EP_UNROLL
        for (int c = 0; c < COLUMNS_PER_WARP; ++c) {
          EP_UNROLL
          for (int i = 0; i < kPack; ++i) sums[r][c] = fmaf(values[i], b[c][i], sums[r][c]);
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(NUM_WARPS * 32)
    KERNEL(const X_TYPE *x, const X_TYPE *w OPERAND_PARAMETERS, Y_TYPE *y) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int part = warp % SPLIT;
  const int column = (blockIdx.x * (NUM_WARPS / SPLIT) + warp / SPLIT) * COLUMNS_PER_WARP;
  const int row = blockIdx.y * ROW_TILE;
  const uint4 *weights = reinterpret_cast<const uint4 *>(w) + static_cast<ep_i64>(column) * kChunks;
  const int first = part * 32 + lane;

  uint4 ahead[COLUMNS_PER_WARP][AHEAD];
  EP_UNROLL
  for (int c = 0; c < COLUMNS_PER_WARP; ++c) {
    EP_UNROLL
    for (int a = 0; a < AHEAD; ++a) {
      const int chunk = first + a * kStep;
      if (chunk < kChunks) ahead[c][a] = ep_load16_stream(weights + c * kChunks + chunk);
    }
  }
  ep_grid_wait();
  ep_grid_launch();

  float sums[ROW_TILE][COLUMNS_PER_WARP] = {};
  const bool is_aligned = (ROWS == 1 || X_STRIDE % kPack == 0) && ep_is_aligned(x, 16);
  if (is_aligned) {
    accumulate<true>(sums, ahead, x, weights, row, first);
  } else {
    accumulate<false>(sums, ahead, x, weights, row, first);
  }

  float own = 0.0f; /* the result that this lane stores */
  EP_UNROLL
  for (int r = 0; r < ROW_TILE; ++r) {
    EP_UNROLL
    for (int c = 0; c < COLUMNS_PER_WARP; ++c) {
      const float total = ep_warp_sum(sums[r][c]);
      if (lane == r * COLUMNS_PER_WARP + c) own = total;
    }
  }
  if (SPLIT > 1) {
    __shared__ float parts[NUM_WARPS][32];
    parts[warp][lane] = own;
    __syncthreads();
    if (part != 0) return;
    for (int i = 1; i < SPLIT; ++i) own += parts[warp + i][lane];
  }
  const int m = row + lane / COLUMNS_PER_WARP, k = column + lane % COLUMNS_PER_WARP;
  if (lane < kSums && m < ROWS && k < COLUMNS) {
    const float x0 = own;
    OPERAND_LOADS
    y[static_cast<ep_i64>(m) * Y_STRIDE + k] = ep_from_float<Y_TYPE>(EPILOGUE);
  }
}
