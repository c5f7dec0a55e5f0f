// Convolution with few channels or filters in a group: one thread per pixel and run of filters.
//
// Weights are `[group][run of FILTERS_AT_ONCE][tap][channel][filter of the run]`.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_direct
#define GROUPS 8
#define GROUP_CHANNELS 4
#define GROUP_FILTERS 4
#define PIXELS 3136
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
#define X_TYPE float
#define Y_TYPE float
#define X_N 100352
#define X_C 1
#define X_H 1792
#define X_W 32
#define X_VECTOR 4
#define X_IS_VIEW 0
#define Y_N 100352
#define Y_C 1
#define Y_H 1792
#define Y_W 32
#define Y_VECTOR 4
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define EPILOGUE x0
#define FILTERS_AT_ONCE 4
#define THREADS 128
// end of parameters
#include "convolution.cuh"

constexpr int kRuns = (GROUP_FILTERS + FILTERS_AT_ONCE - 1) / FILTERS_AT_ONCE;
constexpr int kWeights = KERNEL_H * KERNEL_W * GROUP_CHANNELS * FILTERS_AT_ONCE;

EP_KERNEL __launch_bounds__(THREADS) SYMBOL(const X_TYPE *x, const X_TYPE *w OPERAND_PARAMETERS,
                                            Y_TYPE *y) {
  const ep_i64 item = static_cast<ep_i64>(blockIdx.x) * THREADS + threadIdx.x;
  const int m = static_cast<int>(item / (GROUPS * kRuns));
  const int place = static_cast<int>(item % (GROUPS * kRuns));
  const int group = place / kRuns, filter = (place - group * kRuns) * FILTERS_AT_ONCE;
  ep_grid_wait();
  ep_grid_launch();
  if (m >= PIXELS) return;
  const Pixel at = pixel_of(m);
  const int origin_h = RowRule::origin(at.oh), origin_w = ColumnRule::origin(at.ow);
  x += at.n * X_N + group * GROUP_CHANNELS * X_C;
  w += static_cast<ep_i64>(place) * kWeights;
  float acc[FILTERS_AT_ONCE];
  EP_UNROLL
  for (int j = 0; j < FILTERS_AT_ONCE; ++j) acc[j] = 0.0f;
  EP_NO_UNROLL
  for (int r = 0; r < KERNEL_H; ++r) {
    int ih;
    if (!RowRule::find(origin_h, r, ih)) continue;
    for (int s = 0; s < KERNEL_W; ++s) {
      int iw;
      if (!ColumnRule::find(origin_w, s, iw)) continue;
      const X_TYPE *from = x + ih * X_H + iw * X_W;
      const X_TYPE *weights = w + (r * KERNEL_W + s) * (GROUP_CHANNELS * FILTERS_AT_ONCE);
      for (int c = 0; c < GROUP_CHANNELS; c += X_VECTOR) {
        float v[X_VECTOR];
        load_channels<X_VECTOR, X_VECTOR, X_C, X_IS_VIEW != 0>(v, from + c * X_C, X_VECTOR);
        EP_UNROLL
        for (int i = 0; i < X_VECTOR; ++i) {
          float b[FILTERS_AT_ONCE];
          load_channels<FILTERS_AT_ONCE, FILTERS_AT_ONCE, 1, false>(
              b, weights + (c + i) * FILTERS_AT_ONCE, FILTERS_AT_ONCE);
          EP_UNROLL
          for (int j = 0; j < FILTERS_AT_ONCE; ++j) acc[j] = fmaf(v[i], b[j], acc[j]);
        }
      }
    }
  }
  finish<FILTERS_AT_ONCE>(acc, y OPERAND_NAMES, at, group * GROUP_FILTERS + filter,
                          place * FILTERS_AT_ONCE, GROUP_FILTERS - filter);
}
