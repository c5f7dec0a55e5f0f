/* A few rows of 8 bits times an INT8 matrix: y[row][column] = sum of x[row][depth] * w[column][depth].
 *
 * One warp (or SPLIT of them) has COLUMNS_PER_WARP columns; its lanes take 16 terms of depth each in
 * turn, AHEAD of them under way. Weights are packed with rows of whole chunks, zeros behind the last
 * column, so that loads need no tests; the first ones start before the kernel ahead has ended.
 * Sums are exact.
 */
#include "ep_cuda.cuh"

// parameters
#define KERNEL cuda_gemm_int8_default
#define X_TYPE ep_i8
#define X_IS_SIGNED 1
#define Y_TYPE float
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

constexpr int kChunks = (DEPTH + 15) / 16;
constexpr int kStep = 32 * SPLIT;
constexpr int kSums = ROW_TILE * COLUMNS_PER_WARP;
static_assert(kSums <= 32, "one lane stores each result");
static_assert(NUM_WARPS % SPLIT == 0, "a block holds whole groups of warps");

EP_DEVICE int dot16(uint4 x, uint4 w, int sum) {
  sum = ep_dot4<X_IS_SIGNED != 0>(x.x, w.x, sum);
  sum = ep_dot4<X_IS_SIGNED != 0>(x.y, w.y, sum);
  sum = ep_dot4<X_IS_SIGNED != 0>(x.z, w.z, sum);
  return ep_dot4<X_IS_SIGNED != 0>(x.w, w.w, sum);
}

template <bool is_aligned>
EP_DEVICE uint4 load_x(const X_TYPE *row, int chunk) {
  const X_TYPE *from = row + chunk * 16;
  if (is_aligned && (DEPTH % 16 == 0 || chunk + 1 < kChunks)) return ep_load16(from);
  unsigned words[4] = {0u, 0u, 0u, 0u};
  EP_UNROLL
  for (int i = 0; i < 16; ++i) {
    if (chunk * 16 + i < DEPTH) {
      words[i / 4] |= static_cast<unsigned>(static_cast<ep_u8>(from[i])) << (i % 4 * 8);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <bool is_aligned>
EP_DEVICE void accumulate(int (&sums)[ROW_TILE][COLUMNS_PER_WARP],
                          uint4 (&ahead)[COLUMNS_PER_WARP][AHEAD], const X_TYPE *x,
                          const uint4 *weights, int row, int first) {
  for (int base = first; base < kChunks; base += AHEAD * kStep) {
    EP_UNROLL
    for (int a = 0; a < AHEAD; ++a) {
      const int chunk = base + a * kStep, next = chunk + AHEAD * kStep;
      if (chunk >= kChunks) break;
      uint4 w[COLUMNS_PER_WARP];
      EP_UNROLL
      for (int c = 0; c < COLUMNS_PER_WARP; ++c) {
        w[c] = ahead[c][a];
        if (next < kChunks) ahead[c][a] = ep_load16_stream(weights + c * kChunks + next);
      }
      EP_UNROLL
      for (int r = 0; r < ROW_TILE; ++r) {
        if (ROWS % ROW_TILE != 0 && row + r >= ROWS) break;
        const uint4 values =
            load_x<is_aligned>(x + static_cast<ep_i64>(row + r) * X_STRIDE, chunk);
        EP_UNROLL
        for (int c = 0; c < COLUMNS_PER_WARP; ++c) sums[r][c] = dot16(values, w[c], sums[r][c]);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(NUM_WARPS * 32)
    KERNEL(const X_TYPE *x, const uint4 *w OPERAND_PARAMETERS, Y_TYPE *y) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int part = warp % SPLIT;
  const int column = (blockIdx.x * (NUM_WARPS / SPLIT) + warp / SPLIT) * COLUMNS_PER_WARP;
  const int row = blockIdx.y * ROW_TILE;
  const uint4 *weights = w + static_cast<ep_i64>(column) * kChunks;
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

  int sums[ROW_TILE][COLUMNS_PER_WARP] = {};
  if ((ROWS == 1 || X_STRIDE % 16 == 0) && ep_is_aligned(x, 16)) {
    accumulate<true>(sums, ahead, x, weights, row, first);
  } else {
    accumulate<false>(sums, ahead, x, weights, row, first);
  }

  int own = 0; /* the result that this lane stores */
  EP_UNROLL
  for (int r = 0; r < ROW_TILE; ++r) {
    EP_UNROLL
    for (int c = 0; c < COLUMNS_PER_WARP; ++c) {
      int total = sums[r][c];
      EP_UNROLL
      for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(EP_ALL_LANES, total, step);
      if (lane == r * COLUMNS_PER_WARP + c) own = total;
    }
  }
  if (SPLIT > 1) {
    __shared__ int parts[NUM_WARPS][32];
    parts[warp][lane] = own;
    __syncthreads();
    if (part != 0) return;
    for (int i = 1; i < SPLIT; ++i) own += parts[warp + i][lane];
  }
  const int m = row + lane / COLUMNS_PER_WARP, k = column + lane % COLUMNS_PER_WARP;
  if (lane < kSums && m < ROWS && k < COLUMNS) {
    const float x0 = static_cast<float>(own);
    OPERAND_LOADS
    y[static_cast<ep_i64>(m) * Y_STRIDE + k] = ep_from_float<Y_TYPE>(EPILOGUE);
  }
}
