// Convolution as an implicit matrix product with plain float multiply-adds: exact fp32, any layout.
//
// A block computes TILE_PIXELS x TILE_FILTERS outputs of one group, a thread THREAD_PIXELS x
// THREAD_FILTERS of them. k runs over all channels of a tap, tap after tap. Two buffers of shared
// memory: while one is multiplied the next values are on their way in registers. SPLITS blocks can
// share the k range of a tile; a second kernel adds their sums.
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_simt
#define BATCH 1
#define GROUPS 1
#define GROUP_CHANNELS 64
#define GROUP_FILTERS 64
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
#define X_N 200704
#define X_C 1
#define X_H 3584
#define X_W 64
#define X_VECTOR 4
#define X_IS_VIEW 0
#define Y_N 200704
#define Y_C 1
#define Y_H 3584
#define Y_W 64
#define Y_VECTOR 4
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define EPILOGUE x0
#define TILE_PIXELS 64
#define TILE_FILTERS 64
#define THREAD_PIXELS 4
#define THREAD_FILTERS 4
#define TILE_K 16
#define SPLITS 1
// end of parameters
#include "convolution.cuh"

constexpr int kPixels = BATCH * OUT_H * OUT_W;
constexpr int kTerms = KERNEL_H * KERNEL_W * GROUP_CHANNELS;
constexpr int kSteps = (kTerms + TILE_K - 1) / TILE_K;
constexpr int kStepsOfSplit = (kSteps + SPLITS - 1) / SPLITS;
constexpr int kColumns = TILE_FILTERS / THREAD_FILTERS;
constexpr int kThreads = TILE_PIXELS / THREAD_PIXELS * kColumns;
constexpr int kVector = X_VECTOR < 4 ? X_VECTOR : 4;  // channels of one load
constexpr int kLoadsOfPixel = TILE_K / kVector;
constexpr int kRowsAtOnce = kThreads / kLoadsOfPixel;
constexpr int kPasses = (TILE_PIXELS + kRowsAtOnce - 1) / kRowsAtOnce;
constexpr int kWeightLoads = (TILE_K * TILE_FILTERS / 4 + kThreads - 1) / kThreads;
constexpr int kPixelPitch = TILE_PIXELS + 4;
constexpr int kFilterTiles = (GROUP_FILTERS + TILE_FILTERS - 1) / TILE_FILTERS;
constexpr int kPaddedFilters = kFilterTiles * TILE_FILTERS;

#if SPLITS > 1
#define SUMS_PARAMETER , float *sums
#else
#define SUMS_PARAMETER
#endif

struct RowPlan {
  int n_offset, origin_h, origin_w;
};
struct Fetched {
  float pixels[kPasses][kVector];
  float weights[kWeightLoads][4];
};

EP_DEVICE void fetch(Fetched &next, const X_TYPE *x, const X_TYPE *w, const RowPlan (&rows)[kPasses],
                     int step) {
  const int load = threadIdx.x % kLoadsOfPixel, first = threadIdx.x / kLoadsOfPixel;
  const int k = step * TILE_K + load * kVector;
  const int tap = k / GROUP_CHANNELS, channel = k - tap * GROUP_CHANNELS;
  const int r = tap / KERNEL_W, s = tap - r * KERNEL_W;
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    int ih = 0, iw = 0;
    const bool in_h = RowRule::find(rows[pass].origin_h, r, ih);
    const bool in_w = ColumnRule::find(rows[pass].origin_w, s, iw);
    const bool is_valid = in_h && in_w && k < kTerms &&
                          (kRowsAtOnce * kPasses == TILE_PIXELS ||
                           first + pass * kRowsAtOnce < TILE_PIXELS);
    const X_TYPE *from = x + rows[pass].n_offset + ih * X_H + iw * X_W + channel * X_C;
    if (is_valid) {
      load_channels<kVector, kVector, X_C, X_IS_VIEW != 0>(next.pixels[pass], from, kVector);
    } else {
      EP_UNROLL
      for (int i = 0; i < kVector; ++i) next.pixels[pass][i] = 0.0f;
    }
  }
  EP_UNROLL
  for (int i = 0; i < kWeightLoads; ++i) {
    const int at = (i * kThreads + threadIdx.x) * 4;
    if (at < TILE_K * TILE_FILTERS) {
      load_channels<4, 4, 1, false>(next.weights[i], w + step * (TILE_K * TILE_FILTERS) + at, 4);
    }
  }
}

EP_DEVICE void put(float *pixels, float *weights, const Fetched &next) {
  const int load = threadIdx.x % kLoadsOfPixel, first = threadIdx.x / kLoadsOfPixel;
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int row = first + pass * kRowsAtOnce;
    if (kRowsAtOnce * kPasses == TILE_PIXELS || row < TILE_PIXELS) {
      EP_UNROLL
      for (int i = 0; i < kVector; ++i) {
        pixels[(load * kVector + i) * kPixelPitch + row] = next.pixels[pass][i];
      }
    }
  }
  EP_UNROLL
  for (int i = 0; i < kWeightLoads; ++i) {
    const int at = (i * kThreads + threadIdx.x) * 4;
    if (at < TILE_K * TILE_FILTERS) {
      *reinterpret_cast<float4 *>(weights + at) = make_float4(
          next.weights[i][0], next.weights[i][1], next.weights[i][2], next.weights[i][3]);
    }
  }
}

EP_KERNEL __launch_bounds__(kThreads) SYMBOL(const X_TYPE *x, const X_TYPE *w OPERAND_PARAMETERS,
                                             Y_TYPE *y SUMS_PARAMETER) {
  extern __shared__ __align__(16) float shared[];
  constexpr int buffer = TILE_K * (kPixelPitch + TILE_FILTERS);
  const int split = SPLITS > 1 ? blockIdx.x : 0;
  const int group = GROUPS > 1 ? blockIdx.y / kFilterTiles : 0;
  const int filter_tile = GROUPS > 1 ? blockIdx.y % kFilterTiles : blockIdx.y;
  const int first_step = split * kStepsOfSplit;
  const int end_step =
      first_step + kStepsOfSplit < kSteps ? first_step + kStepsOfSplit : kSteps;
  const int column = threadIdx.x % kColumns * THREAD_FILTERS;
  const int row = threadIdx.x / kColumns * THREAD_PIXELS;

  RowPlan rows[kPasses];
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int m =
        blockIdx.z * TILE_PIXELS + threadIdx.x / kLoadsOfPixel + pass * kRowsAtOnce;
    const Pixel at = pixel_of(m);
    rows[pass].n_offset = at.n * X_N;
    rows[pass].origin_h = m < kPixels ? RowRule::origin(at.oh) : -(1 << 24);
    rows[pass].origin_w = ColumnRule::origin(at.ow);
  }
  x += group * GROUP_CHANNELS * X_C;
  w += static_cast<ep_i64>(blockIdx.y) * kSteps * (TILE_K * TILE_FILTERS);
  ep_grid_wait();
  ep_grid_launch();

  float acc[THREAD_PIXELS][THREAD_FILTERS];
  EP_UNROLL
  for (int i = 0; i < THREAD_PIXELS; ++i) {
    EP_UNROLL
    for (int j = 0; j < THREAD_FILTERS; ++j) acc[i][j] = 0.0f;
  }
  Fetched next;
  fetch(next, x, w, rows, first_step);
  put(shared, shared + TILE_K * kPixelPitch, next);
  __syncthreads();
  for (int step = first_step; step < end_step; ++step) {
    const int now = (step - first_step) & 1;
    if (step + 1 < end_step) fetch(next, x, w, rows, step + 1);
    const float *pixels = shared + now * buffer, *weights = pixels + TILE_K * kPixelPitch;
    EP_UNROLL
    for (int k = 0; k < TILE_K; ++k) {
      float a[THREAD_PIXELS], b[THREAD_FILTERS];
      load_channels<THREAD_PIXELS, 4, 1, false>(a, pixels + k * kPixelPitch + row, THREAD_PIXELS);
      load_channels<THREAD_FILTERS, 4, 1, false>(b, weights + k * TILE_FILTERS + column,
                                                 THREAD_FILTERS);
      EP_UNROLL
      for (int i = 0; i < THREAD_PIXELS; ++i) {
        EP_UNROLL
        for (int j = 0; j < THREAD_FILTERS; ++j) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
      }
    }
    if (step + 1 < end_step) {
      float *other = shared + (1 - now) * buffer;
      put(other, other + TILE_K * kPixelPitch, next);
      __syncthreads();
    }
  }

  const int filter = filter_tile * TILE_FILTERS + column;
  if (filter >= GROUP_FILTERS) return;
  const int slot = group * kPaddedFilters + filter;
  EP_UNROLL
  for (int i = 0; i < THREAD_PIXELS; ++i) {
    const int m = blockIdx.z * TILE_PIXELS + row + i;
    if (m < kPixels) {
#if SPLITS > 1
      float *to =
          sums + (static_cast<ep_i64>(split) * kPixels + m) * (GROUPS * kPaddedFilters) + slot;
      EP_UNROLL
      for (int j = 0; j < THREAD_FILTERS; ++j) to[j] = acc[i][j];
#else
      finish<THREAD_FILTERS>(acc[i], y OPERAND_NAMES, pixel_of(m), group * GROUP_FILTERS + filter,
                             slot, GROUP_FILTERS - filter);
#endif
    }
  }
}

#if SPLITS > 1
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
// The second kernel: sums of all splits, four channels per thread.
EP_KERNEL __launch_bounds__(128) JOIN(SYMBOL, _sum)(const X_TYPE *, const X_TYPE *OPERAND_PARAMETERS,
                                                    Y_TYPE *y, const float *sums) {
  ep_grid_wait();
  ep_grid_launch();
  constexpr int width = GROUPS * kPaddedFilters;
  const ep_i64 run = static_cast<ep_i64>(blockIdx.x) * 128 + threadIdx.x;
  const int m = static_cast<int>(run / (width / 4)), slot = static_cast<int>(run % (width / 4)) * 4;
  const int group = slot / kPaddedFilters, filter = slot - group * kPaddedFilters;
  if (m >= kPixels || filter >= GROUP_FILTERS) return;
  float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  EP_UNROLL
  for (int split = 0; split < SPLITS; ++split) {
    float part[4];
    load_channels<4, 4, 1, false>(
        part, sums + (static_cast<ep_i64>(split) * kPixels + m) * width + slot, 4);
    EP_UNROLL
    for (int j = 0; j < 4; ++j) v[j] += part[j];
  }
  finish<4>(v, y OPERAND_NAMES, pixel_of(m), group * GROUP_FILTERS + filter, slot,
            GROUP_FILTERS - filter);
}
#endif
