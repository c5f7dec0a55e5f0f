/* Some rows times a constant matrix on tensor cores: y[row][column] = sum of x[row] * w[column].
 *
 * The roles are swapped: 16 columns of w are the rows of an mma, 8 rows of x its columns, so that
 * few rows waste little. Depth goes in blocks of 32 = two mma; within a block lane l takes the depths
 * 8 (l % 4) .. + 7 (the order within a sum is free), so that each of its fragments of x is one
 * 16-byte load, and the weights are packed in the order of lanes and blocks: [column tile][block][2]
 * [lane][8 halves]. SPLIT warps share the depth of a column tile; AHEAD blocks of weights are under
 * way, the first of them before the kernel ahead has ended.
 */
#include "ep_cuda.cuh"

// parameters
#define KERNEL cuda_gemm_mma_default
#define Y_TYPE half
#define ROWS 32
#define COLUMNS 1000
#define DEPTH 2048
#define X_STRIDE 2048
#define Y_STRIDE 1000
#define ROW_TILES 4
#define SPLIT 8
#define AHEAD 2
#define OPERAND_PARAMETERS
#define OPERAND_LOADS
#define EPILOGUE x0
// end of parameters

constexpr int kBlocks = (DEPTH + 31) / 32;
constexpr int kTileRows = 8 * ROW_TILES;

template <bool is_aligned>
EP_DEVICE uint4 load_x(const half *row, int depth) {
  if (DEPTH % 32 == 0 || depth + 8 <= DEPTH) {
    const EpPack<half, 8> pack = ep_load_pack_if<half, 8, is_aligned>(row + depth);
    return *reinterpret_cast<const uint4 *>(&pack);
  }
  EpPack<half, 8> pack;
  EP_UNROLL
  for (int i = 0; i < 8; ++i) {
    pack.at[i] = depth + i < DEPTH ? row[depth + i] : ep_float_to_half(0.0f);
  }
  return *reinterpret_cast<const uint4 *>(&pack);
}

template <bool is_aligned>
EP_DEVICE void accumulate(float (&sums)[ROW_TILES][4], uint4 (&ahead)[AHEAD][2], const half *x,
                          const uint4 *weights, int first_row, int part, int lane) {
  for (int base = part; base < kBlocks; base += AHEAD * SPLIT) {
    EP_UNROLL
    for (int a = 0; a < AHEAD; ++a) {
      const int block = base + a * SPLIT, next = block + AHEAD * SPLIT;
      if (block >= kBlocks) break;
      uint4 values[ROW_TILES];
      EP_UNROLL
      for (int r = 0; r < ROW_TILES; ++r) {
        /* Rows beyond the last one give results that nobody stores. */
        const int row = min(first_row + r * 8 + lane / 4, ROWS - 1);
        values[r] =
            load_x<is_aligned>(x + static_cast<ep_i64>(row) * X_STRIDE, block * 32 + lane % 4 * 8);
      }
      const unsigned low[4] = {ahead[a][0].x, ahead[a][0].y, ahead[a][0].z, ahead[a][0].w};
      const unsigned high[4] = {ahead[a][1].x, ahead[a][1].y, ahead[a][1].z, ahead[a][1].w};
      if (next < kBlocks) {
        ahead[a][0] = ep_load16_stream(weights + next * 64);
        ahead[a][1] = ep_load16_stream(weights + next * 64 + 32);
      }
      EP_UNROLL
      for (int r = 0; r < ROW_TILES; ++r) {
        const unsigned near[2] = {values[r].x, values[r].y}, far[2] = {values[r].z, values[r].w};
        ep_mma_f16(sums[r], low, near);
        ep_mma_f16(sums[r], high, far);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(SPLIT * 32)
    KERNEL(const half *x, const half *w OPERAND_PARAMETERS, Y_TYPE *y) {
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
  const int tile = blockIdx.x, first_row = blockIdx.y * kTileRows;
  const uint4 *weights =
      reinterpret_cast<const uint4 *>(w) + static_cast<ep_i64>(tile) * kBlocks * 64 + lane;

  uint4 ahead[AHEAD][2];
  EP_UNROLL
  for (int a = 0; a < AHEAD; ++a) {
    const int block = part + a * SPLIT;
    if (block < kBlocks) {
      ahead[a][0] = ep_load16_stream(weights + block * 64);
      ahead[a][1] = ep_load16_stream(weights + block * 64 + 32);
    }
  }
  ep_grid_wait();
  ep_grid_launch();

  float sums[ROW_TILES][4] = {};
  if (X_STRIDE % 8 == 0 && ep_is_aligned(x, 16)) {
    accumulate<true>(sums, ahead, x, weights, first_row, part, lane);
  } else {
    accumulate<false>(sums, ahead, x, weights, first_row, part, lane);
  }

  __shared__ float parts[SPLIT][kTileRows][17]; /* one more than the columns: no bank conflicts */
  const int column = lane / 4, row = lane % 4 * 2;
  EP_UNROLL
  for (int r = 0; r < ROW_TILES; ++r) {
    parts[part][r * 8 + row][column] = sums[r][0];
    parts[part][r * 8 + row + 1][column] = sums[r][1];
    parts[part][r * 8 + row][column + 8] = sums[r][2];
    parts[part][r * 8 + row + 1][column + 8] = sums[r][3];
  }
  __syncthreads();
  for (int item = threadIdx.x; item < kTileRows * 16; item += SPLIT * 32) {
    const int m = first_row + item / 16, k = tile * 16 + item % 16;
    if (m >= ROWS || k >= COLUMNS) continue;
    float x0 = parts[0][item / 16][item % 16];
    for (int i = 1; i < SPLIT; ++i) x0 += parts[i][item / 16][item % 16];
    OPERAND_LOADS
    y[static_cast<ep_i64>(m) * Y_STRIDE + k] = ep_from_float<Y_TYPE>(EPILOGUE);
  }
}
