// Convolution of a row-major tensor with few channels (a network's input) into a blocked one.
// Each unit copies the input rows that it needs into private memory, with zeros for padding, and
// computes a chunk of output rows: a tile of pixels x output blocks stays in registers.
// Weights: [set][channel][kh][kw][block of set][lane].
#include "ep_vector.h"

// parameters
#define SYMBOL conv_first_default
#define CHANNELS 3
#define IN_H 224              // input rows and columns
#define IN_W 224
#define OUT_H 112             // output rows; ROW_TILES has the columns
#define X_N 150528            // strides in floats
#define X_C 50176
#define X_H 224
#define X_W 1
#define Y_N 802816
#define Y_C 200704
#define Y_H 1792
#define Y_W 16
#define KERNEL_H 7
#define KERNEL_W 7
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 3
#define PAD_LEFT 3
#define DILATION_H 1
#define DILATION_W 1
#define SET_BLOCKS 2          // output blocks of a wide set; a narrow one has one fewer
#define WIDE_SETS 2           // wide sets come first
#define NARROW_SETS 0
#define ROWS_PER_UNIT 4
#define COPY_ROWS 13          // input rows of one unit
#define COPY_COLUMNS 229      // columns of the copy, padding included
#define TILE_PIXELS 14        // columns of the largest tile; it has POOL rows
#define ROW_TILES INNER(0, 14, 8)
#define POOL 1                // 2: y has the maximum of each 2x2 outputs
#define HAS_BIAS 1
#define NUM_OPERANDS 0
#define OPERAND1_STRIDES 0, 0, 0, 0
#define OPERAND2_STRIDES 0, 0, 0, 0
#define OPERAND3_STRIDES 0, 0, 0, 0
#define OPERAND4_STRIDES 0, 0, 0, 0
#define EPILOGUE x0
// end of parameters

#include "epilogue.h"

#define ROW_CHUNKS ((OUT_H + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)
#define BLOCK_FLOATS (CHANNELS * KERNEL_H * KERNEL_W * EP_VL) // weights of one output block
#define FIRST_OPERAND (2 + HAS_BIAS)
#define OUTPUT (FIRST_OPERAND + NUM_OPERANDS)

// Columns [COPY_BEGIN, COPY_END) of the copy lie inside the image.
#define CLAMPED(column) ((column) < 0 ? 0 : (column) > COPY_COLUMNS ? COPY_COLUMNS : (column))
#define COPY_BEGIN CLAMPED(PAD_LEFT)
#define COPY_END CLAMPED(PAD_LEFT + IN_W)

// Copies input rows first_row .. first_row + COPY_ROWS - 1 of all channels of one image.
EP_NOINLINE void copy_rows(const float *x, float *copy, int64_t first_row)
{
    for (int64_t c = 0; c < CHANNELS; ++c) {
        for (int64_t r = 0; r < COPY_ROWS; ++r) {
            float *to = copy + (c * COPY_ROWS + r) * COPY_COLUMNS;
            const int64_t ih = first_row + r;
            if (ih < 0 || ih >= IN_H || COPY_BEGIN >= COPY_END) {
                memset(to, 0, COPY_COLUMNS * sizeof(float));
                continue;
            }
            const float *from = x + c * X_C + ih * X_H + (COPY_BEGIN - PAD_LEFT) * X_W;
            memset(to, 0, COPY_BEGIN * sizeof(float));
            if (X_W == 1) {
                memcpy(to + COPY_BEGIN, from, (COPY_END - COPY_BEGIN) * sizeof(float));
            } else {
                for (int64_t column = COPY_BEGIN; column < COPY_END; ++column)
                    to[column] = from[(column - COPY_BEGIN) * X_W];
            }
            memset(to + COPY_END, 0, (COPY_COLUMNS - COPY_END) * sizeof(float));
        }
    }
}

// Computes pixels x blocks outputs of POOL rows from oh on at column ow; copy points to the first
// row's first input.
EP_INLINE void compute_tile(const float *copy, const float *weights, const float *bias, float *y,
                            void *const *operands, const int64_t n, const int64_t block,
                            const int64_t oh, const int64_t ow, const int pixels,
                            const int blocks)
{
    vf sums[POOL][TILE_PIXELS][SET_BLOCKS];
    EP_UNROLL
    for (int o = 0; o < blocks; ++o) {
        vf first = HAS_BIAS ? ep_load(bias + o * EP_VL) : ep_splat(0.0f);
        EP_UNROLL
        for (int r = 0; r < POOL; ++r) {
            EP_UNROLL
            for (int p = 0; p < pixels; ++p)
                sums[r][p][o] = first;
        }
    }
    for (int64_t c = 0; c < CHANNELS; ++c) {
        for (int64_t kh = 0; kh < KERNEL_H; ++kh) {
            const float *row = copy + (c * COPY_ROWS + kh * DILATION_H) * COPY_COLUMNS +
                               ow * STRIDE_W;
            const float *tap = weights + (c * KERNEL_H + kh) * KERNEL_W * blocks * EP_VL;
            for (int64_t kw = 0; kw < KERNEL_W; ++kw) {
                vf w[SET_BLOCKS];
                EP_UNROLL
                for (int o = 0; o < blocks; ++o)
                    w[o] = ep_load(tap + (kw * blocks + o) * EP_VL);
                EP_UNROLL
                for (int r = 0; r < POOL; ++r) {
                    EP_UNROLL
                    for (int p = 0; p < pixels; ++p) {
                        vf value = ep_splat(row[r * STRIDE_H * COPY_COLUMNS + kw * DILATION_W +
                                                p * STRIDE_W]);
                        EP_UNROLL
                        for (int o = 0; o < blocks; ++o)
                            sums[r][p][o] = ep_fma(value, w[o], sums[r][p][o]);
                    }
                }
            }
        }
    }
    EP_UNROLL
    for (int p = 0; p < pixels; p += POOL) {
        EP_UNROLL
        for (int o = 0; o < blocks; ++o) {
            vf sum = sums[0][p][o];
#if POOL == 2
            sum = ep_max(ep_max(sum, sums[0][p + 1][o]),
                         ep_max(sums[1][p][o], sums[1][p + 1][o]));
#endif
            ep_store(y + o * Y_C + oh / POOL * Y_H + (ow + p) / POOL * Y_W,
                     finished(sum, operands, n, block + o, oh / POOL, (ow + p) / POOL));
        }
    }
}

// All tiles of POOL rows for one set of output blocks.
EP_INLINE void compute_row(const float *copy, const float *weights, const float *bias, float *y,
                           void *const *operands, const int64_t n, const int64_t block,
                           const int64_t oh, const int blocks)
{
#define INNER(column, pixels, count)                                                             \
    for (int64_t tile = 0; tile < (count); ++tile)                                               \
        compute_tile(copy, weights, bias, y, operands, n, block, oh,                             \
                     (column) + tile * (pixels), pixels, blocks);
    ROW_TILES
#undef INNER
}

// args: x, weights, [bias], operands, y. A unit is an image and a chunk of rows.
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    const float *x = args[0], *weights = args[1];
    const float *bias = HAS_BIAS ? args[2] : args[1];
    void *const *operands = args + FIRST_OPERAND;
    float *copy = scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t n = unit / ROW_CHUNKS, first = unit % ROW_CHUNKS * ROWS_PER_UNIT;
        const int64_t end = first + ROWS_PER_UNIT < OUT_H ? first + ROWS_PER_UNIT : OUT_H;
        float *y = (float *)args[OUTPUT] + n * Y_N;
        copy_rows(x + n * X_N, copy, first * STRIDE_H - PAD_TOP);
        for (int64_t set = 0; set < WIDE_SETS + NARROW_SETS; ++set) {
            const int is_wide = set < WIDE_SETS;
            const int64_t block = set * SET_BLOCKS - (is_wide ? 0 : set - WIDE_SETS);
            const float *wg = weights + block * BLOCK_FLOATS, *bg = bias + block * EP_VL;
            for (int64_t oh = first; oh < end; oh += POOL) {
                const float *rows = copy + (oh - first) * STRIDE_H * COPY_COLUMNS;
                if (is_wide)
                    compute_row(rows, wg, bg, y + block * Y_C, operands, n, block, oh,
                                SET_BLOCKS);
#if NARROW_SETS > 0
                else
                    compute_row(rows, wg, bg, y + block * Y_C, operands, n, block, oh,
                                SET_BLOCKS - 1);
#endif
            }
        }
    }
}
