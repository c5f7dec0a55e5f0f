// Local response normalisation across channels, linear input and output: lanes are positions.
//
// y = x / (K + ALPHA_OVER_SIZE * sum of x^2 over SIZE channels)^beta, channels outside count as 0.
// A unit is one image and VECTORS_PER_UNIT vectors of positions.
#include "ep_vector.h"

// How beta is applied: x / t^0.75, x / t^0.5, x / t, or by a power function.
#define BETA_THREE_QUARTERS 0
#define BETA_HALF 1
#define BETA_ONE 2
#define BETA_ANY 3

// parameters
#define KERNEL lrn_linear_default
#define CHANNELS 64
#define INNER (56 * 56)
#define SIZE 5
#define ALPHA_OVER_SIZE 0x1.4f8b588e368f1p-16f
#define BETA 0.75f
#define BETA_KIND BETA_THREE_QUARTERS
#define K 1.0f
#define T_IS_NORMAL 1
#define VECTORS_PER_UNIT 16
#define INPUT_STRIDE_N (64 * 56 * 56)
#define INPUT_STRIDE_C (56 * 56)
#define OUTPUT_STRIDE_N (64 * 56 * 56)
#define OUTPUT_STRIDE_C (56 * 56)
#define OUTPUT_ARG 1
#define EPILOGUE_EXPR x0
// end of parameters

#define NUM_VECTORS ((INNER + EP_VL - 1) / EP_VL)
#define LANES_LAST ((INNER - 1) % EP_VL + 1)
#define GROUPS ((NUM_VECTORS + VECTORS_PER_UNIT - 1) / VECTORS_PER_UNIT)
#define BEFORE ((SIZE - 1) / 2)

#if defined(EP_ISA_AVX512)
// 1 / sqrt(t) for normal t, at most 2 ulp: an estimate of 14 bits and one Newton step.
EP_INLINE vf reciprocal_root(vf t) {
#if defined(__clang__)
    const vf r = __builtin_ia32_rsqrt14ps512_mask(t, t, (uint16_t)-1);
#else
    const vf r = (vf)_mm512_rsqrt14_ps((__m512)t);
#endif
    return ep_fma(r * 0.5f, ep_fma(t * r, -r, ep_splat(1.0f)), r);
}
#endif

EP_INLINE vf normalised(vf x, vf t) {
#if defined(EP_ISA_AVX512)
    if (BETA_KIND == BETA_THREE_QUARTERS && T_IS_NORMAL) {
        // t^-0.75 = r * sqrt(r) = r * r / sqrt(r) with r = 1 / sqrt(t); t beyond float is FLT_MAX.
        const vf r = reciprocal_root(ep_min_const_first(ep_splat(0x1.fffffep127f), t));
        return x * (r * r * reciprocal_root(r));
    }
#endif
    if (BETA_KIND == BETA_THREE_QUARTERS) {
        const vf root = ep_sqrt_v(t);
        return x / (root * ep_sqrt_v(root));
    }
    if (BETA_KIND == BETA_HALF) return x / ep_sqrt_v(t);
    if (BETA_KIND == BETA_ONE) return x / t;
    return x / ep_pow_v(t, ep_splat(BETA));
}

EP_INLINE vf finished(vf x0) { return EPILOGUE_EXPR; }

EP_INLINE vf load(const float *p, const int lanes) {
    return lanes == EP_VL ? ep_load(p) : ep_load_n(p, lanes);
}

EP_INLINE void positions(const float *x, float *y, const int count, const int lanes) {
    for (int64_t c = 0; c < CHANNELS; ++c) {
        const int64_t first = c > BEFORE ? c - BEFORE : 0;
        const int64_t end = c - BEFORE + SIZE < CHANNELS ? c - BEFORE + SIZE : CHANNELS;
        vf sum[4];
        EP_UNROLL
        for (int i = 0; i < count; ++i) sum[i] = ep_splat(0.0f);
        for (int64_t k = first; k < end; ++k) {
            EP_UNROLL
            for (int i = 0; i < count; ++i) {
                const vf value = load(x + k * INPUT_STRIDE_C + i * EP_VL, lanes);
                sum[i] = ep_fma(value, value, sum[i]);
            }
        }
        EP_UNROLL
        for (int i = 0; i < count; ++i) {
            const vf total = ep_fma(sum[i], ep_splat(ALPHA_OVER_SIZE), ep_splat(K));
            const vf value = load(x + c * INPUT_STRIDE_C + i * EP_VL, lanes);
            const vf result = finished(normalised(value, total));
            float *to = y + c * OUTPUT_STRIDE_C + i * EP_VL;
            if (lanes == EP_VL)
                ep_store(to, result);
            else
                ep_store_n(to, result, lanes);
        }
    }
}

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    (void)scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t n = unit / GROUPS;
        int64_t v = unit % GROUPS * VECTORS_PER_UNIT;
        const int64_t last = v + VECTORS_PER_UNIT;
        const int64_t end = last < NUM_VECTORS ? last : NUM_VECTORS;
        const int64_t full = end * EP_VL <= INNER ? end : end - 1;
        const float *x = (const float *)args[0] + n * (int64_t)INPUT_STRIDE_N;
        float *y = (float *)args[OUTPUT_ARG] + n * (int64_t)OUTPUT_STRIDE_N;
        for (; v + 4 <= full; v += 4) positions(x + v * EP_VL, y + v * EP_VL, 4, EP_VL);
        for (; v < full; ++v) positions(x + v * EP_VL, y + v * EP_VL, 1, EP_VL);
        if (v < end) positions(x + v * EP_VL, y + v * EP_VL, 1, LANES_LAST);
    }
}
