// Direct convolution by dot products: a step takes 32 bits of a pixel, four 8-bit channels or two of
// bfloat16, and multiplies them with as many weights of each output channel; a tile of pixels x
// output blocks of sums, int32 or float32, stays in registers.
// Rows outside the image are left out by the range of kernel rows, columns outside it by tiles
// whose position is a literal. Where the dot product reads activations off by 128 (EP_DOT_FLIPS),
// sums start with the correction for all taps, and taps left out take their part back.
// Packed weights: corrections as int32 [output block][all taps, kernel rows, taps][lane], then
// [set][input block][kh][kw][step][block of set][EP_DOT_BYTES].
#include "ep_vector.h"

// parameters
#define SYMBOL conv_int8_default
#define DOT 0                 // EP_DOT
#define X_BYTES 1             // of one element
#define X_IS_SIGNED 1
#define IN_H 56               // input rows and columns
#define IN_W 56
#define OUT_H 56              // output rows; ROW_TILES has the columns
#define BATCH 1
#define X_N 200704            // strides of x in bytes
#define X_C 50176
#define X_H 896
#define X_W 16
#define Y_N 200704            // strides of y in elements
#define Y_C 50176
#define Y_H 896
#define Y_W 16
#define Y_BYTES 1             // of one element
#define STORE_Y ep_store_8    // stores a vector of results, STORE_Y_N its first lanes
#define STORE_Y_N ep_store_8_n
#define KERNEL_H 3
#define KERNEL_W 3
#define STRIDE_H 1
#define STRIDE_W 1
#define PAD_TOP 1
#define PAD_LEFT 1
#define DILATION_H 1
#define DILATION_W 1
#define GROUPS 1              // groups whose channels fill whole blocks
#define IN_BLOCKS 4           // input blocks of one group
#define IN_STEPS (EP_VL / 4)  // in the last input block
#define OUT_BLOCKS 4          // output blocks of one group
#define LAST_LANES EP_VL      // lanes that may be stored in the very last output block
#define SET_BLOCKS 2          // output blocks of a wide set; a narrow one has one fewer
#define WIDE_SETS 2           // sets of one group: wide ones first
#define NARROW_SETS 0
#define SETS_PER_UNIT 2
#define ROWS_PER_UNIT 8
#define TILE_ROWS 1
#define TILE_PIXELS 14        // columns of the largest tile
#define ROW_TILES EDGE(0, 14) INNER(14, 14, 2) EDGE(42, 14)
#define KERNEL_COLUMNS COLUMN(0) COLUMN(1) COLUMN(2)
#define STEPS_UNROLLED 1      // divides STEPS and IN_STEPS
#define ODD_TAIL 0            // 1: the last step of the last input block has one channel, not two
#define PREFETCH_BYTES 0      // how far ahead weights are prefetched; 0: not at all
#define MIXED_GROUPS 0        // 1: groups share blocks; each output block has a row in the table
#define MIXED_TABLE {0, 16, 0} // first step, end step, input blocks packed before
#define NUM_OPERANDS 0
#define EPILOGUE_LOADS (void)0
#define EPILOGUE x0
// end of parameters

#define EP_DOT DOT
#define EP_DOT_SIGNED X_IS_SIGNED
#include "ep_bf16.h"
#include "ep_int8.h"
#include "tiles.h"

#define STEPS (EP_VL * X_BYTES / 4)          // of a whole input block
#define TAP_BYTES (STEPS * EP_DOT_BYTES)     // weights of one tap, input block, output block
#define TAPS (KERNEL_H * KERNEL_W)
#define SHIFT_VECTORS (EP_DOT_FLIPS ? 1 + KERNEL_H + TAPS : 0) // corrections of an output block
#define ALL_BLOCKS (GROUPS * OUT_BLOCKS)
#define FIRST_OPERAND 2
#define OUTPUT (FIRST_OPERAND + NUM_OPERANDS)

typedef ep_dot_sum tile_sums[TILE_ROWS][TILE_PIXELS][SET_BLOCKS];

// Adds one tap of some steps of one input block for rows [row_begin, row_end) of the tile.
EP_INLINE void add_tap(tile_sums sums, const uint8_t *x, const uint8_t *weights,
                       const int64_t step_begin, const int64_t step_end,
                       const int64_t odd_step, const int row_begin,
                       const int row_end, const int pixels, const int blocks, const int is_edge,
                       const int64_t ow, const int64_t kw)
{
    (void)odd_step;
    for (int64_t step = step_begin; step < step_end; step += STEPS_UNROLLED) {
        EP_UNROLL
        for (int u = 0; u < STEPS_UNROLLED; ++u) {
            const uint8_t *row_of_weights = weights + (step + u) * blocks * EP_DOT_BYTES;
            ep_dot_weights w[SET_BLOCKS];
            EP_UNROLL
            for (int o = 0; o < blocks; ++o) {
                w[o] = ep_dot_load_weights(row_of_weights + o * EP_DOT_BYTES);
                if (PREFETCH_BYTES > 0)
                    ep_prefetch(row_of_weights + o * EP_DOT_BYTES + PREFETCH_BYTES);
            }
            EP_UNROLL
            for (int r = row_begin; r < row_end; ++r) {
                EP_UNROLL
                for (int p = 0; p < pixels; ++p) {
                    int64_t iw = input_column(ow + p, kw);
                    if (is_edge && (iw < 0 || iw >= IN_W))
                        continue;
                    const uint8_t *from = x + (int64_t)r * STRIDE_H * X_H +
                                          (int64_t)p * STRIDE_W * X_W + (step + u) * 4;
#if ODD_TAIL
                    const ep_dot_values values =
                        step + u == odd_step ? ep_dot_load_first(from) : ep_dot_load(from);
#else
                    const ep_dot_values values = ep_dot_load(from);
#endif
                    EP_UNROLL
                    for (int o = 0; o < blocks; ++o)
                        sums[r][p][o] = ep_dot(sums[r][p][o], values, w[o]);
                }
            }
        }
    }
}

// Adds one kernel row; x points to column 0 of the input row that row 0 of the tile reads.
EP_INLINE void add_kernel_row(tile_sums sums, const uint8_t *x, const uint8_t *weights,
                              const int64_t step_begin, const int64_t step_end,
                              const int64_t odd_step, const int row_begin, const int row_end, const int pixels,
                              const int blocks, const int kind, const int64_t ow)
{
    if (kind == EDGE_TILE) {
#define COLUMN(kw)                                                                               \
    add_tap(sums, x + input_column(ow, kw) * X_W, weights + (kw) * TAP_BYTES * blocks,           \
            step_begin, step_end, odd_step, row_begin, row_end, pixels, blocks, 1, ow, kw);
        KERNEL_COLUMNS
#undef COLUMN
    } else {
        for (int64_t kw = 0; kw < KERNEL_W; ++kw) {
            if (kind == CLIPPED_TILE && (input_column(ow, kw) < 0 || input_column(ow, kw) >= IN_W))
                continue;
            add_tap(sums, x + input_column(ow, kw) * X_W, weights + kw * TAP_BYTES * blocks,
                    step_begin, step_end, odd_step, row_begin, row_end, pixels, blocks, 0, ow, kw);
        }
    }
}

#if EP_DOT_FLIPS
// Takes back the corrections of taps that lie outside the image.
EP_INLINE void correct_borders(tile_sums sums, const int32_t *shifts, const int64_t oh,
                               const int64_t ow, const int rows, const int pixels,
                               const int blocks, const int kind)
{
    EP_UNROLL
    for (int r = 0; r < rows; ++r) {
        for (int64_t kh = 0; kh < KERNEL_H; ++kh) {
            const int64_t ih = (oh + r) * STRIDE_H + kh * DILATION_H - PAD_TOP;
            const int is_inside = ih >= 0 && ih < IN_H;
            if (is_inside && kind == INNER_TILE)
                continue;
            if (!is_inside) {
                EP_UNROLL
                for (int o = 0; o < blocks; ++o) {
                    const vi part = ep_load_i(shifts + (o * SHIFT_VECTORS + 1 + kh) * EP_VL);
                    EP_UNROLL
                    for (int p = 0; p < pixels; ++p)
                        sums[r][p][o] = ep_add_i(sums[r][p][o], -part);
                }
                continue;
            }
            const int32_t *taps = shifts + (1 + KERNEL_H + kh * KERNEL_W) * EP_VL;
#define COLUMN(kw)                                                                               \
    EP_UNROLL                                                                                    \
    for (int p = 0; p < pixels; ++p) {                                                           \
        if (input_column(ow + p, kw) >= 0 && input_column(ow + p, kw) < IN_W)                    \
            continue;                                                                            \
        EP_UNROLL                                                                                \
        for (int o = 0; o < blocks; ++o)                                                         \
            sums[r][p][o] = ep_add_i(                                                            \
                sums[r][p][o], -ep_load_i(taps + (o * SHIFT_VECTORS + (kw)) * EP_VL));           \
    }
            if (kind == EDGE_TILE) {
                KERNEL_COLUMNS
            } else {
                for (int64_t kw = 0; kw < KERNEL_W; ++kw) {
                    COLUMN(kw)
                }
            }
#undef COLUMN
        }
    }
}
#endif

// Stores the result of one pixel and output block.
EP_INLINE void store(char *y, void *const *operands, const int64_t n, const int64_t block,
                     const int64_t oh, const int64_t ow, const ep_dot_sum sum)
{
    vf x0 = ep_dot_result(sum);
    EPILOGUE_LOADS;
    x0 = EPILOGUE;
#if LAST_LANES < EP_VL
    const int64_t lanes = block == ALL_BLOCKS - 1 ? LAST_LANES : EP_VL;
    if (lanes < EP_VL)
        STORE_Y_N((void *)y, x0, lanes);
    else
        STORE_Y((void *)y, x0);
#else
    STORE_Y((void *)y, x0);
#endif
    (void)operands, (void)n, (void)block, (void)oh, (void)ow;
}

// Computes rows x pixels x blocks outputs at (oh, ow). All counts and the kind are literals, and
// so is ow of an EDGE_TILE.
EP_INLINE void compute_tile(const uint8_t *x, const uint8_t *weights, const int32_t *shifts, char *y,
                            void *const *operands, const int64_t n, const int64_t block,
                            const int64_t oh, const int64_t ow, const int rows, const int pixels,
                            const int blocks, const int kind)
{
    (void)shifts;
    tile_sums sums;
    EP_UNROLL
    for (int o = 0; o < blocks; ++o) {
#if EP_DOT_FLIPS
        const ep_dot_sum first = ep_load_i(shifts + o * SHIFT_VECTORS * EP_VL);
#else
        const ep_dot_sum first = ep_dot_zero();
#endif
        EP_UNROLL
        for (int r = 0; r < rows; ++r) {
            EP_UNROLL
            for (int p = 0; p < pixels; ++p)
                sums[r][p][o] = first;
        }
    }
#if MIXED_GROUPS
    const int64_t first_step = mixed_table[block][0], end_step = mixed_table[block][1];
    const int64_t in_blocks = (end_step + STEPS - 1) / STEPS - first_step / STEPS;
    x += first_step / STEPS * X_C;
#else
    const int64_t in_blocks = IN_BLOCKS;
#endif
    for (int64_t cb = 0; cb < in_blocks; ++cb) {
#if MIXED_GROUPS
        const int64_t base = (first_step / STEPS + cb) * STEPS;
        const int64_t step_begin = first_step > base ? first_step - base : 0;
        const int64_t step_end = end_step < base + STEPS ? end_step - base : STEPS;
#else
        const int64_t step_begin = 0, step_end = cb == IN_BLOCKS - 1 ? IN_STEPS : STEPS;
#endif
        const int64_t odd_step = ODD_TAIL && cb == IN_BLOCKS - 1 ? IN_STEPS - 1 : -1;
        for (int64_t kh = 0; kh < KERNEL_H; ++kh) {
            const int64_t ih = oh * STRIDE_H + kh * DILATION_H - PAD_TOP;
            const uint8_t *xr = x + cb * X_C + ih * X_H;
            const uint8_t *wr = weights + (cb * KERNEL_H + kh) * KERNEL_W * TAP_BYTES * blocks;
            if (ih >= 0 && ih + (rows - 1) * STRIDE_H < IN_H) {
                add_kernel_row(sums, xr, wr, step_begin, step_end, odd_step, 0, rows, pixels, blocks,
                               kind, ow);
            } else if (rows > 1) {
                EP_UNROLL
                for (int r = 0; r < rows; ++r) {
                    if (ih + r * STRIDE_H >= 0 && ih + r * STRIDE_H < IN_H)
                        add_kernel_row(sums, xr, wr, step_begin, step_end, odd_step, r, r + 1,
                                       pixels, blocks, kind, ow);
                }
            }
        }
    }
#if EP_DOT_FLIPS
    const int64_t top = oh * STRIDE_H - PAD_TOP;
    const int64_t bottom = top + (rows - 1) * STRIDE_H + (KERNEL_H - 1) * DILATION_H;
    if (kind != INNER_TILE || top < 0 || bottom >= IN_H)
        correct_borders(sums, shifts, oh, ow, rows, pixels, blocks, kind);
#endif
    EP_UNROLL
    for (int r = 0; r < rows; ++r) {
        EP_UNROLL
        for (int p = 0; p < pixels; ++p) {
            EP_UNROLL
            for (int o = 0; o < blocks; ++o)
                store(y + (o * Y_C + (oh + r) * Y_H + (ow + p) * Y_W) * Y_BYTES, operands, n,
                      block + o, oh + r, ow + p, sums[r][p][o]);
        }
    }
}

#define TILE_PARAMETERS                                                                          \
    const uint8_t *x, const uint8_t *weights, const int32_t *shifts, char *y
#define TILE_VALUES x, weights, shifts, y
#define SET_VALUES                                                                               \
    x + n * X_N + group * IN_BLOCKS * X_C, weights + blocks_before * TAPS * TAP_BYTES,           \
        shifts + block * SHIFT_VECTORS * EP_VL, y + (n * Y_N + block * Y_C) * Y_BYTES
#include "units.h"

// args: x, weights, operands, y
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    (void)scratch;
    const int32_t *shifts = args[1];
    const uint8_t *weights = (const uint8_t *)(shifts + ALL_BLOCKS * SHIFT_VECTORS * EP_VL);
    compute_units(args[0], weights, shifts, args[OUTPUT], args + FIRST_OPERAND, unit_begin,
                  unit_end);
}
