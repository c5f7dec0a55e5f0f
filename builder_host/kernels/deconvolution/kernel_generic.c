// Deconvolution of any groups, strides, dilations and blocked layouts: one output vector at a time.
//
// The lanes of an output vector may belong to different groups: each lane gathers its own input
// channel. Weights: [output block][kernel row][kernel column][channel of the group][lane].
#include "ep_vector.h"

// parameters
#define KERNEL deconvolution_generic_default
#define CHANNELS_PER_GROUP 1
#define OUTPUTS_PER_GROUP 1
#define GROUPS 4
#define INPUT_H 7
#define INPUT_W 7
#define OUTPUT_H 14
#define OUTPUT_W 14
#define KERNEL_H 2
#define KERNEL_W 2
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 0
#define PAD_LEFT 0
#define DILATION_H 1
#define DILATION_W 1
#define INPUT_STRIDE_N (7 * 7 * EP_VL)
#define INPUT_STRIDE_C (7 * 7 * EP_VL)
#define INPUT_STRIDE_H (7 * EP_VL)
#define INPUT_STRIDE_W EP_VL
#define OUTPUT_STRIDE_N (14 * 14 * EP_VL)
#define OUTPUT_STRIDE_C (14 * 14 * EP_VL)
#define OUTPUT_STRIDE_H (14 * EP_VL)
#define OUTPUT_STRIDE_W EP_VL
#define OUTPUT_ARG 2
#define EPILOGUE_LOADS (void)0
#define EPILOGUE_EXPR x0
// end of parameters

#define OUTPUT_BLOCKS ((OUTPUTS_PER_GROUP * GROUPS + EP_VL - 1) / EP_VL)

// Sum of one tap over the channels of a group; `base[lane]` is where the lane's group starts.
EP_INLINE vf tap(const float *pixel, const int64_t *channels, const float *weights, vf sum) {
    for (int64_t ci = 0; ci < CHANNELS_PER_GROUP; ++ci) {
        vf x;
        if (GROUPS == 1) {
            x = ep_splat(pixel[ci / EP_VL * (int64_t)INPUT_STRIDE_C + ci % EP_VL]);
        } else {
            float lanes[EP_VL];
            for (int lane = 0; lane < EP_VL; ++lane) {
                const int64_t c = channels[lane] + ci;
                lanes[lane] = pixel[c / EP_VL * (int64_t)INPUT_STRIDE_C + c % EP_VL];
            }
            x = ep_load(lanes);
        }
        sum = ep_fma(x, ep_load(weights + ci * EP_VL), sum);
    }
    return sum;
}

EP_EXPORT void KERNEL(void *const *args, int64_t unit_begin, int64_t unit_end, void *scratch) {
    (void)scratch;
    for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
        const int64_t oh = unit % OUTPUT_H, cb = unit / OUTPUT_H % OUTPUT_BLOCKS;
        const int64_t n = unit / (OUTPUT_H * OUTPUT_BLOCKS);
        const float *input = (const float *)args[0] + n * (int64_t)INPUT_STRIDE_N;
        const float *weights = (const float *)args[1] +
                               cb * (int64_t)(KERNEL_H * KERNEL_W * CHANNELS_PER_GROUP * EP_VL);
        float *output = (float *)args[OUTPUT_ARG] + n * (int64_t)OUTPUT_STRIDE_N +
                        cb * (int64_t)OUTPUT_STRIDE_C + oh * (int64_t)OUTPUT_STRIDE_H;
        int64_t channels[EP_VL];
        for (int lane = 0; lane < EP_VL; ++lane) {
            const int64_t k = cb * EP_VL + lane, last = GROUPS * OUTPUTS_PER_GROUP - 1;
            channels[lane] = (k < last ? k : last) / OUTPUTS_PER_GROUP * CHANNELS_PER_GROUP;
        }
        for (int64_t ow = 0; ow < OUTPUT_W; ++ow) {
            vf x0 = ep_splat(0.0f);
            for (int64_t kh = 0; kh < KERNEL_H; ++kh) {
                const int64_t h = oh + PAD_TOP - kh * DILATION_H;
                if (h < 0 || h % STRIDE_H || h / STRIDE_H >= INPUT_H) continue;
                for (int64_t kw = 0; kw < KERNEL_W; ++kw) {
                    const int64_t w = ow + PAD_LEFT - kw * DILATION_W;
                    if (w < 0 || w % STRIDE_W || w / STRIDE_W >= INPUT_W) continue;
                    x0 = tap(input + h / STRIDE_H * INPUT_STRIDE_H + w / STRIDE_W * INPUT_STRIDE_W,
                             channels,
                             weights + (kh * KERNEL_W + kw) * (int64_t)(CHANNELS_PER_GROUP * EP_VL),
                             x0);
                }
            }
            EPILOGUE_LOADS;
            x0 = EPILOGUE_EXPR;
            ep_store(output + ow * OUTPUT_STRIDE_W, x0);
        }
    }
}
