/* y = x / (k + alpha / size * sum of squares of the `SIZE` nearest channels) ^ beta, channels last.
 *
 * A thread has PACK neighbouring channels of one pixel; it reads whole packs on both sides, which
 * its neighbours have brought to L1.
 */
#include "ep_cuda.cuh"

// parameters
#define KERNEL cuda_lrn_default
#define X_TYPE half
#define Y_TYPE half
#define NUM_IMAGES 1
#define CHANNELS 64
#define HEIGHT 56
#define WIDTH 56
#define X_N 200704
#define X_H 3584
#define X_W 64
#define Y_N 200704
#define Y_H 3584
#define Y_W 64
#define SIZE 5
#define SCALE 2.0e-5f
#define BIAS 1.0f
#define BETA 0.75f
#define IS_THREE_QUARTERS 1
#define PACK 8
#define NUM_THREADS 128
#define EPILOGUE x0
// end of parameters

constexpr int kBefore = (SIZE - 1) / 2, kAfter = SIZE - 1 - kBefore;
constexpr int kPacksBefore = (kBefore + PACK - 1) / PACK, kPacksAfter = (kAfter + PACK - 1) / PACK;
constexpr int kValues = (kPacksBefore + 1 + kPacksAfter) * PACK;
constexpr int kChunks = CHANNELS / PACK;
constexpr int kTotal = NUM_IMAGES * HEIGHT * WIDTH * kChunks;

EP_DEVICE float normalised(float x, float base) {
#if IS_THREE_QUARTERS
  const float r = rsqrtf(base); /* base^-0.75 = r * sqrt(r), and sqrt(r) = r * rsqrt(r) */
  return x * (r * (r * rsqrtf(r)));
#else
  return x * powf(base, -BETA);
#endif
}

/* Packs beyond the channels are read at the border and then left out: loads stay together. */
template <bool is_aligned>
EP_DEVICE void load_values(float (&values)[kValues], const X_TYPE *pixel, int chunk) {
  EP_UNROLL
  for (int p = 0; p < kValues / PACK; ++p) {
    const int at = chunk + p - kPacksBefore;
    const bool is_inside = static_cast<unsigned>(at) < static_cast<unsigned>(kChunks);
    const EpPack<X_TYPE, PACK> pack = ep_load_pack_if<X_TYPE, PACK, is_aligned>(
        pixel + min(max(at, 0), kChunks - 1) * PACK);
    EP_UNROLL
    for (int i = 0; i < PACK; ++i) {
      values[p * PACK + i] = is_inside ? ep_to_float(pack.at[i]) : 0.0f;
    }
  }
}

extern "C" __global__ void __launch_bounds__(NUM_THREADS) KERNEL(const X_TYPE *x, Y_TYPE *y) {
  ep_grid_wait();
  ep_grid_launch();
  int unit = blockIdx.x * NUM_THREADS + threadIdx.x;
  if (unit >= kTotal) return;
  const int chunk = unit % kChunks;
  unit /= kChunks;
  const int w = unit % WIDTH;
  unit /= WIDTH;
  const int h = unit % HEIGHT, n = unit / HEIGHT;
  const X_TYPE *pixel = x + static_cast<ep_i64>(n) * X_N + h * X_H + w * X_W;

  float values[kValues];
  if (ep_is_pack_aligned<X_TYPE, PACK>(x)) {
    load_values<true>(values, pixel, chunk);
  } else {
    load_values<false>(values, pixel, chunk);
  }
  EpPack<Y_TYPE, PACK> results;
  EP_UNROLL
  for (int i = 0; i < PACK; ++i) {
    const int centre = kPacksBefore * PACK + i;
    float total = 0.0f;
    EP_UNROLL
    for (int j = centre - kBefore; j <= centre + kAfter; ++j) {
      total = fmaf(values[j], values[j], total);
    }
    const float x0 = normalised(values[centre], fmaf(SCALE, total, BIAS));
    results.at[i] = ep_from_float<Y_TYPE>(EPILOGUE);
  }
  ep_store_pack_any<Y_TYPE, PACK>(
      y + static_cast<ep_i64>(n) * Y_N + h * Y_H + w * Y_W + chunk * PACK, results);
}
