// Max and average pooling of 8-bit tensors, blocked input; one vector holds the channels of a pixel.
// A unit is ROWS_PER_UNIT output rows of one channel block. Each output row is made in two steps:
// the rows of its windows are folded into one row in scratch, many pixels per instruction; then the
// columns of each window are folded. A maximum stays in bytes, sums are int32 and exact.
#include "ep_vector.h"

// parameters
#define SYMBOL pooling_int8_default
#define IS_MAX 1
#define X_IS_SIGNED 1
#define BLOCKS ((64 + EP_VL - 1) / EP_VL)
#define IN_H 56
#define IN_W 56
#define OUT_H 28
#define OUT_W 28
#define WINDOW_H 3
#define WINDOW_W 3
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 0
#define PAD_LEFT 0
#define DILATION_H 1
#define DILATION_W 1
#define COUNT_TOP 0           // an average counts cells in [COUNT_TOP, COUNT_BOTTOM) x ...
#define COUNT_BOTTOM 56
#define COUNT_LEFT 0
#define COUNT_RIGHT 56
#define ROWS_PER_UNIT 4
#define X_N (BLOCKS * 56 * 56 * EP_VL) // strides in elements; columns of x follow each other
#define X_C (56 * 56 * EP_VL)
#define X_H (56 * EP_VL)
#define Y_N (BLOCKS * 28 * 28 * EP_VL)
#define Y_C (28 * 28 * EP_VL)
#define Y_H (28 * EP_VL)
#define Y_W EP_VL
#define Y_BYTES 1             // 1: 8-bit results, 4: floats
#define LAST_LANES EP_VL      // lanes that may be stored in the last channel block
#define HAS_EPILOGUE 0        // 0: a maximum is stored as it is
#define OUTPUT 1              // number of the output among the arguments
#define EPILOGUE_LOADS (void)0
#define EPILOGUE x0
// end of parameters

#include "ep_int8.h"

#define ROW_GROUPS ((OUT_H + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)

#if X_IS_SIGNED
typedef int8_t element;
typedef ep_bytes pixel;
typedef ep_bytes_unaligned pixel_unaligned;
#else
typedef uint8_t element;
typedef ep_ubytes pixel;
typedef ep_ubytes_unaligned pixel_unaligned;
#endif
#if IS_MAX
typedef element folded;       // of a row in scratch
typedef pixel fold;
#else
typedef int32_t folded;
typedef vi fold;
#endif

// Taps k of a window that starts at `start` and lie in [low, high): [begin, end).
typedef struct {
    int64_t begin, end;
} taps;

EP_INLINE taps clip(int64_t start, int64_t window, int64_t dilation, int64_t low, int64_t high)
{
    taps t;
    t.begin = start >= low ? 0 : (low - start + dilation - 1) / dilation;
    t.end = start >= high ? 0 : (high - start + dilation - 1) / dilation;
    t.end = t.end < window ? t.end : window;
    t.begin = t.begin < t.end ? t.begin : t.end;
    return t;
}

EP_INLINE fold combine(fold a, fold b)
{
#if !IS_MAX
    return a + b;
#elif defined(__clang__)
    return __builtin_elementwise_max(a, b);
#else
    const fold first = (fold)(a > b);
    return (a & first) | (b & ~first);
#endif
}

// Folds the rows of a window, element by element, into row[0 .. IN_W * EP_VL).
EP_INLINE void fold_rows(folded *EP_RESTRICT row, const element *EP_RESTRICT first, int64_t count)
{
    EP_VECTORIZE
    for (int64_t i = 0; i < IN_W * EP_VL; ++i) row[i] = first[i];
    for (int64_t kh = 1; kh < count; ++kh) {
        const element *EP_RESTRICT next = first + kh * DILATION_H * X_H;
        EP_VECTORIZE
        for (int64_t i = 0; i < IN_W * EP_VL; ++i) {
#if IS_MAX
            row[i] = row[i] > next[i] ? row[i] : next[i];
#else
            row[i] += next[i];
#endif
        }
    }
}

EP_INLINE fold load(const folded *row, int64_t column)
{
#if IS_MAX
    return *(const pixel_unaligned *)(row + column * EP_VL);
#else
    return ep_load_i(row + column * EP_VL);
#endif
}

// Stores the result of one pixel and channel block; an average's cells are counted already.
EP_INLINE void store(char *y, void *const *operands, int64_t n, int64_t block, int64_t oh, int64_t ow,
                     fold result, float cells)
{
#if HAS_EPILOGUE || !IS_MAX
    vf x0 = __builtin_convertvector(__builtin_convertvector(result, vi), vf);
    if (!IS_MAX) x0 = x0 / ep_splat(cells);
    EPILOGUE_LOADS;
    x0 = EPILOGUE;
#if LAST_LANES < EP_VL
    const int64_t lanes = block == BLOCKS - 1 ? LAST_LANES : EP_VL;
    if (Y_BYTES == 1)
        ep_store_8_n(y, x0, lanes);
    else
        ep_store_n((float *)y, x0, lanes);
#else
    if (Y_BYTES == 1)
        ep_store_8(y, x0);
    else
        ep_store((float *)y, x0);
#endif
#elif LAST_LANES < EP_VL
    const int64_t lanes = block == BLOCKS - 1 ? LAST_LANES : EP_VL;
    for (int64_t i = 0; i < lanes; ++i) ((element *)y)[i] = result[i];
#else
    *(pixel_unaligned *)y = result;
#endif
    (void)operands, (void)n, (void)block, (void)oh, (void)ow, (void)cells;
}

// args: x, operands, y. scratch: one folded row.
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    folded *row = scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t group = unit % ROW_GROUPS, block = unit / ROW_GROUPS % BLOCKS;
        const int64_t n = unit / (ROW_GROUPS * BLOCKS);
        const element *plane = (const element *)args[0] + n * X_N + block * X_C;
        const int64_t last = (group + 1) * ROWS_PER_UNIT;
        const int64_t oh_end = last < OUT_H ? last : OUT_H;
        for (int64_t oh = group * ROWS_PER_UNIT; oh < oh_end; ++oh) {
            const int64_t h0 = oh * STRIDE_H - PAD_TOP;
            const taps rows = clip(h0, WINDOW_H, DILATION_H, 0, IN_H);
            const taps counted_rows = clip(h0, WINDOW_H, DILATION_H, COUNT_TOP, COUNT_BOTTOM);
            fold_rows(row, plane + (h0 + rows.begin * DILATION_H) * X_H, rows.end - rows.begin);
            char *y = (char *)args[OUTPUT] + (n * Y_N + block * Y_C + oh * Y_H) * Y_BYTES;
            for (int64_t ow = 0; ow < OUT_W; ++ow) {
                const int64_t w0 = ow * STRIDE_W - PAD_LEFT;
                const taps columns = clip(w0, WINDOW_W, DILATION_W, 0, IN_W);
                const taps counted = clip(w0, WINDOW_W, DILATION_W, COUNT_LEFT, COUNT_RIGHT);
                const int64_t cells = (counted_rows.end - counted_rows.begin) *
                                      (counted.end - counted.begin);
                fold result = load(row, w0 + columns.begin * DILATION_W);
                if (columns.end - columns.begin == WINDOW_W) {
                    EP_UNROLL
                    for (int kw = 1; kw < WINDOW_W; ++kw)
                        result = combine(result, load(row, w0 + kw * DILATION_W));
                } else {
                    for (int64_t kw = columns.begin + 1; kw < columns.end; ++kw)
                        result = combine(result, load(row, w0 + kw * DILATION_W));
                }
                store(y + ow * Y_W * Y_BYTES, args + 1, n, block, oh, ow, result, (float)cells);
            }
        }
    }
}
