// Softmax or log-softmax whose axis fills vectors: a linear last axis, or blocked channels.
//
// A row is NUM_VECTORS vectors, VECTOR_STRIDE elements apart, the last with LANES_LAST elements.
// Three passes: maximum, exponentials and their sum, scaling. Sums run in four interleaved parts.
// Input and output may be the same memory.
#include "ep_vector.h"

// parameters
#define KERNEL softmax_rows_default
#define IS_LOG 0
#define NUM_ROWS 1
#define ROWS_PER_UNIT 1
#define NUM_VECTORS ((1000 + EP_VL - 1) / EP_VL)
#define LANES_LAST ((1000 - 1) % EP_VL + 1)
#define INPUT_VECTOR_STRIDE EP_VL
#define OUTPUT_VECTOR_STRIDE EP_VL
#define INPUT_OFFSET row * 1000
#define OUTPUT_OFFSET row * 1000
#define OUTPUT_ARG 1
#define EPILOGUE_EXPR x0
// end of parameters

EP_INLINE vf load(const float *p, int64_t v, const int is_last) {
    p += v * INPUT_VECTOR_STRIDE;
    return is_last && LANES_LAST < EP_VL ? ep_load_n(p, LANES_LAST) : ep_load(p);
}

// Lanes of the last vector past the end become `other`.
EP_INLINE vf masked(vf x, const int is_last, float other) {
    if (!is_last || LANES_LAST == EP_VL) return x;
    return ep_select(ep_first_lanes(LANES_LAST), x, ep_splat(other));
}

EP_INLINE void store(float *p, int64_t v, const int is_last, vf x) {
    p += v * OUTPUT_VECTOR_STRIDE;
    if (is_last && LANES_LAST < EP_VL)
        ep_store_n(p, x, LANES_LAST);
    else
        ep_store(p, x);
}

// Largest lane in all lanes; NaN when there is one. Halves are joined, in log2(EP_VL) steps.
EP_INLINE vf largest(vf x) {
#if EP_VL == 16
    x = ep_max(x, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    x = ep_max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    x = ep_max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    return ep_max(
        x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
#elif EP_VL == 8
    x = ep_max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = ep_max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    return ep_max(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6));
#else
    x = ep_max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1));
    return ep_max(x, __builtin_shufflevector(x, x, 1, 0, 3, 2));
#endif
}

EP_INLINE vf finished(vf x0) { return EPILOGUE_EXPR; }

EP_INLINE vf exponential(const float *x, float *y, int64_t v, const int is_last, vf maximum) {
    const vf e = masked(ep_exp_v(load(x, v, is_last) - maximum), is_last, 0.0f);
    if (!IS_LOG) store(y, v, is_last, e);
    return e;
}

EP_INLINE void softmax_row(const float *x, float *y) {
    const int64_t last = NUM_VECTORS - 1;
    vf most[4], sum[4];
    EP_UNROLL
    for (int i = 0; i < 4; ++i) {
        most[i] = masked(load(x, last, 1), 1, -__builtin_inff());
        sum[i] = ep_splat(0.0f);
    }
    int64_t v = 0;
    for (; v + 4 <= last; v += 4) {
        EP_UNROLL
        for (int i = 0; i < 4; ++i) most[i] = ep_max(most[i], load(x, v + i, 0));
    }
    for (; v < last; ++v) most[0] = ep_max(most[0], load(x, v, 0));
    const vf maximum = largest(ep_max(ep_max(most[0], most[1]), ep_max(most[2], most[3])));
    for (v = 0; v + 4 <= last; v += 4) {
        EP_UNROLL
        for (int i = 0; i < 4; ++i) sum[i] = sum[i] + exponential(x, y, v + i, 0, maximum);
    }
    for (; v < last; ++v) sum[0] = sum[0] + exponential(x, y, v, 0, maximum);
    sum[1] = sum[1] + exponential(x, y, last, 1, maximum);
    const float total = ep_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    if (IS_LOG) {
        // Subtracting the maximum first keeps small differences exact.
        const vf shift = ep_splat(ep_log_s(total));
        for (v = 0; v < last; ++v) store(y, v, 0, finished(load(x, v, 0) - maximum - shift));
        store(y, last, 1, finished(load(x, last, 1) - maximum - shift));
    } else {
        const vf scale = ep_splat(1.0f / total);
        for (v = 0; v < last; ++v) {
            float *p = y + v * OUTPUT_VECTOR_STRIDE;
            ep_store(p, finished(ep_load(p) * scale));
        }
        float *p = y + last * OUTPUT_VECTOR_STRIDE;
        const vf e = LANES_LAST < EP_VL ? ep_load_n(p, LANES_LAST) : ep_load(p);
        store(y, last, 1, finished(e * scale));
    }
}

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    (void)scratch;
    const int64_t end = unit_end * ROWS_PER_UNIT;
    for (int64_t row = unit_begin * ROWS_PER_UNIT; row < end && row < NUM_ROWS; ++row)
        softmax_row((const float *)args[0] + (INPUT_OFFSET),
                    (float *)args[OUTPUT_ARG] + (OUTPUT_OFFSET));
}
