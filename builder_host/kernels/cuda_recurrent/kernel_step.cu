/* Recurrent layer (LSTM, GRU, RNN) whose input projections are known, one kernel per step.
 *
 * Needs nothing but ordinary launches, so any number of blocks and any hidden size: R streams from
 * L2 or memory at every step, as it lies. A warp owns one hidden unit; its lanes share the sums over
 * k. State and count of blocks are in the workspace, [h even][h odd][c][update][reset * h][count];
 * all launches of a step are the same kernel: the blocks that ended before tell which step it is.
 * A state is stored as the next step reads it: multiplied by that step's continuation.
 */
#include "ep_cuda.cuh"

#define LSTM 0
#define GRU 1
#define RNN 2
#define NO_OPTIONAL_INPUTS(type)                                                                  \
  const type *recurrent_bias = nullptr, *peepholes = nullptr, *hidden = nullptr, *cell = nullptr, \
             *continuation = nullptr;                                                             \
  const int *lengths = nullptr;

// parameters
#define KERNEL cuda_recurrent_step_default
#define BEGIN_KERNEL cuda_recurrent_step_default_begin
#define T half
#define CELL LSTM
#define WARPS 4
#define STEPS 100
#define BATCH 1
#define ROW_TILE 1
#define HIDDEN 512
#define HAS_PHASES 0
#define DIRECTIONS 1
#define IS_REVERSED_0 0
#define IS_REVERSED_1 1
#define COUPLES_INPUT_FORGET 0
#define ACT_0_0 ep_sigmoid_s(v)
#define ACT_0_1 ep_tanh_s(v)
#define ACT_0_2 ep_tanh_s(v)
#define ACT_1_0 ep_sigmoid_s(v)
#define ACT_1_1 ep_tanh_s(v)
#define ACT_1_2 ep_tanh_s(v)
#define X_STRIDE_T 2048
#define X_STRIDE_N 2048
#define Y_STRIDE_T 512
#define Y_STRIDE_N 512
#define R_STRIDE_D 1048576
#define R_STRIDE_ROW 512
#define OPTIONAL_PARAMETERS
#define ABSENT_PARAMETERS NO_OPTIONAL_INPUTS(half)
#define LAST_CELL_PARAMETER , half *last_cell
#define HAS_RECURRENT_BIAS 0
#define HAS_PEEPHOLES 0
#define HAS_HIDDEN 0
#define HAS_CELL 0
#define HAS_LENGTHS 0
#define HAS_CONTINUATION 0
#define HIDDEN_STRIDE_D 0
#define HIDDEN_STRIDE_N 0
#define CELL_STRIDE_D 0
#define CELL_STRIDE_N 0
#define CONTINUATION_STRIDE_T 0
#define CONTINUATION_STRIDE_N 0
#define LAST_STRIDE_D 512
#define LAST_STRIDE_N 512
#define LAST_CELL_STRIDE_D 512
#define LAST_CELL_STRIDE_N 512
// end of parameters

constexpr int kGates = CELL == LSTM ? 4 : CELL == GRU ? 3 : 1;
constexpr int kState = DIRECTIONS * BATCH * HIDDEN;
constexpr int kLaunches = HAS_PHASES ? 2 : 1; /* of one step */

EP_DEVICE float act(int d, int which, float v) {
  if (which == 0) return DIRECTIONS == 1 || d == 0 ? (ACT_0_0) : (ACT_1_0);
  if (which == 1) return DIRECTIONS == 1 || d == 0 ? (ACT_0_1) : (ACT_1_1);
  return DIRECTIONS == 1 || d == 0 ? (ACT_0_2) : (ACT_1_2);
}
EP_DEVICE int time_of(int d, int step) {
  return (d == 0 ? IS_REVERSED_0 : IS_REVERSED_1) ? STEPS - 1 - step : step;
}
EP_DEVICE float continued(const T *continuation, const int *lengths, int d, int n, int step,
                          float value) {
  if (!HAS_CONTINUATION || step >= STEPS) return value;
  const int t = time_of(d, step);
  if (HAS_LENGTHS && t >= lengths[n]) return value;
  const float factor =
      ep_to_float(continuation[t * CONTINUATION_STRIDE_T + n * CONTINUATION_STRIDE_N]);
  return factor == 0.0f ? 0.0f : value * factor;
}

/* The state that the first step reads, and no block counted. */
extern "C" __global__ void __launch_bounds__(256)
    BEGIN_KERNEL(const T *, const T * OPTIONAL_PARAMETERS, T *, T * LAST_CELL_PARAMETER,
                 float *workspace) {
  ABSENT_PARAMETERS
  ep_grid_wait();
  ep_grid_launch();
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i == 0) *reinterpret_cast<unsigned *>(workspace + 5 * kState) = 0;
  if (i >= kState) return;
  const int unit = i % HIDDEN, n = i / HIDDEN % BATCH, d = i / HIDDEN / BATCH;
  float h = 0.0f, c = 0.0f;
  if (HAS_HIDDEN) h = ep_to_float(hidden[d * HIDDEN_STRIDE_D + n * HIDDEN_STRIDE_N + unit]);
  if (HAS_CELL) c = ep_to_float(cell[d * CELL_STRIDE_D + n * CELL_STRIDE_N + unit]);
  workspace[i] = continued(continuation, lengths, d, n, 0, h);
  workspace[2 * kState + i] = continued(continuation, lengths, d, n, 0, c);
}

/* sums[gate][row] of `gates` gates from `first_gate` on; the same in all lanes. */
template <int gates>
EP_DEVICE void multiply(float (&sums)[kGates][ROW_TILE], const T *r, const float *state, int unit,
                        int first_gate, int first_row) {
  EP_UNROLL
  for (int g = 0; g < gates; ++g)
    EP_UNROLL
    for (int i = 0; i < ROW_TILE; ++i) sums[g][i] = 0.0f;
  _Pragma("unroll 4")
  for (int k = threadIdx.x % 32; k < HIDDEN; k += 32) {
    float h[ROW_TILE];
    EP_UNROLL
    for (int i = 0; i < ROW_TILE; ++i) h[i] = state[min(first_row + i, BATCH - 1) * HIDDEN + k];
    EP_UNROLL
    for (int g = 0; g < gates; ++g) {
      const float w = ep_to_float(r[((first_gate + g) * HIDDEN + unit) * R_STRIDE_ROW + k]);
      EP_UNROLL
      for (int i = 0; i < ROW_TILE; ++i) sums[g][i] = fmaf(w, h[i], sums[g][i]);
    }
  }
  EP_UNROLL
  for (int g = 0; g < gates; ++g)
    EP_UNROLL
    for (int i = 0; i < ROW_TILE; ++i) sums[g][i] = ep_warp_sum(sums[g][i]);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    KERNEL(const T *x, const T *recurrent OPTIONAL_PARAMETERS, T *y,
           T *last_hidden LAST_CELL_PARAMETER, float *workspace) {
  ABSENT_PARAMETERS
#if CELL != LSTM
  T *const last_cell = nullptr;
#endif
  ep_grid_wait();
  ep_grid_launch();
  unsigned *const count = reinterpret_cast<unsigned *>(workspace + 5 * kState);
  const unsigned launch =
      *const_cast<volatile unsigned *>(count) / (gridDim.x * gridDim.y * gridDim.z);
  __syncthreads(); /* all have read it before this block is counted */
  const int step = static_cast<int>(launch) / kLaunches;
  const bool is_first_phase = HAS_PHASES && launch % kLaunches == 0;
  const int d = blockIdx.z, lane = threadIdx.x % 32;
  const int unit = blockIdx.x * WARPS + threadIdx.x / 32;
  const int first_row = blockIdx.y * ROW_TILE;
  const int t = time_of(d, step);
  if (unit < HIDDEN) {
    float *const state = workspace + d * BATCH * HIDDEN;
    const float *const now = state + step % 2 * kState;
    const T *const r = recurrent + static_cast<ep_i64>(d) * R_STRIDE_D;
    float sums[kGates][ROW_TILE];
    if (!HAS_PHASES)
      multiply<kGates>(sums, r, now, unit, 0, first_row);
    else if (is_first_phase)
      multiply<kGates == 3 ? 2 : 1>(sums, r, now, unit, 0, first_row);
    else
      multiply<1>(sums, r, state + 4 * kState, unit, 2, first_row);
    EP_UNROLL
    for (int i = 0; i < ROW_TILE; ++i) {
      const int n = first_row + i, at = n * HIDDEN + unit;
      if (lane != i || n >= BATCH) continue;
      float gate[kGates], h, c = 0.0f;
      EP_UNROLL
      for (int g = 0; g < kGates; ++g)
        gate[g] = ep_to_float(x[t * static_cast<ep_i64>(X_STRIDE_T) + n * X_STRIDE_N +
                                (d * kGates + g) * HIDDEN + unit]);
      const float before = now[at];
      if (is_first_phase) {
        state[3 * kState + at] = act(d, 0, gate[0] + sums[0][i]);
        state[4 * kState + at] =
            before * act(d, 0, gate[kGates > 1 ? 1 : 0] + sums[kGates > 1 ? 1 : 0][i]);
        continue;
      }
      if (CELL == RNN) {
        h = act(d, 0, gate[0] + sums[0][i]);
      } else if (CELL == GRU) {
        float update, inner;
        if (HAS_PHASES) {
          update = state[3 * kState + at];
          inner = sums[0][i];
        } else {
          update = act(d, 0, gate[0] + sums[0][i]);
          inner = sums[kGates - 1][i];
          if (HAS_RECURRENT_BIAS) inner += ep_to_float(recurrent_bias[d * HIDDEN + unit]);
          inner *= act(d, 0, gate[kGates > 1 ? 1 : 0] + sums[kGates > 1 ? 1 : 0][i]);
        }
        h = (1.0f - update) * act(d, 1, gate[kGates - 1] + inner) + update * before;
      } else {
        c = state[2 * kState + at];
        float in = gate[0] + sums[0][i];
        float out = gate[kGates > 1 ? 1 : 0] + sums[kGates > 1 ? 1 : 0][i];
        float forget = gate[kGates > 2 ? 2 : 0] + sums[kGates > 2 ? 2 : 0][i];
        const T *const p = peepholes + d * 3 * HIDDEN + unit;
        if (HAS_PEEPHOLES) {
          in += c * ep_to_float(p[0]);
          forget += c * ep_to_float(p[2 * HIDDEN]);
        }
        in = act(d, 0, in);
        forget = COUPLES_INPUT_FORGET ? 1.0f - in : act(d, 0, forget);
        c = forget * c + in * act(d, 1, gate[kGates - 1] + sums[kGates - 1][i]);
        if (HAS_PEEPHOLES) out += c * ep_to_float(p[HIDDEN]);
        h = act(d, 0, out) * act(d, 2, c);
      }
      const bool lives = !HAS_LENGTHS || t < lengths[n];
      y[t * static_cast<ep_i64>(Y_STRIDE_T) + n * Y_STRIDE_N + d * HIDDEN + unit] =
          ep_from_float<T>(lives ? h : 0.0f);
      if (!lives) {
        h = before;
        c = state[2 * kState + at];
      }
      if (step == STEPS - 1) {
        last_hidden[d * LAST_STRIDE_D + n * LAST_STRIDE_N + unit] = ep_from_float<T>(h);
        if (CELL == LSTM)
          last_cell[d * LAST_CELL_STRIDE_D + n * LAST_CELL_STRIDE_N + unit] = ep_from_float<T>(c);
      }
      state[(step + 1) % 2 * kState + at] = continued(continuation, lengths, d, n, step + 1, h);
      if (CELL == LSTM)
        state[2 * kState + at] = continued(continuation, lengths, d, n, step + 1, c);
    }
  }
  if (threadIdx.x == 0) atomicAdd(count, 1u);
}
