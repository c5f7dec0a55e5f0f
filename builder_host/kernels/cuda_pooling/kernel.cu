/* Max and average pooling, channels last: a point is PACK channels of one output pixel.
 *
 * LANES threads share the cells of a window (global pooling); neighbouring threads have
 * neighbouring channels either way. Padding counts as -inf for the maximum; the divisor of the
 * average is DIVISOR, or where that is 0 the number of cells with COUNT_TOP <= row < COUNT_BOTTOM
 * and COUNT_LEFT <= column < COUNT_RIGHT.
 */
#include "ep_cuda.cuh"

// parameters
#define KERNEL cuda_pooling_default
#define X_TYPE half
#define Y_TYPE half
#define IS_MAX 1
#define NUM_IMAGES 1
#define CHANNELS 64
#define IN_H 112
#define IN_W 112
#define OUT_H 56
#define OUT_W 56
#define X_N 802816
#define X_H 7168
#define X_W 64
#define Y_N 200704
#define Y_H 3584
#define Y_W 64
#define WINDOW_H 3
#define WINDOW_W 3
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 1
#define PAD_LEFT 1
#define DILATION_H 1
#define DILATION_W 1
#define DIVISOR 0.0f
#define COUNT_TOP 0
#define COUNT_BOTTOM 112
#define COUNT_LEFT 0
#define COUNT_RIGHT 112
#define PACK 8
#define POINTS 128
#define LANES 1
#define EPILOGUE x0
// end of parameters

constexpr int kChunks = CHANNELS / PACK;
constexpr int kTotal = NUM_IMAGES * OUT_H * OUT_W * kChunks;
constexpr int kThreads = POINTS * LANES;

EP_DEVICE float join(float a, float b) { return IS_MAX ? ep_max(a, b) : a + b; }

/* Cells outside the image are read at its border and then left out, so that all loads of a window
 * are under way together. */
template <bool is_aligned>
EP_DEVICE void take(float (&sums)[PACK], const X_TYPE *image, int ih, int iw) {
  const bool is_inside =
      static_cast<unsigned>(ih) < IN_H && static_cast<unsigned>(iw) < IN_W;
  const int at_h = min(max(ih, 0), IN_H - 1), at_w = min(max(iw, 0), IN_W - 1);
  const EpPack<X_TYPE, PACK> pack =
      ep_load_pack_of_step<X_TYPE, PACK, is_aligned>(image + at_h * X_H + at_w * X_W);
  EP_UNROLL
  for (int i = 0; i < PACK; ++i) {
    const float value = is_inside ? ep_to_float(pack.at[i]) : (IS_MAX ? -EP_INFINITY : 0.0f);
    sums[i] = join(sums[i], value);
  }
}

template <bool is_aligned>
EP_DEVICE void take_share(float (&sums)[PACK], const X_TYPE *image, int top, int left, int lane) {
  if (LANES == 1) {
#if WINDOW_H * WINDOW_W <= 25
    EP_UNROLL
#endif
    for (int r = 0; r < WINDOW_H; ++r) {
#if WINDOW_H * WINDOW_W <= 25
      EP_UNROLL
#endif
      for (int s = 0; s < WINDOW_W; ++s) {
        take<is_aligned>(sums, image, top + r * DILATION_H, left + s * DILATION_W);
      }
    }
  } else {
    _Pragma("unroll 4")
    for (int cell = lane; cell < WINDOW_H * WINDOW_W; cell += LANES) {
      take<is_aligned>(sums, image, top + cell / WINDOW_W * DILATION_H,
                       left + cell % WINDOW_W * DILATION_W);
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads) KERNEL(const X_TYPE *x, Y_TYPE *y) {
  ep_grid_wait();
  ep_grid_launch();
  const int lane = threadIdx.x / POINTS;
  int unit = blockIdx.x * POINTS + threadIdx.x % POINTS;
  const bool is_live = unit < kTotal;
  if (LANES == 1 && !is_live) return;
  if (!is_live) unit = 0; /* all threads meet at the barrier */
  const int channel = unit % kChunks * PACK;
  unit /= kChunks;
  const int ow = unit % OUT_W;
  unit /= OUT_W;
  const int oh = unit % OUT_H, n = unit / OUT_H;
  const int top = oh * STRIDE_H - PAD_TOP, left = ow * STRIDE_W - PAD_LEFT;
  const X_TYPE *image = x + static_cast<ep_i64>(n) * X_N + channel;

  float sums[PACK];
  EP_UNROLL
  for (int i = 0; i < PACK; ++i) sums[i] = IS_MAX ? -EP_INFINITY : 0.0f;
  if (ep_is_pack_aligned<X_TYPE, PACK>(x)) {
    take_share<true>(sums, image, top, left, lane);
  } else {
    take_share<false>(sums, image, top, left, lane);
  }
  if (LANES > 1) {
    __shared__ float parts[LANES][PACK][POINTS];
    EP_UNROLL
    for (int i = 0; i < PACK; ++i) parts[lane][i][threadIdx.x % POINTS] = sums[i];
    for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {
      __syncthreads();
      if (lane >= half_lanes) continue;
      EP_UNROLL
      for (int i = 0; i < PACK; ++i) {
        sums[i] = join(sums[i], parts[lane + half_lanes][i][threadIdx.x % POINTS]);
        parts[lane][i][threadIdx.x % POINTS] = sums[i];
      }
    }
    if (lane != 0 || !is_live) return;
  }

  float count = DIVISOR;
  if (!IS_MAX && DIVISOR == 0.0f) {
    int rows = 0, columns = 0;
    for (int r = 0; r < WINDOW_H; ++r) {
      const int ih = top + r * DILATION_H;
      rows += ih >= COUNT_TOP && ih < COUNT_BOTTOM;
    }
    for (int s = 0; s < WINDOW_W; ++s) {
      const int iw = left + s * DILATION_W;
      columns += iw >= COUNT_LEFT && iw < COUNT_RIGHT;
    }
    count = static_cast<float>(rows * columns);
  }
  ep_grid_wait_to_store();
  EpPack<Y_TYPE, PACK> results;
  EP_UNROLL
  for (int i = 0; i < PACK; ++i) {
    const float x0 = IS_MAX ? sums[i] : sums[i] / count;
    results.at[i] = ep_from_float<Y_TYPE>(EPILOGUE);
  }
  ep_store_pack_any<Y_TYPE, PACK>(
      y + static_cast<ep_i64>(n) * Y_N + oh * Y_H + ow * Y_W + channel, results);
}
