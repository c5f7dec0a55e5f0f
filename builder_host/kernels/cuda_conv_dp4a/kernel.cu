// Convolution of 8-bit tensors by dot products of four bytes, exact int32 sums: any architecture.
//
// A block computes TILE_PIXELS x TILE_FILTERS outputs of one group, a thread THREAD_PIXELS x
// THREAD_FILTERS of them. Depth is taps times channels without gaps, in steps of TILE_K terms, four
// to a word. Two buffers of shared memory: while one is multiplied the next terms are on their way in
// registers. Weights lie in the order of use, [step][word][filter].
#include "ep_cuda.cuh"

// parameters
#define SYMBOL conv_dp4a
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
#define X_TYPE ep_i8
#define X_IS_SIGNED 1
#define Y_TYPE ep_i8
#define X_N 200704
#define X_H 3584
#define X_W 64
#define X_VECTOR 16
#define X_IS_VIEW 0
#define Y_N 200704
#define Y_C 1
#define Y_H 3584
#define Y_W 64
#define Y_VECTOR 16
#define Y_IS_VIEW 0
#define OPERAND_PARAMETERS
#define OPERAND_NAMES
#define OPERAND_LOADS
#define OPERAND_SCALARS
#define EPILOGUE ep_max_const_first(-128.0f, ep_min_const_first(127.0f, x0))
#define TILE_PIXELS 64
#define TILE_FILTERS 64
#define THREAD_PIXELS 4
#define THREAD_FILTERS 4
#define TILE_K 32
// end of parameters
#include "convolution.cuh"
#include "terms.cuh"

constexpr int kPixels = BATCH * OUT_H * OUT_W;
constexpr int kSteps = (kTerms + TILE_K - 1) / TILE_K;
constexpr int kWords = TILE_K / 4;
constexpr int kColumns = TILE_FILTERS / THREAD_FILTERS;
constexpr int kThreads = TILE_PIXELS / THREAD_PIXELS * kColumns;
constexpr int kPiece = X_VECTOR < 4 ? 4 : X_VECTOR;  // terms of one thread's load
constexpr int kLoadsOfPixel = TILE_K / kPiece;
constexpr int kRowsAtOnce = kThreads / kLoadsOfPixel;
constexpr int kPasses = (TILE_PIXELS + kRowsAtOnce - 1) / kRowsAtOnce;
constexpr int kWeightLoads = (kWords * TILE_FILTERS / 4 + kThreads - 1) / kThreads;
constexpr int kPixelPitch = TILE_PIXELS + 4;
constexpr int kFilterTiles = (GROUP_FILTERS + TILE_FILTERS - 1) / TILE_FILTERS;

struct Stage {
  unsigned pixels[kWords][kPixelPitch];
  unsigned weights[kWords][TILE_FILTERS];
};

// What this thread moves from global to shared memory for one step.
struct Moved {
  unsigned pixels[kPasses][kPiece / 4];
  uint4 weights[kWeightLoads];
};

EP_DEVICE void fetch_weights(Moved &to, const uint4 *w) {
  EP_UNROLL
  for (int i = 0; i < kWeightLoads; ++i) {
    const int at = i * kThreads + threadIdx.x;
    if (at < kWords * TILE_FILTERS / 4) to.weights[i] = w[at];
  }
}

template <bool is_aligned>
EP_DEVICE void fetch_pixels(Moved &to, const X_TYPE *x, const RowPlan (&rows)[kPasses], int step) {
  const int first = step * TILE_K + threadIdx.x % kLoadsOfPixel * kPiece;
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    load_terms<kPiece, is_aligned>(to.pixels[pass], x, rows[pass], first);
  }
}

EP_DEVICE void put(Stage &stage, const Moved &from) {
  EP_UNROLL
  for (int i = 0; i < kWeightLoads; ++i) {
    const int at = i * kThreads + threadIdx.x;
    if (at < kWords * TILE_FILTERS / 4) {
      reinterpret_cast<uint4 *>(&stage.weights[0][0])[at] = from.weights[i];
    }
  }
  const int word = threadIdx.x % kLoadsOfPixel * (kPiece / 4);
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int row = threadIdx.x / kLoadsOfPixel + pass * kRowsAtOnce;
    if (TILE_PIXELS % kRowsAtOnce == 0 || row < TILE_PIXELS) {
      EP_UNROLL
      for (int i = 0; i < kPiece / 4; ++i) stage.pixels[word + i][row] = from.pixels[pass][i];
    }
  }
}

EP_KERNEL __launch_bounds__(kThreads)
    SYMBOL(const X_TYPE *x, const uint4 *w OPERAND_PARAMETERS, Y_TYPE *y) {
  __shared__ __align__(16) Stage stages[2];
  const int group = GROUPS > 1 ? blockIdx.y / kFilterTiles : 0;
  const int filter_tile = GROUPS > 1 ? blockIdx.y % kFilterTiles : blockIdx.y;
  const int first_pixel = blockIdx.z * TILE_PIXELS;
  const int column = threadIdx.x % kColumns * THREAD_FILTERS;
  const int first_row = threadIdx.x / kColumns * THREAD_PIXELS;

  constexpr int loads_of_step = kWords * TILE_FILTERS / 4;
  w += static_cast<ep_i64>(blockIdx.y) * kSteps * loads_of_step;
  Moved moved;
  fetch_weights(moved, w);
  RowPlan rows[kPasses];
  EP_UNROLL
  for (int pass = 0; pass < kPasses; ++pass) {
    const int row = threadIdx.x / kLoadsOfPixel + pass * kRowsAtOnce;
    rows[pass] = row_plan(row < TILE_PIXELS ? first_pixel + row : kPixels);
  }
  x += group * GROUP_CHANNELS;
  const bool is_aligned = !X_IS_VIEW || ep_is_aligned(x, kPiece < X_VECTOR ? kPiece : X_VECTOR);
  const auto fetch = [&](int step) {
    if (is_aligned) {
      fetch_pixels<true>(moved, x, rows, step);
    } else {
      fetch_pixels<false>(moved, x, rows, step);
    }
  };
  ep_grid_wait();
  ep_grid_launch();
  fetch(0);

  int acc[THREAD_PIXELS][THREAD_FILTERS];
  EP_UNROLL
  for (int i = 0; i < THREAD_PIXELS; ++i) {
    EP_UNROLL
    for (int j = 0; j < THREAD_FILTERS; ++j) acc[i][j] = 0;
  }
  for (int step = 0; step < kSteps; ++step) {
    Stage &stage = stages[step % 2];
    put(stage, moved);
    __syncthreads();  // the other buffer was read before the barrier of the step before
    if (step + 1 < kSteps) {
      fetch_weights(moved, w + (step + 1) * loads_of_step);
      fetch(step + 1);
    }
    EP_UNROLL
    for (int word = 0; word < kWords; ++word) {
      unsigned a[THREAD_PIXELS], b[THREAD_FILTERS];
      EP_UNROLL
      for (int i = 0; i < THREAD_PIXELS; ++i) a[i] = stage.pixels[word][first_row + i];
      EP_UNROLL
      for (int j = 0; j < THREAD_FILTERS; ++j) b[j] = stage.weights[word][column + j];
      EP_UNROLL
      for (int i = 0; i < THREAD_PIXELS; ++i) {
        EP_UNROLL
        for (int j = 0; j < THREAD_FILTERS; ++j) {
          acc[i][j] = ep_dot4<X_IS_SIGNED != 0>(a[i], b[j], acc[i][j]);
        }
      }
    }
  }

  const int filter = filter_tile * TILE_FILTERS + column;
  ep_grid_wait_to_store();
  EP_UNROLL
  for (int i = 0; i < THREAD_PIXELS; ++i) {
    const int m = first_pixel + first_row + i;
    if (m < kPixels && filter < GROUP_FILTERS) {
      float v[THREAD_FILTERS];
      EP_UNROLL
      for (int j = 0; j < THREAD_FILTERS; ++j) v[j] = static_cast<float>(acc[i][j]);
      finish<THREAD_FILTERS>(v, y OPERAND_NAMES, pixel_of(m), group * GROUP_FILTERS + filter,
                             blockIdx.y * TILE_FILTERS + column, GROUP_FILTERS - filter);
    }
  }
}
