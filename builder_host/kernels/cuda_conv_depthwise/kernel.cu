// Depthwise convolution in NHWC: a thread computes VECTOR channels of RUN neighbouring pixels.
//
// Input columns that several of the run's pixels need are loaded once per kernel row. Weights are
// `[tap][channel]`, in the storage type.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_depthwise
#define BATCH 1
#define CHANNELS 64
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
#define X_IS_VIEW 0
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
#define EPILOGUE x0
#define VECTOR 8
#define RUN 2
#define THREADS 128
// end of parameters
#include "convolution.cuh"

constexpr int kVectors = CHANNELS / VECTOR;
constexpr int kRuns = (OUT_W + RUN - 1) / RUN;
constexpr ep_i64 kItems = static_cast<ep_i64>(BATCH) * OUT_H * kRuns * kVectors;
constexpr int kColumns = (RUN - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1;

EP_KERNEL __launch_bounds__(THREADS) SYMBOL(const X_TYPE *x, const X_TYPE *w OPERAND_PARAMETERS,
                                            Y_TYPE *y) {
  const ep_i64 item = static_cast<ep_i64>(blockIdx.x) * THREADS + threadIdx.x;
  const int channel = static_cast<int>(item % kVectors) * VECTOR;
  const int place = static_cast<int>(item / kVectors);
  const int ow = place % kRuns * RUN, oh = place / kRuns % OUT_H, n = place / kRuns / OUT_H;
  const bool is_inside = item < kItems;

  // Weights of the first kernel row are on their way while earlier kernels end.
  float weights[KERNEL_W][VECTOR];
  EP_UNROLL
  for (int s = 0; s < KERNEL_W; ++s) {
    if (is_inside) {
      load_channels<VECTOR, VECTOR, 1, false>(weights[s], w + s * CHANNELS + channel, VECTOR);
    }
  }
  ep_grid_wait();
  ep_grid_launch();
  if (!is_inside) return;

  float acc[RUN][VECTOR];
  EP_UNROLL
  for (int p = 0; p < RUN; ++p) {
    EP_UNROLL
    for (int c = 0; c < VECTOR; ++c) acc[p][c] = 0.0f;
  }
  const int first_h = RowRule::origin(oh), first_w = ColumnRule::origin(ow);
  x += n * X_N + channel;
  EP_UNROLL
  for (int r = 0; r < KERNEL_H; ++r) {
    if (r > 0) {
      EP_UNROLL
      for (int s = 0; s < KERNEL_W; ++s) {
        load_channels<VECTOR, VECTOR, 1, false>(
            weights[s], w + (r * KERNEL_W + s) * CHANNELS + channel, VECTOR);
      }
    }
    const int ih = first_h + r * DILATION_H;
    if (static_cast<unsigned>(ih) >= static_cast<unsigned>(IN_H)) continue;
    EP_UNROLL
    for (int column = 0; column < kColumns; ++column) {
      const int iw = first_w + column;
      float v[VECTOR];
      if (static_cast<unsigned>(iw) < static_cast<unsigned>(IN_W)) {
        load_channels<VECTOR, VECTOR, 1, X_IS_VIEW != 0>(v, x + ih * X_H + iw * X_W, VECTOR);
      } else {
        EP_UNROLL
        for (int c = 0; c < VECTOR; ++c) v[c] = 0.0f;
      }
      EP_UNROLL
      for (int p = 0; p < RUN; ++p) {
        EP_UNROLL
        for (int s = 0; s < KERNEL_W; ++s) {
          if (p * STRIDE_W + s * DILATION_W == column) {
            EP_UNROLL
            for (int c = 0; c < VECTOR; ++c) acc[p][c] = fmaf(v[c], weights[s][c], acc[p][c]);
          }
        }
      }
    }
  }
  EP_UNROLL
  for (int p = 0; p < RUN; ++p) {
    if (OUT_W % RUN == 0 || ow + p < OUT_W) {
      finish<VECTOR>(acc[p], y OPERAND_NAMES, Pixel{n, oh, ow + p}, channel, channel, VECTOR);
    }
  }
}
