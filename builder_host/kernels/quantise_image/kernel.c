// Planes of up to four channels -> blocked 8-bit pixels: a vector of pixels of each plane goes through
// the expression, the bytes of one pixel are joined into one 32-bit lane, and lanes are spread over
// the pixels' blocks. Lanes past the last channel become zero.
#include "ep_vector.h"

// parameters
#define SYMBOL quantise_image_default
#define CHANNELS 3
#define PIXELS 50176          // of one image
#define PIXELS_PER_UNIT 6272
#define X_TYPE float          // with LOAD_X: float, int8_t or uint8_t
#define LOAD_X ep_load
#define X_N 150528            // strides in elements
#define X_C 50176
#define Y_N 802816            // stride in bytes; pixels follow each other
#define NUM_CONSTANTS 0       // per channel, x1 ..
#define CONSTANT_LOADS (void)0
#define EXPRESSION x0
// end of parameters

#include "ep_int8.h"

#define CHUNKS ((PIXELS + PIXELS_PER_UNIT - 1) / PIXELS_PER_UNIT)

// The channels of EP_VL pixels as bytes, one pixel per lane.
EP_INLINE vi quads_of(const X_TYPE *x, const int64_t stride, void *const *constants)
{
    vi quads = ep_splat_i(0);
    EP_UNROLL
    for (int c = 0; c < CHANNELS; ++c) {
        const vf x0 = LOAD_X(x + c * stride);
        CONSTANT_LOADS;
        const vi value = __builtin_convertvector(EXPRESSION, vi) & ep_splat_i(0xff);
        quads |= (vi)((vu)value << (8 * c));
    }
    (void)constants;
    return quads;
}

// Four pixels from lane `first` on, each with the zero lanes of its block.
EP_INLINE vi spread(vi q, const int first)
{
    const vi z = ep_splat_i(0);
#if EP_VL == 16
#define SPREAD(a, b, c, d) \
    __builtin_shufflevector(q, z, a, 16, 16, 16, b, 16, 16, 16, c, 16, 16, 16, d, 16, 16, 16)
    return first == 0   ? SPREAD(0, 1, 2, 3)
           : first == 4 ? SPREAD(4, 5, 6, 7)
           : first == 8 ? SPREAD(8, 9, 10, 11)
                        : SPREAD(12, 13, 14, 15);
#elif EP_VL == 8
#define SPREAD(a, b, c, d) __builtin_shufflevector(q, z, a, 8, b, 8, c, 8, d, 8)
    return first == 0 ? SPREAD(0, 1, 2, 3) : SPREAD(4, 5, 6, 7);
#else
    (void)first, (void)z;
    return q;
#endif
}

EP_INLINE void store(uint8_t *y, vi quads)
{
    EP_UNROLL
    for (int first = 0; first < EP_VL; first += 4)
        ep_store_i((int32_t *)(y + first * EP_VL), spread(quads, first));
}

// args: x, constants, y. A unit is a run of pixels of one image.
EP_EXPORT void SYMBOL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch)
{
    (void)scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t n = unit / CHUNKS, begin = unit % CHUNKS * PIXELS_PER_UNIT;
        const int64_t end = begin + PIXELS_PER_UNIT < PIXELS ? begin + PIXELS_PER_UNIT : PIXELS;
        const X_TYPE *x = (const X_TYPE *)args[0] + n * X_N;
        uint8_t *y = (uint8_t *)args[1 + NUM_CONSTANTS] + n * Y_N;
        int64_t i = begin;
        for (; i + EP_VL <= end; i += EP_VL)
            store(y + i * EP_VL, quads_of(x + i, X_C, args + 1));
        if (i < end) { // the last pixels pass through a buffer, which is as large as a whole vector
            X_TYPE planes[CHANNELS * EP_VL];
            uint8_t blocks[EP_VL * EP_VL];
            memset(planes, 0, sizeof planes);
            for (int64_t c = 0; c < CHANNELS; ++c)
                for (int64_t p = 0; p < end - i; ++p) planes[c * EP_VL + p] = x[c * X_C + i + p];
            store(blocks, quads_of(planes, EP_VL, args + 1));
            memcpy(y + i * EP_VL, blocks, (size_t)(end - i) * EP_VL);
        }
    }
}
