// Deconvolution (transposed convolution), blocked input and output.
//
// Output rows and columns fall into STRIDE phases by (position + pad) % STRIDE. Outputs of one
// phase are a stride-1 convolution of the input with those kernel taps k for which
// k * DILATION % STRIDE equals the phase; tap number j of a phase reads input position
// base - offset[j], base = (position + pad) / STRIDE. A tile is `count` outputs of one column phase,
// STRIDE_W apart, times VECTORS blocks of output channels. Rows are clipped at run time; columns at
// compile time, in tiles whose place is a constant. A unit is ROWS_PER_UNIT output rows of one
// group of output channels. Weights: [channel set][phase h][phase w], in the order
// [input block][tap h][tap w][input lane][vector] within a phase; zero columns pad the
// last vector. With IS_DEPTHWISE each channel has its own kernel and the vector is the channel.
#include "ep_vector.h"

// parameters
#define KERNEL deconvolution_default
#define IS_DEPTHWISE 0
#define INPUT_CHANNELS 64
#define INPUT_H 14
#define INPUT_W 14
#define OUTPUT_H 28
#define OUTPUT_BLOCKS (64 / EP_VL)
#define OUTPUT_BLOCKS_PER_GROUP OUTPUT_BLOCKS
#define INPUT_BLOCKS_PER_GROUP (64 / EP_VL)
#define VECTORS 2
#define VECTORS_LAST ((OUTPUT_BLOCKS_PER_GROUP - 1) % 2 + 1)
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 0
#define PAD_LEFT 0
#define KERNEL_AREA 4
#define MAX_TAPS_H 1
#define MAX_TAPS_W 1
#define NUM_TAPS_H {1, 1}
#define NUM_TAPS_W {1, 1}
#define OFFSETS_H {{0}, {0}}
#define OFFSETS_W {{0}, {0}}
#define PHASE_WEIGHTS {{0, 1}, {2, 3}}
#define TILE 14
#define COLUMN_TILES tile(row, 0, 0, 14, 0, vectors); tile(row, 1, 0, 14, 0, vectors)
#define ROWS_PER_UNIT 4
#define INPUT_STRIDE_N (14 * 14 * 64)
#define INPUT_STRIDE_C (14 * 14 * EP_VL)
#define INPUT_STRIDE_H (14 * EP_VL)
#define INPUT_STRIDE_W EP_VL
#define OUTPUT_STRIDE_N (28 * 28 * 64)
#define OUTPUT_STRIDE_C (28 * 28 * EP_VL)
#define OUTPUT_STRIDE_H (28 * EP_VL)
#define OUTPUT_STRIDE_W EP_VL
#define OUTPUT_ARG 2
#define EPILOGUE_LOADS (void)0
#define EPILOGUE_EXPR x0
// end of parameters

#define ROW_GROUPS ((OUTPUT_H + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)
#define SETS_PER_GROUP ((OUTPUT_BLOCKS_PER_GROUP + VECTORS - 1) / VECTORS)
#define SETS (OUTPUT_BLOCKS / OUTPUT_BLOCKS_PER_GROUP * SETS_PER_GROUP)
// Channels that one output reads, in full blocks and in the block that ends early.
#define LANES_REST (INPUT_CHANNELS % EP_VL)
#define FULL_BLOCKS (INPUT_CHANNELS / EP_VL)

static const int num_taps_h[STRIDE_H] = NUM_TAPS_H;
static const int num_taps_w[STRIDE_W] = NUM_TAPS_W;
static const int offsets_h[STRIDE_H][MAX_TAPS_H] = OFFSETS_H;
static const int offsets_w[STRIDE_W][MAX_TAPS_W] = OFFSETS_W;
// Kernel taps before each phase.
static const int phase_weights[STRIDE_H][STRIDE_W] = PHASE_WEIGHTS;

typedef struct {
    void *const *args;
    const float *input;    // first block of the channel group, image n
    const float *weights;  // of this group of output channels
    float *output;         // first block of the set, row oh, column 0
    int64_t n, cb, oh;
    int64_t base_h;  // input row of a tap with offset 0
    int phase_h;
    int tap_begin, tap_end;  // row taps that meet the input
} row_place;

// First output column of a phase, and the input column that tap offset 0 reads there.
#define FIRST_COLUMN(phase) (((phase) + STRIDE_W - PAD_LEFT % STRIDE_W) % STRIDE_W)
#define FIRST_BASE(phase) ((FIRST_COLUMN(phase) + PAD_LEFT) / STRIDE_W)

EP_INLINE void store(const row_place *row, const int v, int64_t ow, vf x0) {
    void *const *args = row->args;
    const int64_t n = row->n, cb = row->cb + v, oh = row->oh;
    EPILOGUE_LOADS;
    x0 = EPILOGUE_EXPR;
    ep_store(row->output + v * (int64_t)OUTPUT_STRIDE_C + ow * OUTPUT_STRIDE_W, x0);
    (void)args, (void)n, (void)cb, (void)oh;
}

// Outputs number q .. q + count - 1 of one column phase.
EP_INLINE void tile(const row_place *row, const int phase, const int64_t q, const int count,
                    const int is_inner, const int vectors) {
    const int num_w = num_taps_w[phase];
    const int64_t base = q + FIRST_BASE(phase);
    vf sum[TILE][VECTORS];
    EP_UNROLL
    for (int t = 0; t < count; ++t) {
        EP_UNROLL
        for (int v = 0; v < vectors; ++v) sum[t][v] = ep_splat(0.0f);
    }
    const int taps = num_taps_h[row->phase_h] * num_w;
    const float *phase_start = row->weights + (int64_t)phase_weights[row->phase_h][phase] *
                                                  INPUT_CHANNELS * (vectors * EP_VL);
#if IS_DEPTHWISE
    for (int j = row->tap_begin; j < row->tap_end; ++j) {
        const float *x_row = row->input +
                             (row->base_h - offsets_h[row->phase_h][j]) * INPUT_STRIDE_H +
                             base * INPUT_STRIDE_W;
        EP_UNROLL
        for (int i = 0; i < num_w; ++i) {
            const int offset = offsets_w[phase][i];
            const vf w = ep_load(phase_start + (j * num_w + i) * EP_VL);
            EP_UNROLL
            for (int t = 0; t < count; ++t)
                if (is_inner || (base + t - offset >= 0 && base + t - offset < INPUT_W))
                    sum[t][0] =
                        ep_fma(ep_load(x_row + (t - offset) * INPUT_STRIDE_W), w, sum[t][0]);
        }
    }
    (void)taps;
#else
    for (int block = 0; block < FULL_BLOCKS + (LANES_REST > 0); ++block) {
        const int lanes = LANES_REST == 0 || block < FULL_BLOCKS ? EP_VL : LANES_REST;
        const float *block_weights =
            phase_start + (int64_t)block * EP_VL * taps * (vectors * EP_VL);
        for (int j = row->tap_begin; j < row->tap_end; ++j) {
            const float *x_row = row->input + block * (int64_t)INPUT_STRIDE_C +
                                 (row->base_h - offsets_h[row->phase_h][j]) * INPUT_STRIDE_H +
                                 base * INPUT_STRIDE_W;
            EP_UNROLL
            for (int i = 0; i < num_w; ++i) {
                const int offset = offsets_w[phase][i];
                const float *x = x_row - offset * INPUT_STRIDE_W;
                const float *w = block_weights + (j * num_w + i) * lanes * (vectors * EP_VL);
                EP_NO_UNROLL
                for (int lane = 0; lane < lanes; ++lane, ++x, w += vectors * EP_VL) {
                    vf weight[VECTORS];
                    EP_UNROLL
                    for (int v = 0; v < vectors; ++v) weight[v] = ep_load(w + v * EP_VL);
                    EP_UNROLL
                    for (int t = 0; t < count; ++t) {
                        if (!is_inner &&
                            (base + t - offset < 0 || base + t - offset >= INPUT_W))
                            continue;
                        const vf value = ep_splat(x[t * INPUT_STRIDE_W]);
                        EP_UNROLL
                        for (int v = 0; v < vectors; ++v)
                            sum[t][v] = ep_fma(value, weight[v], sum[t][v]);
                    }
                }
            }
        }
    }
#endif
    EP_UNROLL
    for (int t = 0; t < count; ++t) {
        EP_UNROLL
        for (int v = 0; v < vectors; ++v)
            store(row, v, FIRST_COLUMN(phase) + (q + t) * STRIDE_W, sum[t][v]);
    }
}

EP_INLINE void columns(const row_place *row, const int vectors) { COLUMN_TILES; }

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    (void)scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t row_group = unit % ROW_GROUPS, set = unit / ROW_GROUPS % SETS;
        const int64_t group = set / SETS_PER_GROUP, set_in_group = set % SETS_PER_GROUP;
        row_place row;
        row.args = args;
        row.n = unit / (ROW_GROUPS * SETS);
        row.cb = group * OUTPUT_BLOCKS_PER_GROUP + set_in_group * VECTORS;
        row.input = (const float *)args[0] + row.n * (int64_t)INPUT_STRIDE_N +
                    group * INPUT_BLOCKS_PER_GROUP * (int64_t)INPUT_STRIDE_C;
        row.weights = (const float *)args[1] +
                      row.cb * EP_VL * (int64_t)(KERNEL_AREA * INPUT_CHANNELS);
        const int64_t last = (row_group + 1) * ROWS_PER_UNIT;
        const int64_t oh_end = last < OUTPUT_H ? last : OUTPUT_H;
        for (row.oh = row_group * ROWS_PER_UNIT; row.oh < oh_end; ++row.oh) {
            row.output = (float *)args[OUTPUT_ARG] + row.n * (int64_t)OUTPUT_STRIDE_N +
                         row.cb * (int64_t)OUTPUT_STRIDE_C + row.oh * (int64_t)OUTPUT_STRIDE_H;
            row.phase_h = (int)((row.oh + PAD_TOP) % STRIDE_H);
            row.base_h = (row.oh + PAD_TOP) / STRIDE_H;
            const int *offsets = offsets_h[row.phase_h];
            row.tap_end = num_taps_h[row.phase_h];
            row.tap_begin = 0;
            while (row.tap_begin < row.tap_end &&
                   row.base_h - offsets[row.tap_begin] >= INPUT_H)
                ++row.tap_begin;
            while (row.tap_end > row.tap_begin && row.base_h - offsets[row.tap_end - 1] < 0)
                --row.tap_end;
            if (VECTORS == VECTORS_LAST || set_in_group < SETS_PER_GROUP - 1)
                columns(&row, VECTORS);
            else
                columns(&row, VECTORS_LAST);
        }
    }
}
