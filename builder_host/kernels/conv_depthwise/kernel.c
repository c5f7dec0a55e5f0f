// Depthwise convolution on blocked tensors: each lane is a channel of its own.
// A tile of rows x pixels stays in registers. Rows outside the image are skipped when the kernel
// runs; columns outside it are left out of tiles whose column is a literal. 8-bit tensors are read
// as floats; their sums are exact. Weights: [channel block][kh][kw][lane], floats.
#include "ep_vector.h"

// parameters
#define SYMBOL conv_depthwise_default
#define IN_H 56               // input rows and columns
#define IN_W 56
#define OUT_H 56              // output rows; ROW_TILES has the columns
#define BLOCKS 8              // channel blocks
#define X_TYPE float          // with LOAD_X: float, int8_t, uint8_t, or uint16_t for bfloat16
#define LOAD_X ep_load
#define Y_TYPE float
#define STORE_Y ep_store
#define X_N 401408            // strides in elements
#define X_C 50176
#define X_H 896
#define X_W 16
#define Y_N 401408
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
#define ROWS_PER_UNIT 56
#define TILE_ROWS 2           // more than 1 only with SHARE_COLUMNS
#define TILE_PIXELS 7
#define ROW_TILES EDGE(0, 7) INNER(7, 7, 6) EDGE(49, 7)
#define SHARE_COLUMNS 1       // 1: each input vector of a row is loaded once for all taps
#define HAS_BIAS 1
#define NUM_OPERANDS 0
#define EPILOGUE_LOADS (void)0 // of x1 .. at n, block, oh, ow
#define EPILOGUE x0
// end of parameters

#include "ep_bf16.h"
#include "ep_int8.h"

#define ROW_CHUNKS ((OUT_H + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)
#define FIRST_OPERAND (2 + HAS_BIAS)
#define OUTPUT (FIRST_OPERAND + NUM_OPERANDS)

enum { INNER_TILE, EDGE_TILE, CLIPPED_TILE };
typedef vf tile_sums[TILE_ROWS][TILE_PIXELS];

#define INSIDE(column) ((column) >= 0 && (column) < IN_W)

#if SHARE_COLUMNS
// Adds input row `step` below the tile's first one to all output rows that use it; x points to
// the tile's first column in that row.
EP_INLINE void add_row(tile_sums sums, const X_TYPE *x, const float *weights, const int step,
                       const int rows, const int pixels, const int kind, const int64_t first)
{
    const int num_columns = (pixels - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1;
    vf w[TILE_ROWS][KERNEL_W];
    EP_UNROLL
    for (int r = 0; r < rows; ++r) {
        const int below = step - r * STRIDE_H;
        if (below < 0 || below % DILATION_H != 0 || below / DILATION_H >= KERNEL_H)
            continue;
        EP_UNROLL
        for (int kw = 0; kw < KERNEL_W; ++kw)
            w[r][kw] = ep_load(weights + (below / DILATION_H * KERNEL_W + kw) * EP_VL);
    }
    EP_UNROLL
    for (int column = 0; column < num_columns; ++column) {
        if (kind == EDGE_TILE && !INSIDE(first + column))
            continue;
        const vf value = LOAD_X(x + column * X_W);
        EP_UNROLL
        for (int r = 0; r < rows; ++r) {
            const int below = step - r * STRIDE_H;
            if (below < 0 || below % DILATION_H != 0 || below / DILATION_H >= KERNEL_H)
                continue;
            EP_UNROLL
            for (int kw = 0; kw < KERNEL_W; ++kw) {
                const int right = column - kw * DILATION_W;
                if (right >= 0 && right % STRIDE_W == 0 && right / STRIDE_W < pixels)
                    sums[r][right / STRIDE_W] =
                        ep_fma(value, w[r][kw], sums[r][right / STRIDE_W]);
            }
        }
    }
}
#endif

// Adds one kernel row to a tile of one row.
EP_INLINE void add_taps(tile_sums sums, const X_TYPE *x, const float *weights, const int pixels,
                        const int kind, const int64_t first)
{
    if (kind == EDGE_TILE) {
        EP_UNROLL
        for (int kw = 0; kw < KERNEL_W; ++kw) {
            const vf w = ep_load(weights + kw * EP_VL);
            EP_UNROLL
            for (int p = 0; p < pixels; ++p) {
                const int64_t column = p * STRIDE_W + kw * DILATION_W;
                if (INSIDE(first + column))
                    sums[0][p] = ep_fma(LOAD_X(x + column * X_W), w, sums[0][p]);
            }
        }
    } else {
        for (int64_t kw = 0; kw < KERNEL_W; ++kw) {
            if (kind == CLIPPED_TILE && !INSIDE(first + kw * DILATION_W))
                continue;
            const vf w = ep_load(weights + kw * EP_VL);
            EP_UNROLL
            for (int p = 0; p < pixels; ++p) {
                const int64_t column = p * STRIDE_W + kw * DILATION_W;
                sums[0][p] = ep_fma(LOAD_X(x + column * X_W), w, sums[0][p]);
            }
        }
    }
}

// The result of one pixel after the epilogue.
EP_INLINE vf finished(vf x0, void *const *operands, const int64_t n, const int64_t block,
                      const int64_t oh, const int64_t ow)
{
    (void)operands, (void)n, (void)block, (void)oh, (void)ow;
    EPILOGUE_LOADS;
    return EPILOGUE;
}

// Computes rows x pixels outputs at (oh, ow). All counts and the kind are literals, and so is ow
// of an EDGE_TILE.
EP_INLINE void compute_tile(const X_TYPE *x, const float *weights, const vf bias, Y_TYPE *y,
                            void *const *operands, const int64_t n, const int64_t block,
                            const int64_t oh, const int64_t ow, const int rows, const int pixels,
                            const int kind)
{
    const int64_t top = oh * STRIDE_H - PAD_TOP, left = ow * STRIDE_W - PAD_LEFT;
    tile_sums sums;
    EP_UNROLL
    for (int r = 0; r < rows; ++r) {
        EP_UNROLL
        for (int p = 0; p < pixels; ++p)
            sums[r][p] = bias;
    }
#if SHARE_COLUMNS
    EP_UNROLL
    for (int step = 0; step < (rows - 1) * STRIDE_H + (KERNEL_H - 1) * DILATION_H + 1; ++step) {
        const int64_t ih = top + step;
        if (ih >= 0 && ih < IN_H)
            add_row(sums, x + ih * X_H + left * X_W, weights, step, rows, pixels, kind, left);
    }
#else
    for (int64_t kh = 0; kh < KERNEL_H; ++kh) {
        const int64_t ih = top + kh * DILATION_H;
        if (ih >= 0 && ih < IN_H)
            add_taps(sums, x + ih * X_H + left * X_W, weights + kh * KERNEL_W * EP_VL, pixels,
                     kind, left);
    }
#endif
    EP_UNROLL
    for (int r = 0; r < rows; ++r) {
        EP_UNROLL
        for (int p = 0; p < pixels; ++p)
            STORE_Y(y + (oh + r) * Y_H + (ow + p) * Y_W,
                    finished(sums[r][p], operands, n, block, oh + r, ow + p));
    }
}

// args: x, weights, [bias], operands, y. A unit is an image, a channel block, a chunk of rows.
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    (void)scratch;
    void *const *operands = args + FIRST_OPERAND;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t n = unit / ROW_CHUNKS / BLOCKS, block = unit / ROW_CHUNKS % BLOCKS;
        const int64_t row_begin = unit % ROW_CHUNKS * ROWS_PER_UNIT;
        const int64_t row_end =
            row_begin + ROWS_PER_UNIT < OUT_H ? row_begin + ROWS_PER_UNIT : OUT_H;
        const X_TYPE *x = (const X_TYPE *)args[0] + n * X_N + block * X_C;
        const float *weights = (const float *)args[1] + block * KERNEL_H * KERNEL_W * EP_VL;
        const vf bias =
            HAS_BIAS ? ep_load((const float *)args[2] + block * EP_VL) : ep_splat(0.0f);
        Y_TYPE *y = (Y_TYPE *)args[OUTPUT] + n * Y_N + block * Y_C;
        int64_t oh = row_begin;
#define EDGE(column, pixels)                                                                     \
    compute_tile(x, weights, bias, y, operands, n, block, oh, column, ROWS, pixels, EDGE_TILE);
#define INNER(column, pixels, count)                                                             \
    for (int64_t tile = 0; tile < (count); ++tile)                                               \
        compute_tile(x, weights, bias, y, operands, n, block, oh, (column) + tile * (pixels),    \
                     ROWS, pixels, INNER_TILE);
#define CLIPPED(column, count)                                                                   \
    for (int64_t tile = 0; tile < (count); ++tile)                                               \
        compute_tile(x, weights, bias, y, operands, n, block, oh, (column) + tile, ROWS, 1,      \
                     CLIPPED_TILE);
#define ROWS TILE_ROWS
        for (; oh + ROWS <= row_end; oh += ROWS) {
            ROW_TILES
        }
#undef ROWS
#define ROWS 1
        if (TILE_ROWS > 1) {
            for (; oh < row_end; ++oh) {
                ROW_TILES
            }
        }
#undef ROWS
    }
}
