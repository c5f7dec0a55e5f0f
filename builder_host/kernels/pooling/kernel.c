// Max and average pooling, blocked input; one vector holds one channel block of a pixel.
//
// A unit is ROWS_PER_UNIT output rows of one channel block. Inner output columns, whose windows lie
// inside the input, are made TILE at a time: input columns are first reduced over the window's rows
// and then combined, so that overlapping windows share loads. Border columns clip at run time.
// A maximum that keeps NaN takes three instructions, a plain one takes one: tiles use the plain one
// and add up their inputs as well; a sum that is NaN (rare, also after inf - inf) repeats the tile.
#include "ep_vector.h"

// parameters
#define KERNEL pooling_default
#define IS_MAX 1
#define X_TYPE float          // with LOAD_X: float, or uint16_t for bfloat16
#define LOAD_X ep_load
#define Y_TYPE float
#define STORE_Y ep_store      // STORE_Y_N stores the first lanes
#define STORE_Y_N ep_store_n
#define CHANNELS 64
#define NUM_BLOCKS ((64 + EP_VL - 1) / EP_VL)
#define INPUT_H 56
#define INPUT_W 56
#define OUTPUT_H 28
#define OUTPUT_W 28
#define WINDOW_H 3
#define WINDOW_W 3
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 0
#define PAD_LEFT 0
#define DILATION_H 1
#define DILATION_W 1
#define COUNT_TOP 0
#define COUNT_BOTTOM 56
#define COUNT_LEFT 0
#define COUNT_RIGHT 56
#define INNER_BEGIN 0
#define INNER_END 27
#define TILE 4
#define ROWS_PER_UNIT 4
#define INPUT_STRIDE_N (NUM_BLOCKS * 56 * 56 * EP_VL)
#define INPUT_STRIDE_C (56 * 56 * EP_VL)
#define INPUT_STRIDE_H (56 * EP_VL)
#define INPUT_STRIDE_W EP_VL
#define OUTPUT_STRIDE_N (NUM_BLOCKS * 28 * 28 * EP_VL)
#define OUTPUT_STRIDE_C (28 * 28 * EP_VL)
#define OUTPUT_STRIDE_H (28 * EP_VL)
#define OUTPUT_STRIDE_W EP_VL
#define OUTPUT_IS_BLOCKED 1
#define OUTPUT_ARG 1
#define EPILOGUE_LOADS (void)0
#define EPILOGUE_EXPR x0
// end of parameters

#include "ep_bf16.h"

#define ROW_GROUPS ((OUTPUT_H + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)
#define TILE_OR_ONE (TILE > 0 ? TILE : 1)
#define TILE_REST ((INNER_END - INNER_BEGIN) % TILE_OR_ONE)
#define TILE_COLUMNS ((TILE_OR_ONE - 1) * STRIDE_W + (WINDOW_W - 1) * DILATION_W + 1)

// Taps k of a window that starts at `start` and lie in [low, high): [taps.begin, taps.end).
typedef struct {
    int64_t begin, end;
} taps;

EP_INLINE taps clip(int64_t start, int64_t window, int64_t dilation, int64_t low,
                           int64_t high) {
    taps t;
    t.begin = start >= low ? 0 : (low - start + dilation - 1) / dilation;
    t.end = start >= high ? 0 : (high - start + dilation - 1) / dilation;
    t.end = t.end < window ? t.end : window;
    t.begin = t.begin < t.end ? t.begin : t.end;
    return t;
}

EP_INLINE vf initial(void) { return ep_splat(IS_MAX ? -__builtin_inff() : 0.0f); }

EP_INLINE vf combine(vf a, vf b) { return IS_MAX ? ep_max(a, b) : a + b; }

// Reciprocal of the number of cells that an average divides by; 1 for an empty window.
EP_INLINE float reciprocal(int64_t rows, int64_t columns) {
    const int64_t cells = rows * columns;
    return 1.0f / (float)(cells > 0 ? cells : 1);
}

EP_INLINE void store(void *const *args, int64_t n, int64_t cb, int64_t oh, int64_t ow,
                            vf x0) {
    EPILOGUE_LOADS;
    x0 = EPILOGUE_EXPR;
    Y_TYPE *output = (Y_TYPE *)args[OUTPUT_ARG];
    if (OUTPUT_IS_BLOCKED) {
        STORE_Y(output + n * OUTPUT_STRIDE_N + cb * OUTPUT_STRIDE_C + oh * OUTPUT_STRIDE_H +
                    ow * OUTPUT_STRIDE_W,
                x0);
    } else {
        const int64_t lanes = CHANNELS - cb * EP_VL;
        STORE_Y_N(output + n * OUTPUT_STRIDE_N + cb * EP_VL, x0,
                  (int)(lanes < EP_VL ? lanes : EP_VL));
    }
    (void)n, (void)oh, (void)ow;
}

// One output whose window may cross a border; also windows too wide for a tile.
EP_INLINE void border(void *const *args, const X_TYPE *plane, int64_t n, int64_t cb,
                             int64_t oh, int64_t ow, taps rows, int64_t row_count) {
    const int64_t h0 = oh * STRIDE_H - PAD_TOP, w0 = ow * STRIDE_W - PAD_LEFT;
    const taps columns = clip(w0, WINDOW_W, DILATION_W, 0, INPUT_W);
    vf sum[4];
    EP_UNROLL
    for (int i = 0; i < 4; ++i) sum[i] = initial();
    for (int64_t kh = rows.begin; kh < rows.end; ++kh) {
        const X_TYPE *p = plane + (h0 + kh * DILATION_H) * INPUT_STRIDE_H + w0 * INPUT_STRIDE_W;
        int64_t kw = columns.begin;
        for (; kw + 4 <= columns.end; kw += 4) {
            EP_UNROLL
            for (int i = 0; i < 4; ++i)
                sum[i] =
                    combine(sum[i], LOAD_X(p + (kw + i) * (DILATION_W * INPUT_STRIDE_W)));
        }
        for (; kw < columns.end; ++kw)
            sum[0] = combine(sum[0], LOAD_X(p + kw * (DILATION_W * INPUT_STRIDE_W)));
    }
    vf result = combine(combine(sum[0], sum[1]), combine(sum[2], sum[3]));
    if (!IS_MAX) {
        const taps counted = clip(w0, WINDOW_W, DILATION_W, COUNT_LEFT, COUNT_RIGHT);
        result = result * ep_splat(reciprocal(row_count, counted.end - counted.begin));
    }
    store(args, n, cb, oh, ow, result);
}

EP_INLINE vf fold(vf a, vf b, const int is_plain) {
    return IS_MAX && is_plain ? ep_max_const_first(a, b) : combine(a, b);
}

// `count` neighbouring outputs whose windows lie inside the input's columns.
// Returns whether a plain maximum may have lost a NaN; nothing is stored then.
EP_INLINE int try_tile(void *const *args, const X_TYPE *plane, int64_t n, int64_t cb, int64_t oh,
                       int64_t ow, taps rows, int64_t row_count, const int count,
                       const int is_plain) {
    const int num_columns = (count - 1) * STRIDE_W + (WINDOW_W - 1) * DILATION_W + 1;
    vf column[TILE_COLUMNS], sum[2] = {ep_splat(0.0f), ep_splat(0.0f)};
    EP_UNROLL
    for (int i = 0; i < num_columns; ++i) column[i] = initial();
    const X_TYPE *p = plane + (oh * STRIDE_H - PAD_TOP + rows.begin * DILATION_H) * INPUT_STRIDE_H +
                     (ow * STRIDE_W - PAD_LEFT) * INPUT_STRIDE_W;
    for (int64_t kh = rows.begin; kh < rows.end; ++kh) {
        EP_UNROLL
        for (int i = 0; i < num_columns; ++i) {
            const vf x = LOAD_X(p + i * INPUT_STRIDE_W);
            column[i] = fold(column[i], x, is_plain);
            if (IS_MAX && is_plain) sum[i & 1] = sum[i & 1] + x;
        }
        p += DILATION_H * INPUT_STRIDE_H;
    }
    if (IS_MAX && is_plain) {
        const float total = ep_sum(sum[0] + sum[1]);
        if (EP_UNLIKELY(total != total)) return 1;
    }
    const vf scale = ep_splat(IS_MAX ? 1.0f : reciprocal(row_count, WINDOW_W));
    EP_UNROLL
    for (int t = 0; t < count; ++t) {
        vf result = column[t * STRIDE_W];
        EP_UNROLL
        for (int kw = 1; kw < WINDOW_W; ++kw)
            result = fold(result, column[t * STRIDE_W + kw * DILATION_W], is_plain);
        store(args, n, cb, oh, ow + t, IS_MAX ? result : result * scale);
    }
    return 0;
}

EP_INLINE void tile(void *const *args, const X_TYPE *plane, int64_t n, int64_t cb, int64_t oh,
                    int64_t ow, taps rows, int64_t row_count, const int count) {
    if (EP_UNLIKELY(try_tile(args, plane, n, cb, oh, ow, rows, row_count, count, IS_MAX)))
        try_tile(args, plane, n, cb, oh, ow, rows, row_count, count, 0);
}

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    (void)scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t group = unit % ROW_GROUPS, cb = unit / ROW_GROUPS % NUM_BLOCKS;
        const int64_t n = unit / (ROW_GROUPS * NUM_BLOCKS);
        const X_TYPE *plane =
            (const X_TYPE *)args[0] + n * INPUT_STRIDE_N + cb * INPUT_STRIDE_C;
        const int64_t last = (group + 1) * ROWS_PER_UNIT;
        const int64_t oh_end = last < OUTPUT_H ? last : OUTPUT_H;
        for (int64_t oh = group * ROWS_PER_UNIT; oh < oh_end; ++oh) {
            const int64_t h0 = oh * STRIDE_H - PAD_TOP;
            const taps rows = clip(h0, WINDOW_H, DILATION_H, 0, INPUT_H);
            const taps counted = clip(h0, WINDOW_H, DILATION_H, COUNT_TOP, COUNT_BOTTOM);
            const int64_t row_count = counted.end - counted.begin;
            for (int64_t ow = 0; ow < INNER_BEGIN; ++ow)
                border(args, plane, n, cb, oh, ow, rows, row_count);
#if TILE > 0
            for (int64_t ow = INNER_BEGIN; ow < INNER_END - TILE_REST; ow += TILE)
                tile(args, plane, n, cb, oh, ow, rows, row_count, TILE);
#if TILE_REST > 0
            tile(args, plane, n, cb, oh, INNER_END - TILE_REST, rows, row_count, TILE_REST);
#endif
#endif
            for (int64_t ow = INNER_END; ow < OUTPUT_W; ++ow)
                border(args, plane, n, cb, oh, ow, rows, row_count);
        }
    }
}
