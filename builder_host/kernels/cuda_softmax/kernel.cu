/* Softmax (or its logarithm) of rows of contiguous elements, each held in registers.
 *
 * LANES threads share a row; a block has ROWS_PER_BLOCK of them. Everything is float32 between load
 * and store; sums are joined in a fixed order.
 */
#include "ep_cuda.cuh"

// parameters
#define KERNEL cuda_softmax_default
#define X_TYPE float
#define Y_TYPE float
#define NUM_ROWS 1
#define LENGTH 1000
#define X_STRIDE 1000
#define Y_STRIDE 1000
#define IS_LOG 0
#define LANES 256
#define ROWS_PER_BLOCK 1
#define EPILOGUE x0
// end of parameters

constexpr int kValues = (LENGTH + LANES - 1) / LANES;

extern "C" __global__ void __launch_bounds__(LANES * ROWS_PER_BLOCK)
    KERNEL(const X_TYPE *x, Y_TYPE *y) {
  ep_grid_wait();
  ep_grid_launch();
  const int lane = threadIdx.x % LANES;
  const int row = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / LANES;
  const bool is_live = row < NUM_ROWS; /* all threads meet at the barriers */
  const X_TYPE *from = x + static_cast<ep_i64>(is_live ? row : 0) * X_STRIDE;
  float values[kValues];
  float peak = -EP_INFINITY;
  EP_UNROLL
  for (int i = 0; i < kValues; ++i) {
    const int at = i * LANES + lane;
    values[i] = at < LENGTH ? ep_to_float(from[at]) : -EP_INFINITY;
    peak = ep_max(peak, values[i]);
  }
  peak = ep_join_lanes<LANES, ROWS_PER_BLOCK, true>(
      peak, [](float a, float b) -> float { return ep_max(a, b); });
  float total = 0.0f;
  EP_UNROLL
  for (int i = 0; i < kValues; ++i) {
    const float power = i * LANES + lane < LENGTH ? expf(values[i] - peak) : 0.0f;
    total += power;
    values[i] = IS_LOG ? values[i] - peak : power;
  }
  total = ep_join_lanes<LANES, ROWS_PER_BLOCK, true>(
      total, [](float a, float b) -> float { return a + b; });
  if (!is_live) return;
  const float last = IS_LOG ? logf(total) : 1.0f / total;
  Y_TYPE *to = y + static_cast<ep_i64>(row) * Y_STRIDE;
  EP_UNROLL
  for (int i = 0; i < kValues; ++i) {
    const int at = i * LANES + lane;
    const float x0 = IS_LOG ? values[i] - last : values[i] * last;
    if (at < LENGTH) to[at] = ep_from_float<Y_TYPE>(EPILOGUE);
  }
}
