// Local response normalisation across channels, blocked input and output.
//
// y = x / (K + ALPHA_OVER_SIZE * sum of x^2 over SIZE channels)^beta, channels outside count as 0.
// A unit is ROWS_PER_UNIT image rows. For TILE pixels at a time the squares of all channels are
// put one after another, with zeros at both ends, so that neighbours are unaligned loads.
#include "ep_vector.h"

// How beta is applied: x / t^0.75, x / t^0.5, x / t, or by a power function.
#define BETA_THREE_QUARTERS 0
#define BETA_HALF 1
#define BETA_ONE 2
#define BETA_ANY 3

// parameters
#define KERNEL lrn_blocked_default
#define CHANNELS 64
#define HEIGHT 56
#define WIDTH 56
#define SIZE 5
#define ALPHA_OVER_SIZE 0x1.4f8b588e368f1p-16f
#define BETA 0.75f
#define BETA_KIND BETA_THREE_QUARTERS
#define K 1.0f
#define T_IS_NORMAL 1
#define TILE 8
#define ROWS_PER_UNIT 4
#define INPUT_STRIDE_N (64 * 56 * 56)
#define INPUT_STRIDE_C (56 * 56 * EP_VL)
#define INPUT_STRIDE_H (56 * EP_VL)
#define INPUT_STRIDE_W EP_VL
#define OUTPUT_STRIDE_N (64 * 56 * 56)
#define OUTPUT_STRIDE_C (56 * 56 * EP_VL)
#define OUTPUT_STRIDE_H (56 * EP_VL)
#define OUTPUT_STRIDE_W EP_VL
#define OUTPUT_ARG 1
#define EPILOGUE_EXPR x0
// end of parameters

#define NUM_BLOCKS ((CHANNELS + EP_VL - 1) / EP_VL)
#define LANES_LAST ((CHANNELS - 1) % EP_VL + 1)
#define ROW_GROUPS ((HEIGHT + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT)
#define BEFORE ((SIZE - 1) / 2)
// One pixel in scratch: zeros, squares, zeros; whole vectors.
#define MARGIN ((SIZE + EP_VL - 1) / EP_VL * EP_VL)
#define PIXEL (NUM_BLOCKS * EP_VL + 2 * MARGIN)

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

EP_INLINE void pixels(const float *x, float *y, float *squares, const int count) {
    for (int64_t cb = 0; cb < NUM_BLOCKS; ++cb) {
        EP_UNROLL
        for (int t = 0; t < count; ++t) {
            const vf value = ep_load(x + cb * INPUT_STRIDE_C + t * INPUT_STRIDE_W);
            vf square = value * value;
            if (LANES_LAST < EP_VL && cb == NUM_BLOCKS - 1)
                square = ep_select(ep_first_lanes(LANES_LAST), square, ep_splat(0.0f));
            ep_store(squares + t * PIXEL + MARGIN + cb * EP_VL, square);
        }
    }
    for (int64_t cb = 0; cb < NUM_BLOCKS; ++cb) {
        EP_UNROLL
        for (int t = 0; t < count; ++t) {
            const float *p = squares + t * PIXEL + MARGIN + cb * EP_VL - BEFORE;
            vf sum = ep_load(p);
            for (int i = 1; i < SIZE; ++i) sum = sum + ep_load(p + i);
            const vf total = ep_fma(sum, ep_splat(ALPHA_OVER_SIZE), ep_splat(K));
            const vf value = ep_load(x + cb * INPUT_STRIDE_C + t * INPUT_STRIDE_W);
            ep_store(y + cb * OUTPUT_STRIDE_C + t * OUTPUT_STRIDE_W,
                     finished(normalised(value, total)));
        }
    }
}

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    float *squares = (float *)scratch;
    for (int64_t t = 0; t < TILE; ++t)
        for (int64_t i = 0; i < MARGIN; ++i)
            squares[t * PIXEL + i] = squares[t * PIXEL + PIXEL - MARGIN + i] = 0.0f;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t n = unit / ROW_GROUPS, first = unit % ROW_GROUPS * ROWS_PER_UNIT;
        const int64_t end = first + ROWS_PER_UNIT < HEIGHT ? first + ROWS_PER_UNIT : HEIGHT;
        for (int64_t h = first; h < end; ++h) {
            const float *x = (const float *)args[0] + n * (int64_t)INPUT_STRIDE_N +
                             h * (int64_t)INPUT_STRIDE_H;
            float *y = (float *)args[OUTPUT_ARG] + n * (int64_t)OUTPUT_STRIDE_N +
                       h * (int64_t)OUTPUT_STRIDE_H;
            int64_t w = 0;
            for (; w + TILE <= WIDTH; w += TILE)
                pixels(x + w * INPUT_STRIDE_W, y + w * OUTPUT_STRIDE_W, squares, TILE);
            if (WIDTH % TILE > 0)
                pixels(x + w * INPUT_STRIDE_W, y + w * OUTPUT_STRIDE_W, squares, WIDTH % TILE);
        }
    }
}
