/* The k best of each row and their positions: k passes of one block over the row; each pass finds
 * the next one in the order (value, position), so that equal values come with the first position
 * first. A NaN is never among the best; what is left then is position -1.
 */
#include "ep_cuda.cuh"

// parameters
#define KERNEL cuda_top_k_default
#define X_TYPE float
#define VALUE_TYPE float
#define LOADED element
#define STORED best
#define LOWEST (-EP_INFINITY)
#define HIGHEST EP_INFINITY
#define LENGTH 1000
#define K 5
#define IS_LARGEST 1
#define X_STEP 1
#define Y_STEP 1
#define AT_STEP 1
#define ROW_OFFSETS const ep_i64 x_row = row * 1000, y_row = row * 5, at_row = row * 5;
#define NUM_THREADS 256
// end of parameters

extern "C" __global__ void __launch_bounds__(NUM_THREADS)
    KERNEL(const X_TYPE *x, X_TYPE *y, ep_i64 *at) {
  ep_grid_wait();
  ep_grid_launch();
  const ep_i64 row = blockIdx.x;
  ROW_OFFSETS
  auto is_better = [](VALUE_TYPE a, VALUE_TYPE b) -> bool { return IS_LARGEST ? a > b : a < b; };
  VALUE_TYPE last = IS_LARGEST ? HIGHEST : LOWEST;
  ep_i64 last_at = -1;
  for (int k = 0; k < K; ++k) {
    VALUE_TYPE best = IS_LARGEST ? LOWEST : HIGHEST;
    ep_i64 best_at = -1;
    for (int i = threadIdx.x; i < LENGTH; i += NUM_THREADS) {
      const X_TYPE element = x[x_row + static_cast<ep_i64>(i) * X_STEP];
      const VALUE_TYPE value = LOADED;
      const bool waits = is_better(last, value) || (value == last && i > last_at);
      if (waits && (is_better(value, best) || best_at < 0)) {
        best = value;
        best_at = i;
      }
    }
    ep_join_best<NUM_THREADS, 1, true>(
        best, best_at,
        [](VALUE_TYPE a, ep_i64 at_a, VALUE_TYPE b, ep_i64 at_b) -> bool {
          if (at_b < 0) return false;
          if (at_a < 0) return true;
          return (IS_LARGEST ? b > a : b < a) || (b == a && at_b < at_a);
        });
    if (threadIdx.x == 0) {
      y[y_row + static_cast<ep_i64>(k) * Y_STEP] = STORED;
      at[at_row + static_cast<ep_i64>(k) * AT_STEP] = best_at;
    }
    last = best;
    last_at = best_at;
  }
}
