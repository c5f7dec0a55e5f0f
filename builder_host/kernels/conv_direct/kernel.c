// Direct convolution on blocked tensors: one vector holds the channels of one block, a tile of
// pixels x output blocks stays in registers while all taps and input channels are added.
// There are no halos: rows outside the image are left out by the range of kernel rows, columns
// outside it by tiles whose position is a literal, so that each pixel is kept or dropped when
// the tile is compiled. Weights: [set][input block][kh][kw][input lane][block of set][lane].
#include "ep_vector.h"

// parameters
#define SYMBOL conv_direct_default
#define IN_H 56               // input rows and columns
#define IN_W 56
#define OUT_H 56              // output rows; ROW_TILES has the columns
#define BATCH 1
#define X_N 200704            // strides in floats
#define X_C 50176
#define X_H 896
#define X_W 16
#define Y_N 200704
#define Y_C 50176
#define Y_H 896
#define Y_W 16
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
#define IN_TAIL 16            // channels in the last input block
#define OUT_BLOCKS 4          // output blocks of one group
#define SET_BLOCKS 2          // output blocks of a wide set; a narrow one has one fewer
#define WIDE_SETS 2           // sets of one group: wide ones first
#define NARROW_SETS 0
#define SETS_PER_UNIT 2
#define ROWS_PER_UNIT 8
#define TILE_ROWS 1
#define TILE_PIXELS 14        // columns of the largest tile
#define ROW_TILES EDGE(0, 14) INNER(14, 14, 2) EDGE(42, 14)
#define KERNEL_COLUMNS COLUMN(0) COLUMN(1) COLUMN(2)
#define LANES_UNROLLED 4      // divides EP_VL and IN_TAIL
#define VECTOR_LANES 0        // 1: a whole block of x is loaded and used lane by lane
#define PREFETCH_BYTES 0      // how far ahead weights are prefetched; 0: not at all
#define MIXED_GROUPS 0        // 1: groups share blocks; each output block has a row in the table
#define MIXED_TABLE {0, 64, 0} // first channel, end channel, input blocks packed before
#define HAS_BIAS 1
#define NUM_OPERANDS 0
#define OPERAND1_STRIDES 0, 0, 0, 0
#define OPERAND2_STRIDES 0, 0, 0, 0
#define OPERAND3_STRIDES 0, 0, 0, 0
#define OPERAND4_STRIDES 0, 0, 0, 0
#define EPILOGUE x0
// end of parameters

#include "tiles.h"
#include "epilogue.h"

#define TAP_FLOATS (EP_VL * EP_VL) // weights of one tap, one input block, one output block
#define FIRST_OPERAND (2 + HAS_BIAS)
#define OUTPUT (FIRST_OPERAND + NUM_OPERANDS)

typedef vf tile_sums[TILE_ROWS][TILE_PIXELS][SET_BLOCKS];

// Adds one tap of some lanes of one input block for rows [row_begin, row_end) of the tile.
EP_INLINE void add_tap(tile_sums sums, const float *x, const float *weights,
                       const int64_t lane_begin, const int64_t lane_end, const int row_begin,
                       const int row_end, const int pixels, const int blocks, const int is_edge,
                       const int64_t ow, const int64_t kw)
{
#if VECTOR_LANES
    (void)lane_begin, (void)lane_end;
    vf w[EP_VL][SET_BLOCKS];
    EP_UNROLL
    for (int lane = 0; lane < EP_VL; ++lane) {
        EP_UNROLL
        for (int o = 0; o < blocks; ++o)
            w[lane][o] = ep_load(weights + (lane * blocks + o) * EP_VL);
    }
    if (PREFETCH_BYTES > 0)
        ep_prefetch((const char *)weights + PREFETCH_BYTES);
    EP_UNROLL
    for (int r = row_begin; r < row_end; ++r) {
        EP_UNROLL
        for (int p = 0; p < pixels; ++p) {
            int64_t iw = input_column(ow + p, kw);
            if (is_edge && (iw < 0 || iw >= IN_W))
                continue;
            const vf values = ep_load(x + (int64_t)r * STRIDE_H * X_H + (int64_t)p * STRIDE_W * X_W);
            EP_UNROLL
            for (int lane = 0; lane < EP_VL; ++lane) {
                EP_UNROLL
                for (int o = 0; o < blocks; ++o)
                    sums[r][p][o] = ep_fma(ep_splat(values[lane]), w[lane][o], sums[r][p][o]);
            }
        }
    }
#else
    for (int64_t lane = lane_begin; lane < lane_end; lane += LANES_UNROLLED) {
        EP_UNROLL
        for (int u = 0; u < LANES_UNROLLED; ++u) {
            const float *row_of_weights = weights + (lane + u) * blocks * EP_VL;
            vf w[SET_BLOCKS];
            EP_UNROLL
            for (int o = 0; o < blocks; ++o) {
                w[o] = ep_load(row_of_weights + o * EP_VL);
                if (PREFETCH_BYTES > 0)
                    ep_prefetch((const char *)(row_of_weights + o * EP_VL) + PREFETCH_BYTES);
            }
            EP_UNROLL
            for (int r = row_begin; r < row_end; ++r) {
                EP_UNROLL
                for (int p = 0; p < pixels; ++p) {
                    int64_t iw = input_column(ow + p, kw);
                    if (is_edge && (iw < 0 || iw >= IN_W))
                        continue;
                    vf value = ep_splat(x[(int64_t)r * STRIDE_H * X_H +
                                          (int64_t)p * STRIDE_W * X_W + lane + u]);
                    EP_UNROLL
                    for (int o = 0; o < blocks; ++o)
                        sums[r][p][o] = ep_fma(value, w[o], sums[r][p][o]);
                }
            }
        }
    }
#endif
}

// Adds one kernel row; x points to column 0 of the input row that row 0 of the tile reads.
EP_INLINE void add_kernel_row(tile_sums sums, const float *x, const float *weights,
                              const int64_t lane_begin, const int64_t lane_end,
                              const int row_begin, const int row_end, const int pixels,
                              const int blocks, const int kind, const int64_t ow)
{
    if (kind == EDGE_TILE) {
#define COLUMN(kw)                                                                               \
    add_tap(sums, x + input_column(ow, kw) * X_W, weights + (kw) * TAP_FLOATS * blocks,           \
            lane_begin, lane_end, row_begin, row_end, pixels, blocks, 1, ow, kw);
        KERNEL_COLUMNS
#undef COLUMN
    } else {
        for (int64_t kw = 0; kw < KERNEL_W; ++kw) {
            if (kind == CLIPPED_TILE && (input_column(ow, kw) < 0 || input_column(ow, kw) >= IN_W))
                continue;
            add_tap(sums, x + input_column(ow, kw) * X_W, weights + kw * TAP_FLOATS * blocks,
                    lane_begin, lane_end, row_begin, row_end, pixels, blocks, 0, ow, kw);
        }
    }
}

// Computes rows x pixels x blocks outputs at (oh, ow). All counts and the kind are literals, and
// so is ow of an EDGE_TILE.
EP_INLINE void compute_tile(const float *x, const float *weights, const float *bias, float *y,
                            void *const *operands, const int64_t n, const int64_t block,
                            const int64_t oh, const int64_t ow, const int rows, const int pixels,
                            const int blocks, const int kind)
{
    tile_sums sums;
    EP_UNROLL
    for (int o = 0; o < blocks; ++o) {
        vf first = HAS_BIAS ? ep_load(bias + o * EP_VL) : ep_splat(0.0f);
        EP_UNROLL
        for (int r = 0; r < rows; ++r) {
            EP_UNROLL
            for (int p = 0; p < pixels; ++p)
                sums[r][p][o] = first;
        }
    }
#if MIXED_GROUPS
    const int64_t channel_begin = mixed_table[block][0], channel_end = mixed_table[block][1];
    const int64_t in_blocks = (channel_end + EP_VL - 1) / EP_VL - channel_begin / EP_VL;
    x += channel_begin / EP_VL * X_C;
#else
    const int64_t in_blocks = IN_BLOCKS;
#endif
    for (int64_t cb = 0; cb < in_blocks; ++cb) {
#if MIXED_GROUPS
        const int64_t first_lane = (channel_begin / EP_VL + cb) * EP_VL;
        const int64_t lane_begin = channel_begin > first_lane ? channel_begin - first_lane : 0;
        const int64_t lane_end =
            channel_end < first_lane + EP_VL ? channel_end - first_lane : EP_VL;
#else
        const int64_t lane_begin = 0, lane_end = cb == IN_BLOCKS - 1 ? IN_TAIL : EP_VL;
#endif
        for (int64_t kh = 0; kh < KERNEL_H; ++kh) {
            const int64_t ih = oh * STRIDE_H + kh * DILATION_H - PAD_TOP;
            const float *xr = x + cb * X_C + ih * X_H;
            const float *wr = weights + (cb * KERNEL_H + kh) * KERNEL_W * TAP_FLOATS * blocks;
            if (ih >= 0 && ih + (rows - 1) * STRIDE_H < IN_H) {
                add_kernel_row(sums, xr, wr, lane_begin, lane_end, 0, rows, pixels, blocks, kind,
                               ow);
            } else if (rows > 1) {
                EP_UNROLL
                for (int r = 0; r < rows; ++r) {
                    if (ih + r * STRIDE_H >= 0 && ih + r * STRIDE_H < IN_H)
                        add_kernel_row(sums, xr, wr, lane_begin, lane_end, r, r + 1, pixels,
                                       blocks, kind, ow);
                }
            }
        }
    }
    EP_UNROLL
    for (int r = 0; r < rows; ++r) {
        EP_UNROLL
        for (int p = 0; p < pixels; ++p) {
            EP_UNROLL
            for (int o = 0; o < blocks; ++o)
                ep_store(y + o * Y_C + (oh + r) * Y_H + (ow + p) * Y_W,
                         finished(sums[r][p][o], operands, n, block + o, oh + r, ow + p));
        }
    }
}

#define TILE_PARAMETERS const float *x, const float *weights, const float *bias, float *y
#define TILE_VALUES x, weights, bias, y
#define SET_VALUES                                                                               \
    x + n * X_N + group * IN_BLOCKS * X_C,                                                       \
        weights + blocks_before * KERNEL_H * KERNEL_W * TAP_FLOATS, bias + block * EP_VL,        \
        y + n * Y_N + block * Y_C
#include "units.h"

// args: x, weights, [bias], operands, y
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    (void)scratch;
    const float *bias = HAS_BIAS ? args[2] : args[1];
    compute_units(args[0], args[1], bias, args[OUTPUT], args + FIRST_OPERAND, unit_begin, unit_end);
}
