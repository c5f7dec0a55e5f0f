// Depthwise convolution in NHWC: a thread computes VECTOR channels of RUN neighbouring pixels.
//
// Input columns that several of the run's pixels need are loaded once per kernel row. All loads of as
// many rows as registers hold are under way together: places outside the image are read at its
// border and count as zeros. Weights are `[tap][channel]`, in the storage type; they and the channel
// vectors of the epilogue are fetched before the wait for earlier kernels.
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
#define OPERAND_TOUCHES
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
constexpr int kTaps = KERNEL_H * KERNEL_W;
constexpr int kRegisters = VECTOR * int(sizeof(X_TYPE)) / 4 > 0 ? VECTOR * int(sizeof(X_TYPE)) / 4 : 1;
constexpr int kRowsAtOnce = KERNEL_H * kColumns * kRegisters <= 96 ? KERNEL_H : 1;
constexpr bool kHasWeightsAhead = kTaps * kRegisters <= 48;
typedef EpPack<X_TYPE, VECTOR> Channels;

EP_DEVICE Channels weights_of(const X_TYPE *w, int tap) {
  return ep_load_pack<X_TYPE, VECTOR>(w + tap * CHANNELS);
}

EP_KERNEL __launch_bounds__(THREADS) SYMBOL(const X_TYPE *x, const X_TYPE *w OPERAND_PARAMETERS,
                                            Y_TYPE *y) {
  const ep_i64 item = static_cast<ep_i64>(blockIdx.x) * THREADS + threadIdx.x;
  if (item >= kItems) return;
  const int channel = static_cast<int>(item % kVectors) * VECTOR;
  const int place = static_cast<int>(item / kVectors);
  const int ow = place % kRuns * RUN, oh = place / kRuns % OUT_H, n = place / kRuns / OUT_H;
  const int first_h = RowRule::origin(oh), first_w = ColumnRule::origin(ow);
  x += n * X_N + channel;
  w += channel;

  Channels weights[kHasWeightsAhead ? kTaps : 1];
  if (kHasWeightsAhead) {
    EP_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) weights[tap] = weights_of(w, tap);
  }
  float zero = 0.0f;
  const int slot = channel;
  (void)slot;
  OPERAND_TOUCHES
  float acc[RUN][VECTOR];
  EP_UNROLL
  for (int p = 0; p < RUN; ++p) {
    EP_UNROLL
    for (int c = 0; c < VECTOR; ++c) acc[p][c] = zero;
  }
  ep_grid_wait();
  ep_grid_launch();

  EP_UNROLL
  for (int first = 0; first < KERNEL_H; first += kRowsAtOnce) {
    Channels pixels[kRowsAtOnce][kColumns];
    EP_UNROLL
    for (int i = 0; i < kRowsAtOnce; ++i) {
      const int ih = first_h + (first + i) * DILATION_H;
      const X_TYPE *row = x + min(max(ih, 0), IN_H - 1) * X_H;
      EP_UNROLL
      for (int column = 0; column < kColumns; ++column) {
        const X_TYPE *from = row + min(max(first_w + column, 0), IN_W - 1) * X_W;
        pixels[i][column] = X_IS_VIEW ? ep_load_pack_any<X_TYPE, VECTOR>(from)
                                      : ep_load_pack<X_TYPE, VECTOR>(from);
      }
    }
    EP_UNROLL
    for (int i = 0; i < kRowsAtOnce; ++i) {
      const int r = first + i, ih = first_h + r * DILATION_H;
      const bool in_h = static_cast<unsigned>(ih) < static_cast<unsigned>(IN_H);
      EP_UNROLL
      for (int column = 0; column < kColumns; ++column) {
        const int iw = first_w + column;
        const bool is_inside = in_h && static_cast<unsigned>(iw) < static_cast<unsigned>(IN_W);
        EP_UNROLL
        for (int s = 0; s < KERNEL_W; ++s) {
          const int distance = column - s * DILATION_W;
          if (distance < 0 || distance % STRIDE_W != 0 || distance / STRIDE_W >= RUN) continue;
          const int tap = r * KERNEL_W + s, p = distance / STRIDE_W;
          const Channels factors = kHasWeightsAhead ? weights[kHasWeightsAhead ? tap : 0]
                                                    : weights_of(w, tap);
          EP_UNROLL
          for (int c = 0; c < VECTOR; ++c) {
            const float value = is_inside ? ep_to_float(pixels[i][column].at[c]) : 0.0f;
            acc[p][c] = fmaf(value, ep_to_float(factors.at[c]), acc[p][c]);
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
