// Recurrent layer (LSTM, GRU, RNN) whose input projections are known: y[t] from x[t] and y[t - 1].
//
// Hidden units fill vectors; groups of VECTORS of them are the unit of work within a step. R is
// packed as [direction][phase][group][k][gate][vector], so that a step streams it once in order,
// and each element of the previous state is broadcast. Two forms:
// WHOLE: a unit is one direction and up to ROWS batch items over all steps, state in scratch.
// STEPS: one launch per step, whose barrier lets groups be shared between workers; a first launch
// lays down the initial state in the workspace.
// A step's state is stored as the next step reads it: multiplied by that step's continuation.
// Each sum runs over k in CHAINS interleaved parts, joined in a fixed order.
#include "ep_vector.h"

#define LSTM 0
#define GRU 1
#define RNN 2

// parameters
#define KERNEL recurrent_default
#define CELL LSTM
#define IS_WHOLE 1
#define STEPS 8
#define BATCH 1
#define HIDDEN 128
#define DIRECTIONS 1
#define IS_REVERSED_0 0
#define IS_REVERSED_1 1
#define VECTORS 2
#define ROWS 1
#define ROW_TILE 1
#define CHAINS 1
#define RESETS_AFTER_PRODUCT 0
#define COUPLES_INPUT_FORGET 0
#define ACT_0_0 ep_sigmoid_v(v)
#define ACT_0_1 ep_tanh_v(v)
#define ACT_0_2 ep_tanh_v(v)
#define ACT_1_0 ep_sigmoid_v(v)
#define ACT_1_1 ep_tanh_v(v)
#define ACT_1_2 ep_tanh_v(v)
#define X_STRIDE_T 512
#define X_STRIDE_N 512
#define Y_STRIDE_T 128
#define Y_STRIDE_N 128
#define HIDDEN_ARG -1
#define HIDDEN_STRIDE_D 0
#define HIDDEN_STRIDE_N 0
#define CELL_ARG -1
#define CELL_STRIDE_D 0
#define CELL_STRIDE_N 0
#define RECURRENT_BIAS_ARG -1
#define PEEPHOLES_ARG -1
#define LENGTHS_ARG -1
#define CONTINUATION_ARG -1
#define CONTINUATION_STRIDE_T 0
#define CONTINUATION_STRIDE_N 0
#define OUTPUT_ARG 2
#define LAST_STRIDE_D 128
#define LAST_STRIDE_N 128
#define LAST_CELL_STRIDE_D 128
#define LAST_CELL_STRIDE_N 128
#define WORKSPACE_ARG -1
#define PACKS_HERE 0
#define R_STRIDE_D 65536
#define R_STRIDE_ROW 128
// end of parameters

#define GATES (CELL == LSTM ? 4 : CELL == GRU ? 3 : 1)
// A GRU that resets before its product needs all reset gates first: its hidden gate is a phase.
#define HAS_PHASES (CELL == GRU && !RESETS_AFTER_PRODUCT)
#define GATES_0 (HAS_PHASES ? 2 : GATES)
#define GATES_1 (HAS_PHASES ? 1 : 0)
#define GROUPS ((HIDDEN + VECTORS * EP_VL - 1) / (VECTORS * EP_VL))
#define PADDED (GROUPS * VECTORS * EP_VL)
#define LANES_LAST ((HIDDEN - 1) % EP_VL + 1)
#define PACKED_0 ((int64_t)GROUPS * HIDDEN * GATES_0 * VECTORS * EP_VL)
#define PACKED_1 ((int64_t)GROUPS * HIDDEN * GATES_1 * VECTORS * EP_VL)
#define BATCH_GROUPS ((BATCH + ROWS - 1) / ROWS)
#define STATE_ROWS (IS_WHOLE ? ROWS : DIRECTIONS * BATCH)
#define STATE ((int64_t)STATE_ROWS * PADDED)

typedef struct {
    void *const *args;
    const float *r;  // packed, of this direction
    int d;
    int64_t n;       // first batch item
    int rows;        // batch items
    float *h[2];     // state as even and odd steps read it, [rows][PADDED]
    float *c;
    float *z;        // update gates of a GRU with two phases
    float *rh;       // reset gates times state
} place;

EP_INLINE vf act(int d, const int which, vf v) {
    if (which == 0) return d ? (ACT_1_0) : (ACT_0_0);
    if (which == 1) return d ? (ACT_1_1) : (ACT_0_1);
    return d ? (ACT_1_2) : (ACT_0_2);
}

EP_INLINE vf load_lanes(const float *p, int64_t unit) {
    if (HIDDEN % EP_VL && unit + EP_VL > HIDDEN)
        return unit >= HIDDEN ? ep_splat(0.0f) : ep_load_n(p, LANES_LAST);
    return unit >= HIDDEN ? ep_splat(0.0f) : ep_load(p);
}
EP_INLINE void store_lanes(float *p, vf v, int64_t unit) {
    if (unit >= HIDDEN) return;
    if (HIDDEN % EP_VL && unit + EP_VL > HIDDEN)
        ep_store_n(p, v, LANES_LAST);
    else
        ep_store(p, v);
}

EP_INLINE int64_t time_of(int d, int64_t step) {
    return (d ? IS_REVERSED_1 : IS_REVERSED_0) ? STEPS - 1 - step : step;
}
// Groups go there and back: what a step read last is still in the cache when the next one begins.
EP_INLINE int64_t group_of(int64_t step, int64_t number) {
    return step & 1 ? GROUPS - 1 - number : number;
}
EP_INLINE int64_t length_of(const place *at, int64_t n) {
    if (LENGTHS_ARG < 0) return STEPS;
    return ((const int32_t *)at->args[LENGTHS_ARG < 0 ? 0 : LENGTHS_ARG])[n];
}
EP_INLINE int is_live(const place *at, int64_t n, int64_t step) {
    return step < STEPS && time_of(at->d, step) < length_of(at, n);
}
// What the state is multiplied by before `step`; zero clears it whatever it holds.
EP_INLINE vf continued(const place *at, int64_t n, int64_t step, vf value) {
    if (CONTINUATION_ARG < 0 || !is_live(at, n, step)) return value;
    const float *factors = (const float *)at->args[CONTINUATION_ARG < 0 ? 0 : CONTINUATION_ARG];
    const float factor = factors[time_of(at->d, step) * CONTINUATION_STRIDE_T +
                                 n * CONTINUATION_STRIDE_N];
    return factor == 0.0f ? ep_splat(0.0f) : value * ep_splat(factor);
}

// acc[gate][vector][row] = R h; `h` are rows of PADDED floats.
EP_INLINE void products(const int gates, const int rows, const float *EP_RESTRICT h,
                        const float *EP_RESTRICT w, vf *EP_RESTRICT acc) {
    vf sum[CHAINS * GATES * VECTORS * ROW_TILE];
    const int count = gates * VECTORS * rows;
    EP_UNROLL for (int i = 0; i < CHAINS * count; ++i) sum[i] = ep_splat(0.0f);
    int64_t k = 0;
    EP_NO_UNROLL for (; k + CHAINS <= HIDDEN; k += CHAINS) {
        EP_UNROLL for (int chain = 0; chain < CHAINS; ++chain) {
            EP_UNROLL for (int gv = 0; gv < gates * VECTORS; ++gv) {
                const vf weights = ep_load(w + (chain * gates * VECTORS + gv) * EP_VL);
                EP_UNROLL for (int row = 0; row < rows; ++row) {
                    vf *to = &sum[chain * count + gv * rows + row];
                    *to = ep_fma(weights, ep_splat(h[row * PADDED + k + chain]), *to);
                }
            }
        }
        w += CHAINS * gates * VECTORS * EP_VL;
    }
    EP_UNROLL for (int chain = 0; chain < HIDDEN % CHAINS; ++chain) {
        EP_UNROLL for (int gv = 0; gv < gates * VECTORS; ++gv) {
            const vf weights = ep_load(w + (chain * gates * VECTORS + gv) * EP_VL);
            EP_UNROLL for (int row = 0; row < rows; ++row) {
                vf *to = &sum[chain * count + gv * rows + row];
                *to = ep_fma(weights, ep_splat(h[row * PADDED + k + chain]), *to);
            }
        }
    }
    EP_UNROLL for (int i = 0; i < count; ++i) {
        vf total = sum[i];
        EP_UNROLL for (int chain = 1; chain < CHAINS; ++chain) total += sum[chain * count + i];
        acc[i] = total;
    }
}

EP_INLINE vf constant_lanes(const place *at, const int arg, int64_t offset, int64_t unit) {
    return load_lanes((const float *)at->args[arg < 0 ? 0 : arg] + offset + unit, unit);
}

// New state of one vector of units of one batch item; gates hold the products with R.
EP_INLINE void finish(const place *at, int64_t step, int row, int64_t unit, const vf *product) {
    const int d = at->d;
    const int64_t n = at->n + row, t = time_of(d, step);
    const float *x = (const float *)at->args[0] + t * X_STRIDE_T + n * X_STRIDE_N +
                     d * GATES * HIDDEN + unit;
    float *y = (float *)at->args[OUTPUT_ARG] + t * Y_STRIDE_T + n * Y_STRIDE_N + d * HIDDEN + unit;
    const int64_t place_of_row = row * PADDED + unit;
    const vf before = ep_load(at->h[step & 1] + place_of_row);
    vf gate[GATES], h, c = before;
    EP_UNROLL for (int g = 0; g < GATES; ++g) {
        gate[g] = load_lanes(x + g * HIDDEN, unit);
        if (!HAS_PHASES) gate[g] += product[g];
    }
    if (CELL == RNN) {
        h = act(d, 0, gate[0]);
    } else if (CELL == GRU) {
        vf update;
        if (HAS_PHASES) {
            update = ep_load(at->z + place_of_row);
            h = act(d, 1, gate[GATES - 1] + product[0]);
        } else {
            update = act(d, 0, gate[0]);
            const vf reset = act(d, 0, gate[GATES > 1 ? 1 : 0]);
            vf inner = product[GATES - 1];
            if (RECURRENT_BIAS_ARG >= 0)
                inner += constant_lanes(at, RECURRENT_BIAS_ARG, d * HIDDEN, unit);
            h = load_lanes(x + (GATES - 1) * HIDDEN, unit) + reset * inner;
            h = act(d, 1, h);
        }
        h = (ep_splat(1.0f) - update) * h + update * before;
    } else {
        vf input = gate[0], output = gate[GATES > 1 ? 1 : 0], forget = gate[GATES > 2 ? 2 : 0];
        c = ep_load(at->c + place_of_row);
        if (PEEPHOLES_ARG >= 0) {
            input += c * constant_lanes(at, PEEPHOLES_ARG, d * 3 * HIDDEN, unit);
            forget += c * constant_lanes(at, PEEPHOLES_ARG, d * 3 * HIDDEN + 2 * HIDDEN, unit);
        }
        input = act(d, 0, input);
        forget = COUPLES_INPUT_FORGET ? ep_splat(1.0f) - input : act(d, 0, forget);
        c = forget * c + input * act(d, 1, gate[GATES - 1]);
        if (PEEPHOLES_ARG >= 0)
            output += c * constant_lanes(at, PEEPHOLES_ARG, d * 3 * HIDDEN + HIDDEN, unit);
        h = act(d, 0, output) * act(d, 2, c);
    }
    const int lives = is_live(at, n, step);
    store_lanes(y, lives ? h : ep_splat(0.0f), unit);
    if (!lives) {
        h = before;
        if (CELL == LSTM) c = ep_load(at->c + place_of_row);
    }
    if (step == STEPS - 1) {
        float *last = (float *)at->args[OUTPUT_ARG + 1] + d * LAST_STRIDE_D + n * LAST_STRIDE_N;
        store_lanes(last + unit, h, unit);
        if (CELL == LSTM) {
            float *last_cell = (float *)at->args[OUTPUT_ARG + (CELL == LSTM ? 2 : 1)] +
                               d * LAST_CELL_STRIDE_D + n * LAST_CELL_STRIDE_N;
            store_lanes(last_cell + unit, c, unit);
        }
    }
    ep_store(at->h[(step + 1) & 1] + place_of_row, continued(at, n, step + 1, h));
    if (CELL == LSTM) ep_store(at->c + place_of_row, continued(at, n, step + 1, c));
}

// First phase of a GRU that resets before its product.
EP_INLINE void finish_gates(const place *at, int64_t step, int row, int64_t unit,
                            const vf *product) {
    const int64_t n = at->n + row, t = time_of(at->d, step);
    const float *x = (const float *)at->args[0] + t * X_STRIDE_T + n * X_STRIDE_N +
                     at->d * GATES * HIDDEN + unit;
    const int64_t place_of_row = row * PADDED + unit;
    const vf before = ep_load(at->h[step & 1] + place_of_row);
    const vf update = act(at->d, 0, load_lanes(x, unit) + product[0]);
    const vf reset = act(at->d, 0, load_lanes(x + HIDDEN, unit) + product[1]);
    ep_store(at->z + place_of_row, update);
    ep_store(at->rh + place_of_row, reset * before);
}

EP_INLINE void tile(const place *at, int64_t step, const int phase, int64_t group, int first,
                    const int rows) {
    const int gates = phase == 0 ? GATES_0 : GATES_1;
    const float *w = at->r + (phase ? PACKED_0 : 0) +
                     group * HIDDEN * gates * VECTORS * EP_VL;
    const float *h = HAS_PHASES && phase == 1 ? at->rh : at->h[step & 1];
    vf acc[GATES * VECTORS * ROW_TILE];
    products(gates, rows, h + first * PADDED, w, acc);
    EP_UNROLL for (int row = 0; row < rows; ++row) {
        EP_UNROLL for (int v = 0; v < VECTORS; ++v) {
            vf product[GATES];
            EP_UNROLL for (int g = 0; g < gates; ++g)
                product[g] = acc[(g * VECTORS + v) * rows + row];
            const int64_t unit = (group * VECTORS + v) * EP_VL;
            if (HAS_PHASES && phase == 0)
                finish_gates(at, step, first + row, unit, product);
            else
                finish(at, step, first + row, unit, product);
        }
    }
}

EP_INLINE void tiles(const place *at, int64_t step, const int phase, int64_t group) {
    int row = 0;
    for (; row + ROW_TILE <= at->rows; row += ROW_TILE) tile(at, step, phase, group, row, ROW_TILE);
    for (; row < at->rows; ++row) tile(at, step, phase, group, row, 1);
}

EP_NOINLINE void advance(const place *at, int64_t step, int phase, int64_t group) {
    if (HAS_PHASES && phase == 0)
        tiles(at, step, 0, group);
    else
        tiles(at, step, HAS_PHASES, group);
}

// The state that the first step reads.
EP_INLINE void begin(const place *at) {
    for (int row = 0; row < at->rows; ++row) {
        const int64_t n = at->n + row;
        for (int64_t unit = 0; unit < PADDED; unit += EP_VL) {
            vf h = ep_splat(0.0f), c = h;
            if (HIDDEN_ARG >= 0)
                h = constant_lanes(at, HIDDEN_ARG, at->d * HIDDEN_STRIDE_D + n * HIDDEN_STRIDE_N,
                                   unit);
            if (CELL_ARG >= 0)
                c = constant_lanes(at, CELL_ARG, at->d * CELL_STRIDE_D + n * CELL_STRIDE_N, unit);
            ep_store(at->h[0] + row * PADDED + unit, continued(at, n, 0, h));
            if (CELL == LSTM)
                ep_store(at->c + row * PADDED + unit, continued(at, n, 0, c));
        }
    }
}

// Workspace, in floats: state of STEPS, then R packed by this program.
#define STATE_FLOATS (IS_WHOLE ? 0 : 3 * STATE)
EP_INLINE place place_of(void *const *args, int64_t unit, void *scratch) {
    place at = {.args = args, .d = (int)(unit / BATCH_GROUPS), .n = unit % BATCH_GROUPS * ROWS};
    at.rows = (int)ep_index_min(ROWS, BATCH - at.n);
    float *work = (float *)args[WORKSPACE_ARG < 0 ? 0 : WORKSPACE_ARG];
    at.r = PACKS_HERE ? work + STATE_FLOATS : (const float *)args[1];
    at.r += at.d * (PACKED_0 + PACKED_1);
    float *state = IS_WHOLE ? (float *)scratch : work + (at.d * BATCH + at.n) * PADDED;
    at.h[0] = state;
    at.h[1] = state + STATE;
    at.c = state + 2 * STATE;
    at.z = state + 3 * STATE;
    at.rh = state + 4 * STATE;
    return at;
}

#define NAME_2(a, b) a##b
#define NAME(a, b) NAME_2(a, b)

#if PACKS_HERE
// A unit is one direction, phase and group.
EP_EXPORT void NAME(KERNEL, _pack)(void *const *args, int64_t unit_begin, int64_t unit_end,
                                   void *scratch) {
    (void)scratch;
    for (int64_t at = unit_begin; at < unit_end; ++at) {
        const int64_t group = at % GROUPS, phase = at / GROUPS % (1 + HAS_PHASES);
        const int64_t d = at / GROUPS / (1 + HAS_PHASES);
        const int64_t gates = phase ? GATES_1 : GATES_0;
        const float *r = (const float *)args[1] + d * R_STRIDE_D;
        float *to = (float *)args[WORKSPACE_ARG] + STATE_FLOATS + d * (PACKED_0 + PACKED_1) +
                    (phase ? PACKED_0 : 0) + group * HIDDEN * gates * VECTORS * EP_VL;
        for (int64_t gate = 0; gate < gates; ++gate)
            for (int64_t lane = 0; lane < VECTORS * EP_VL; ++lane) {
                const int64_t unit = group * VECTORS * EP_VL + lane;
                const int64_t row = ((phase ? GATES_0 : 0) + gate) * HIDDEN + unit;
                for (int64_t k = 0; k < HIDDEN; ++k)
                    to[(k * gates + gate) * VECTORS * EP_VL + lane] =
                        unit < HIDDEN ? r[row * R_STRIDE_ROW + k] : 0.0f;
            }
    }
}
#endif

#if IS_WHOLE
EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const place at = place_of(args, unit, scratch);
        begin(&at);
        for (int64_t step = 0; step < STEPS; ++step) {
            if (HAS_PHASES)
                for (int64_t i = 0; i < GROUPS; ++i) advance(&at, step, 0, group_of(step, i));
            for (int64_t i = 0; i < GROUPS; ++i) advance(&at, step, HAS_PHASES, group_of(step, i));
        }
    }
}
#else
EP_EXPORT void NAME(KERNEL, _begin)(void *const *args, int64_t unit_begin, int64_t unit_end,
                                    void *scratch) {
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const place at = place_of(args, unit, scratch);
        begin(&at);
    }
}
// A unit is one direction, some batch items and one group of hidden units.
EP_NOINLINE void one_step(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch,
                          int64_t step) {
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const place at = place_of(args, unit / GROUPS, scratch);
        advance(&at, step, 0, group_of(step, unit % GROUPS));
    }
}
#define STEP(number)                                                                             \
    EP_EXPORT void NAME(KERNEL, _step##number)(void *const *args, int64_t unit_begin,            \
                                               int64_t unit_end, void *scratch) {                \
        one_step(args, unit_begin, unit_end, scratch, number);                                   \
    }
#endif
