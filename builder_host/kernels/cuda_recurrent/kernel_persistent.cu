/* Recurrent layer (LSTM, GRU, RNN) whose input projections are known, all steps in one kernel.
 *
 * A cluster of CLUSTER blocks runs one direction of up to ROWS batch items; each block owns UNITS
 * hidden units and the rows of R that belong to them, gate after gate. R stays where it was loaded
 * before the first step: HELD pieces of 16 bytes per thread in registers, SHARED in shared memory;
 * only what is left streams from L2. A step is: products of these rows with the state, which every
 * block has whole in its shared memory; sums of the warps that share a row; the cell; its new units
 * sent to all blocks, where a barrier counts the bytes. Stores to y and loads of x lie between
 * sending and waiting. States are held twice: a block is never more than one step ahead of another,
 * because it needs the units of all.
 *
 * Warps form WARPS_M x WARPS_K: tiles of rows by interleaved blocks of k. With MMA a tile is 16 rows
 * of an m16n8k16 whose columns are batch items, and a block of 32 k is two of them (lane l takes k
 * 8 (l % 4) .. + 7, so that its state is one 16-byte load); without, a tile is 32 rows, one per lane,
 * and a block is 16 bytes. Weights: [direction][rank][phase][warp][tile][block of k][piece][lane].
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
#define KERNEL cuda_recurrent_default
#define T half
#define CELL LSTM
#define USES_MMA 1
#define CLUSTER 16
#define WARPS 16
#define WARPS_K 2
#define STEPS 100
#define BATCH 1
#define ROWS 1
#define HIDDEN 512
#define UNITS 32
#define PADDED_K 512
#define GATES_0 4
#define TILES_M_0 1
#define HELD_0 16
#define SHARED_0 0
#define GATES_1 0
#define TILES_M_1 0
#define HELD_1 0
#define SHARED_1 0
#define DIRECTIONS 1
#define IS_REVERSED_0 0
#define IS_REVERSED_1 1
#define COUPLES_INPUT_FORGET 0
#define IS_USUAL 1
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

#if USES_MMA
typedef half State;
constexpr int kTileRows = 16, kBlockK = 32, kPieces = 2;
#else
typedef float State;
constexpr int kTileRows = 32, kBlockK = 16 / sizeof(T), kPieces = 1;
#endif
constexpr int kGates = CELL == LSTM ? 4 : CELL == GRU ? 3 : 1;
constexpr bool kHasPhases = GATES_1 > 0;
static_assert(GATES_0 + GATES_1 == kGates, "each gate belongs to one phase");
constexpr int kThreads = 32 * WARPS;
constexpr int kWarpsM = WARPS / WARPS_K;
constexpr int kBlocksK = PADDED_K / kBlockK / WARPS_K; /* of one warp */
constexpr int kPaddedRows = kWarpsM * kTileRows * (TILES_M_0 > TILES_M_1 ? TILES_M_0 : TILES_M_1);
constexpr int kTotal_0 = TILES_M_0 * kBlocksK * kPieces;
constexpr int kTotal_1 = TILES_M_1 * kBlocksK * kPieces;
constexpr int kPair = 4 / sizeof(State);  /* states in one store to another block */
constexpr int kStateRow = PADDED_K + 16 / sizeof(State); /* rows apart by 4 banks */
constexpr int kLanes = 4;                                /* finish one unit of one item together */
constexpr int kFinishing = kLanes * UNITS * ROWS;        /* threads wanted for that */
constexpr int kArrivalBytes = 64;
constexpr unsigned kPublishedBytes = CLUSTER * UNITS * ROWS * sizeof(State);
constexpr int kRounds = (kFinishing + kThreads - 1) / kThreads;
constexpr int kColumnTiles = (ROWS + 7) / 8;

EP_DEVICE float act(int d, int which, float v) {
  if (which == 0) return DIRECTIONS == 1 || d == 0 ? (ACT_0_0) : (ACT_1_0);
  if (which == 1) return DIRECTIONS == 1 || d == 0 ? (ACT_0_1) : (ACT_1_1);
  return DIRECTIONS == 1 || d == 0 ? (ACT_0_2) : (ACT_1_2);
}
EP_DEVICE int time_of(int d, int step) {
  return (d == 0 ? IS_REVERSED_0 : IS_REVERSED_1) ? STEPS - 1 - step : step;
}

/* What a warp keeps of R in one phase; `held` in registers once everything is unrolled. */
template <int kTilesM, int kHeld, int kShared>
struct Weights {
  static constexpr int kTotal = kTilesM * kBlocksK * kPieces;
  uint4 held[kHeld > 0 ? kHeld : 1];
  uint4 *shared;        /* of this warp */
  const uint4 *global;  /* of this warp */

  __device__ __forceinline__ void load(uint4 *block_shared, const uint4 *block_global, int warp,
                                       int lane) {
    shared = block_shared + warp * kShared * 32;
    global = block_global + static_cast<ep_i64>(warp) * kTotal * 32;
    EP_UNROLL
    for (int i = 0; i < kHeld; ++i) held[i] = ep_load16_stream(global + i * 32 + lane);
    for (int i = 0; i < kShared; ++i)
      shared[i * 32 + lane] = ep_load16_stream(global + (kHeld + i) * 32 + lane);
  }
  __device__ __forceinline__ uint4 piece(int i, int lane) const {
    if (i < kHeld) return held[i];
    if (i < kHeld + kShared) return shared[(i - kHeld) * 32 + lane];
    return ep_load16(global + i * 32 + lane);
  }

  /* partial[wk][row][item] of this warp's rows and its part of k. */
  __device__ __forceinline__ void multiply(const State *state, float *partial, int warp,
                                           int lane) const {
    const int wm = warp / WARPS_K, wk = warp % WARPS_K;
#if USES_MMA
    constexpr int kChains = kTilesM == 1 ? 4 : 2; /* sums under way hide the latency of an mma */
    float sums[kTilesM > 0 ? kTilesM : 1][kChains][kColumnTiles][4];
    EP_UNROLL
    for (int m = 0; m < kTilesM; ++m)
      EP_UNROLL
      for (int c = 0; c < kChains; ++c)
        EP_UNROLL
        for (int r = 0; r < kColumnTiles; ++r)
          EP_UNROLL
          for (int i = 0; i < 4; ++i) sums[m][c][r][i] = 0.0f;
    EP_UNROLL
    for (int b = 0; b < kBlocksK; ++b) {
      const int k = (b * WARPS_K + wk) * kBlockK + lane % 4 * 8;
      uint4 values[kColumnTiles];
      EP_UNROLL
      for (int r = 0; r < kColumnTiles; ++r) {
        /* Lanes of columns beyond the last item load nothing: that would cost as much as data. */
        const int item = r * 8 + lane / 4;
        values[r] = item < ROWS ? ep_load16(state + item * kStateRow + k) : make_uint4(0, 0, 0, 0);
      }
      EP_UNROLL
      for (int m = 0; m < kTilesM; ++m) {
        EP_UNROLL
        for (int j = 0; j < 2; ++j) {
          const uint4 w = piece((m * kBlocksK + b) * 2 + j, lane);
          const unsigned a[4] = {w.x, w.y, w.z, w.w};
          EP_UNROLL
          for (int r = 0; r < kColumnTiles; ++r) {
            const unsigned near[2] = {values[r].x, values[r].y};
            const unsigned far[2] = {values[r].z, values[r].w};
            ep_mma_f16(sums[m][(b * 2 + j) % kChains][r], a, j == 0 ? near : far);
          }
        }
      }
    }
    EP_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      EP_UNROLL
      for (int r = 0; r < kColumnTiles; ++r) {
        EP_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int row = (wm * kTilesM + m) * 16 + lane / 4 + i / 2 * 8;
          const int item = r * 8 + lane % 4 * 2 + i % 2;
          float sum = sums[m][0][r][i] + sums[m][1][r][i];
          if (kChains == 4) sum += sums[m][kChains - 2][r][i] + sums[m][kChains - 1][r][i];
          if (item < ROWS) partial[(wk * kPaddedRows + row) * ROWS + item] = sum;
        }
      }
    }
#else
    float sums[kTilesM > 0 ? kTilesM : 1][ROWS];
    EP_UNROLL
    for (int m = 0; m < kTilesM; ++m)
      EP_UNROLL
      for (int n = 0; n < ROWS; ++n) sums[m][n] = 0.0f;
    EP_UNROLL
    for (int b = 0; b < kBlocksK; ++b) {
      const float *at = state + (b * WARPS_K + wk) * kBlockK;
      EP_UNROLL
      for (int m = 0; m < kTilesM; ++m) {
        const uint4 bits = piece(m * kBlocksK + b, lane);
        float w[kBlockK];
        if (sizeof(T) == 2) {
          const unsigned parts[4] = {bits.x, bits.y, bits.z, bits.w};
          EP_UNROLL
          for (int i = 0; i < kBlockK; ++i)
            w[i] = i % 2 ? ep_unpack_high(parts[i / 2 % 4]) : ep_unpack_low(parts[i / 2 % 4]);
        } else {
          const unsigned parts[4] = {bits.x, bits.y, bits.z, bits.w};
          EP_UNROLL
          for (int i = 0; i < kBlockK; ++i) w[i] = __uint_as_float(parts[i % 4]);
        }
        EP_UNROLL
        for (int n = 0; n < ROWS; ++n) {
          EP_UNROLL
          for (int i = 0; i < kBlockK; i += 4) {
            const float4 h = *reinterpret_cast<const float4 *>(at + n * kStateRow + i);
            sums[m][n] = fmaf(w[i], h.x, sums[m][n]);
            sums[m][n] = fmaf(w[i + 1], h.y, sums[m][n]);
            sums[m][n] = fmaf(w[i + 2], h.z, sums[m][n]);
            sums[m][n] = fmaf(w[i + 3], h.w, sums[m][n]);
          }
        }
      }
    }
    EP_UNROLL
    for (int m = 0; m < kTilesM; ++m) {
      const int row = (wm * kTilesM + m) * 32 + lane;
      EP_UNROLL
      for (int n = 0; n < ROWS; ++n)
        partial[(wk * kPaddedRows + row) * ROWS + n] = sums[m][n];
    }
#endif
  }
};

/* Sum of the warps that share row `row`, for batch item `item` of the block. */
EP_DEVICE float total(const float *partial, int row, int item) {
  item = min(item, ROWS - 1); /* lanes beyond the last item take part in shuffles only */
  float sum = partial[row * ROWS + item];
  EP_UNROLL
  for (int wk = 1; wk < WARPS_K; ++wk) sum += partial[(wk * kPaddedRows + row) * ROWS + item];
  return sum;
}

/* One unit of one batch item; four neighbouring lanes own it together and know the same state. */
struct Unit {
  int unit;     /* within the layer */
  int local;    /* within the block */
  int item;     /* within the block */
  int n;        /* within the batch */
  bool is_real; /* a unit and an item of the layer: neither is padding */
  int length;   /* steps of this item */
  T x, next_x;  /* input projection of this lane's gate, of this step and the next; as loaded */
  float h, c;   /* as the next step reads them */
  float update; /* of a GRU with two phases */
  float extra;  /* recurrent bias, or the peephole of this lane's gate */
  float out;    /* what y gets */
};

/* Value of one lane of the four. */
EP_DEVICE float of_lane(float v, int which) { return __shfl_sync(EP_ALL_LANES, v, which, kLanes); }

/* Give all blocks of the cluster the states of this warp's units, in their `buffer`. */
EP_DEVICE void publish(State *buffer, ep_u64 *arrival, const Unit &u, float value, int lane) {
  unsigned low = __float_as_uint(value);
#if USES_MMA
  const float other = __shfl_xor_sync(EP_ALL_LANES, value, kLanes);
  low = lane & kLanes ? ep_pack_half2(other, value) : ep_pack_half2(value, other);
#endif
#if CLUSTER > 1
  /* Lanes put their words together until each knows 16 bytes. */
  const int bit = kLanes * kPair;
  unsigned beside = __shfl_xor_sync(EP_ALL_LANES, low, bit);
  const unsigned high = lane & bit ? low : beside;
  low = lane & bit ? beside : low;
  const unsigned other_low = __shfl_xor_sync(EP_ALL_LANES, low, 2 * bit);
  const unsigned other_high = __shfl_xor_sync(EP_ALL_LANES, high, 2 * bit);
  const uint4 states = lane & (2 * bit) ? make_uint4(other_low, other_high, low, high)
                                        : make_uint4(low, high, other_low, other_high);
  const int target = lane % 16;
  if (u.item >= ROWS || target >= CLUSTER || (kPair == 2 && lane >= 16)) return;
  State *const at = buffer + u.item * kStateRow + u.unit / (4 * kPair) * (4 * kPair);
  ep_cluster_send16(ep_cluster_address(at, target), states, ep_cluster_address(arrival, target));
#else
  if (u.item >= ROWS || lane % (kLanes * kPair) != 0) return;
  *reinterpret_cast<unsigned *>(buffer + u.item * kStateRow + u.unit) = low;
#endif
}

/* Wait for the states that all blocks publish in `parity`'s phase of a buffer. */
EP_DEVICE void receive(ep_u64 *arrival, int parity, bool is_last) {
#if CLUSTER > 1
  ep_arrival_wait(arrival, parity);
  if (threadIdx.x == 0 && !is_last) ep_arrival_expect(arrival, kPublishedBytes);
#else
  __syncthreads();
#endif
}

EP_DEVICE float continued(const T *continuation, const Unit &u, int d, int step, float value) {
  if (!HAS_CONTINUATION || step >= STEPS || time_of(d, step) >= u.length || !u.is_real)
    return value;
  const float factor = ep_to_float(
      continuation[time_of(d, step) * CONTINUATION_STRIDE_T + u.n * CONTINUATION_STRIDE_N]);
  return factor == 0.0f ? 0.0f : value * factor;
}

EP_DEVICE T load_x(const Unit &u, const T *x, int d, int step, int gate) {
  if (step >= STEPS || !u.is_real) return ep_from_float<T>(0.0f);
  return x[time_of(d, step) * static_cast<ep_i64>(X_STRIDE_T) + u.n * X_STRIDE_N +
           (d * kGates + gate) * HIDDEN + u.unit];
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    KERNEL(const T *x, const uint4 *weights OPTIONAL_PARAMETERS, T *y,
           T *last_hidden LAST_CELL_PARAMETER) {
  ABSENT_PARAMETERS
#if CELL != LSTM
  T *const last_cell = nullptr;
#endif
  extern __shared__ __align__(16) unsigned char shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int d = blockIdx.z;
  const int rank = CLUSTER > 1 ? static_cast<int>(blockIdx.x) : 0;

  ep_u64 *const arrivals = reinterpret_cast<ep_u64 *>(shared); /* one per buffer of states */
  uint4 *const shared_weights = reinterpret_cast<uint4 *>(shared + kArrivalBytes);
  State *const states = reinterpret_cast<State *>(
      shared + kArrivalBytes + WARPS * (SHARED_0 + SHARED_1) * 32 * sizeof(uint4));
  constexpr int kState = ROWS * kStateRow; /* two of them, then reset gates times state */
  float *const partial = reinterpret_cast<float *>(states + (kHasPhases ? 3 : 2) * kState);

  /* R is constant: it needs no wait for the kernels ahead. */
  const uint4 *const own =
      weights + static_cast<ep_i64>(d * CLUSTER + rank) * WARPS * (kTotal_0 + kTotal_1) * 32;
  Weights<TILES_M_0, HELD_0, SHARED_0> first;
  first.load(shared_weights, own, warp, lane);
  Weights<TILES_M_1, HELD_1, SHARED_1> second;
  if (kHasPhases)
    second.load(shared_weights + WARPS * SHARED_0 * 32, own + WARPS * kTotal_0 * 32, warp, lane);
  for (int i = threadIdx.x; i < (kHasPhases ? 3 : 2) * kState; i += kThreads)
    states[i] = static_cast<State>(0.0f);
#if CLUSTER > 1
  if (threadIdx.x == 0) {
    for (int i = 0; i < 3; ++i) {
      ep_arrival_init(arrivals + i);
      ep_arrival_expect(arrivals + i, kPublishedBytes);
    }
  }
  ep_cluster_sync(); /* every block has started, cleared its states and can be sent to */
#else
  __syncthreads();
#endif
  ep_grid_wait();
  ep_grid_launch();

  const int gate = min(lane % kLanes, kGates - 1); /* of this lane */
  Unit units[kRounds];
  EP_UNROLL
  for (int e = 0; e < kRounds; ++e) {
    Unit &u = units[e];
    const int id = (threadIdx.x + e * kThreads) / kLanes;
    u.local = id % UNITS;
    u.item = id / UNITS;
    u.unit = rank * UNITS + u.local;
    u.n = blockIdx.y * ROWS + u.item;
    u.is_real = u.item < ROWS && u.unit < HIDDEN && u.n < BATCH;
    u.length = HAS_LENGTHS && u.is_real ? lengths[u.n] : STEPS;
    u.h = u.c = u.update = 0.0f;
    if (HAS_HIDDEN && u.is_real)
      u.h = ep_to_float(hidden[d * HIDDEN_STRIDE_D + u.n * HIDDEN_STRIDE_N + u.unit]);
    if (HAS_CELL && u.is_real)
      u.c = ep_to_float(cell[d * CELL_STRIDE_D + u.n * CELL_STRIDE_N + u.unit]);
    u.h = continued(continuation, u, d, 0, u.h);
    u.c = continued(continuation, u, d, 0, u.c);
    if (warp * 32 + e * kThreads < kFinishing) publish(states, arrivals, u, u.h, lane);
    u.extra = 0.0f;
    if (HAS_RECURRENT_BIAS && u.is_real) u.extra = ep_to_float(recurrent_bias[d * HIDDEN + u.unit]);
    if (HAS_PEEPHOLES && u.is_real && gate < 3)
      u.extra = ep_to_float(peepholes[(d * 3 + gate) * HIDDEN + u.unit]);
    u.x = load_x(u, x, d, 0, gate);
    u.next_x = load_x(u, x, d, 1, gate);
  }

  EP_NO_UNROLL
  for (int step = 0; step < STEPS; ++step) {
    const int t = time_of(d, step), next = (step + 1) % 2;
    receive(arrivals + step % 2, step / 2 % 2, step + 2 >= STEPS);
    first.multiply(states + step % 2 * kState, partial, warp, lane);
    __syncthreads();
    if (kHasPhases) {
      EP_UNROLL
      for (int e = 0; e < kRounds; ++e) {
        Unit &u = units[e];
        if (warp * 32 + e * kThreads >= kFinishing) continue; /* no lane of this warp is needed */
        const float product = total(partial, min(gate, 1) * UNITS + u.local, u.item);
        const float v = act(d, 0, ep_to_float(u.x) + product);
        u.update = of_lane(v, 0);
        const float reset = of_lane(v, 1);
        publish(states + 2 * kState, arrivals + 2, u, u.is_real ? reset * u.h : 0.0f, lane);
      }
      receive(arrivals + 2, step % 2, step + 1 >= STEPS);
      second.multiply(states + 2 * kState, partial, warp, lane);
      __syncthreads();
    }
    EP_UNROLL
    for (int e = 0; e < kRounds; ++e) {
      Unit &u = units[e];
      if (warp * 32 + e * kThreads >= kFinishing) continue;
      const float product =
          total(partial, (kHasPhases ? 0 : gate) * UNITS + u.local, u.item);
      const float x_sum = ep_to_float(u.x) + product;
      float h, c = u.c;
      if (CELL == RNN) {
        h = act(d, 0, x_sum);
      } else if (CELL == GRU) {
        float inner = product;
        if (!kHasPhases) {
          const float v = act(d, 0, x_sum);
          u.update = of_lane(v, 0);
          inner = of_lane(v, 1) * of_lane(inner + u.extra, 2);
        }
        h = (1.0f - u.update) * act(d, 1, of_lane(ep_to_float(u.x), 2) + inner) + u.update * u.h;
      } else {
        float sum = x_sum;
        if (HAS_PEEPHOLES && gate % 2 == 0) sum += c * u.extra;
#if IS_USUAL
        /* tanh is 2 sigmoid(2 x) - 1: all lanes do the same. */
        const float v = (gate == 3 ? 2.0f : 1.0f) * act(d, 0, gate == 3 ? 2.0f * sum : sum) -
                        (gate == 3 ? 1.0f : 0.0f);
#else
        const float v = gate == 3 ? act(d, 1, sum) : act(d, 0, sum);
#endif
        const float in = of_lane(v, 0), forget = of_lane(v, 2);
        c = (COUPLES_INPUT_FORGET ? 1.0f - in : forget) * c + in * of_lane(v, 3);
        float out = of_lane(v, 1);
        if (HAS_PEEPHOLES)
          out = act(d, 0, of_lane(sum + c * u.extra, 1));
        h = out * act(d, 2, c);
      }
      const bool lives = t < u.length;
      u.out = lives ? h : 0.0f;
      if (lives) {
        u.h = u.is_real ? h : 0.0f; /* padding must stay finite: R is zero there, not the product */
        u.c = u.is_real ? c : 0.0f;
      }
      if (step == STEPS - 1 && u.is_real && lane % kLanes == 0) {
        last_hidden[d * LAST_STRIDE_D + u.n * LAST_STRIDE_N + u.unit] = ep_from_float<T>(u.h);
        if (CELL == LSTM)
          last_cell[d * LAST_CELL_STRIDE_D + u.n * LAST_CELL_STRIDE_N + u.unit] =
              ep_from_float<T>(u.c);
      }
      u.h = continued(continuation, u, d, step + 1, u.h);
      u.c = continued(continuation, u, d, step + 1, u.c);
      if (step + 1 < STEPS) publish(states + next * kState, arrivals + next, u, u.h, lane);
    }
    EP_UNROLL
    for (int e = 0; e < kRounds; ++e) {
      Unit &u = units[e];
      if (u.is_real && lane % kLanes == 0)
        y[t * static_cast<ep_i64>(Y_STRIDE_T) + u.n * Y_STRIDE_N + d * HIDDEN + u.unit] =
            ep_from_float<T>(u.out);
      u.x = u.next_x; /* two steps ahead: a step takes less than a load from L2 or memory */
      u.next_x = load_x(u, x, d, step + 2, gate);
    }
  }
}
