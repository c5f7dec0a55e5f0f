/* bfloat16 in generated CPU kernels: loads and stores as floats, dot products of pairs.
 *
 * With EP_DOT defined as EP_DOT_BF16 the ep_dot functions of ep_int8.h exist for pairs of bfloat16:
 * each lane of a sum is float32, products are added two at a time. The instruction rounds to nearest
 * even and takes denormal operands and results as zero.
 */
#ifndef EP_BF16_H
#define EP_BF16_H

#include "ep_vector.h"

typedef uint16_t ep_halves __attribute__((vector_size(2 * EP_VL)));
typedef uint16_t ep_halves_unaligned
    __attribute__((vector_size(2 * EP_VL), aligned(2), may_alias));

EP_INLINE vf ep_load_bf16(const void *p) {
  return (vf)(__builtin_convertvector(*(const ep_halves_unaligned *)p, vu) << 16);
}

/* As ep_to_bf16: nearest even, NaN stays NaN. */
EP_INLINE ep_halves ep_to_halves(vf x) {
  const vu i = (vu)x;
  const vu rounded = i + 0x7fffu + ((i >> 16) & 1u);
  const vu mask = (vu)(x == x);
  return __builtin_convertvector(((rounded & mask) | ((i | 0x400000u) & ~mask)) >> 16, ep_halves);
}
EP_INLINE void ep_store_bf16(void *p, vf x) { *(ep_halves_unaligned *)p = ep_to_halves(x); }

/* The first n lanes; memory past them is not touched. */
EP_INLINE void ep_store_bf16_n(void *p, vf x, int64_t n) {
  const ep_halves halves = ep_to_halves(x);
  for (int64_t i = 0; i < EP_VL; ++i)
    if (i < n) ((uint16_t *)p)[i] = halves[i];
}

#define EP_DOT_BF16 3

#if defined(EP_DOT) && EP_DOT == EP_DOT_BF16
#if !defined(EP_ISA_AVX512) || !defined(__AVX512BF16__)
#error "EP_DOT_BF16 needs AVX512-BF16"
#endif

#define EP_DOT_FLIPS 0
#define EP_DOT_BYTES (4 * EP_VL) /* of weights for two channels of one vector of outputs: [output][2] */

typedef vf ep_dot_sum;
typedef struct {
  vi pairs;
} ep_dot_values, ep_dot_weights;

/* Two activations, for all lanes. */
EP_INLINE ep_dot_values ep_dot_load(const void *p) {
  int32_t two;
  memcpy(&two, p, 4);
  return (ep_dot_values){ep_splat_i(two)};
}
/* The same, the second one as zero. */
EP_INLINE ep_dot_values ep_dot_load_first(const void *p) {
  uint16_t one;
  memcpy(&one, p, 2);
  return (ep_dot_values){ep_splat_i(one)};
}
EP_INLINE ep_dot_weights ep_dot_load_weights(const void *p) {
  return (ep_dot_weights){ep_load_i((const int32_t *)p)};
}
EP_INLINE vf ep_dot(vf sum, ep_dot_values x, ep_dot_weights w) {
#if defined(__clang__)
  typedef __bf16 elements __attribute__((vector_size(64)));
  return __builtin_ia32_dpbf16ps_512(sum, (elements)x.pairs, (elements)w.pairs);
#else
  return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x.pairs, (__m512bh)w.pairs);
#endif
}
EP_INLINE vf ep_dot_zero(void) { return ep_splat(0.0f); }
EP_INLINE vf ep_dot_result(vf sum) { return sum; }
#endif /* EP_DOT_BF16 */

#endif
