// Softmax or log-softmax over an axis with contiguous dimensions inside it: a lane is a column.
//
// A unit is one outer index and VECTORS_PER_UNIT vectors of neighbouring columns; up to four
// vectors walk down the axis together. Input and output may be the same memory.
#include "ep_vector.h"

// parameters
#define KERNEL softmax_columns_default
#define IS_LOG 0
#define EXTENT 21
#define INNER (64 * 64)
#define VECTORS_PER_UNIT 16
#define INPUT_STRIDE (64 * 64)
#define OUTPUT_STRIDE (64 * 64)
#define INPUT_OFFSET outer * (21 * 64 * 64)
#define OUTPUT_OFFSET outer * (21 * 64 * 64)
#define OUTPUT_ARG 1
#define EPILOGUE_EXPR x0
// end of parameters

#define NUM_VECTORS ((INNER + EP_VL - 1) / EP_VL)
#define LANES_LAST ((INNER - 1) % EP_VL + 1)
#define GROUPS ((NUM_VECTORS + VECTORS_PER_UNIT - 1) / VECTORS_PER_UNIT)

EP_INLINE vf load(const float *p, const int lanes) {
    return lanes == EP_VL ? ep_load(p) : ep_load_n(p, lanes);
}

EP_INLINE void store(float *p, vf x, const int lanes) {
    if (lanes == EP_VL)
        ep_store(p, x);
    else
        ep_store_n(p, x, lanes);
}

EP_INLINE vf finished(vf x0) { return EPILOGUE_EXPR; }

EP_INLINE void columns(const float *x, float *y, const int count, const int lanes) {
    vf most[4], sum[4];
    EP_UNROLL
    for (int i = 0; i < count; ++i) {
        most[i] = load(x + i * EP_VL, lanes);
        sum[i] = ep_splat(0.0f);
    }
    for (int64_t k = 1; k < EXTENT; ++k) {
        EP_UNROLL
        for (int i = 0; i < count; ++i)
            most[i] = ep_max(most[i], load(x + k * INPUT_STRIDE + i * EP_VL, lanes));
    }
    for (int64_t k = 0; k < EXTENT; ++k) {
        EP_UNROLL
        for (int i = 0; i < count; ++i) {
            const vf e = ep_exp_v(load(x + k * INPUT_STRIDE + i * EP_VL, lanes) - most[i]);
            sum[i] = sum[i] + e;
            if (!IS_LOG) store(y + k * OUTPUT_STRIDE + i * EP_VL, e, lanes);
        }
    }
    EP_UNROLL
    for (int i = 0; i < count; ++i)
        sum[i] = IS_LOG ? ep_log_v(sum[i]) : ep_splat(1.0f) / sum[i];
    for (int64_t k = 0; k < EXTENT; ++k) {
        EP_UNROLL
        for (int i = 0; i < count; ++i) {
            float *to = y + k * OUTPUT_STRIDE + i * EP_VL;
            const vf result =
                IS_LOG ? load(x + k * INPUT_STRIDE + i * EP_VL, lanes) - most[i] - sum[i]
                       : load(to, lanes) * sum[i];
            store(to, finished(result), lanes);
        }
    }
}

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    (void)scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t outer = unit / GROUPS;
        int64_t v = unit % GROUPS * VECTORS_PER_UNIT;
        const int64_t last = v + VECTORS_PER_UNIT;
        const int64_t end = last < NUM_VECTORS ? last : NUM_VECTORS;
        const int64_t full = end * EP_VL <= INNER ? end : end - 1;
        const float *x = (const float *)args[0] + (INPUT_OFFSET);
        float *y = (float *)args[OUTPUT_ARG] + (OUTPUT_OFFSET);
        for (; v + 4 <= full; v += 4) columns(x + v * EP_VL, y + v * EP_VL, 4, EP_VL);
        for (; v < full; ++v) columns(x + v * EP_VL, y + v * EP_VL, 1, EP_VL);
        if (v < end) columns(x + v * EP_VL, y + v * EP_VL, 1, LANES_LAST);
        (void)outer;
    }
}
