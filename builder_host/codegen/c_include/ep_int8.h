/* 8-bit integers in generated CPU kernels: loads and stores, dot products into int32 lanes.
 *
 * For dot products define EP_DOT, one of the kinds below, and EP_DOT_SIGNED before it is included:
 * whether the activations are int8_t (1) or uint8_t (0). Weights are int8_t, -128 included. Every
 * kind gives the exact sum modulo 2^32, so that kinds, tiles and orders of addition give equal bits.
 */
#ifndef EP_INT8_H
#define EP_INT8_H

#include "ep_vector.h"

typedef int8_t ep_bytes __attribute__((vector_size(EP_VL)));
typedef uint8_t ep_ubytes __attribute__((vector_size(EP_VL)));
typedef int8_t ep_bytes_unaligned __attribute__((vector_size(EP_VL), aligned(1), may_alias));
typedef uint8_t ep_ubytes_unaligned __attribute__((vector_size(EP_VL), aligned(1), may_alias));

/* --- 8-bit vectors as floats ------------------------------------------------------------------ */

EP_INLINE vf ep_load_i8(const void *p) {
  return __builtin_convertvector(__builtin_convertvector(*(const ep_bytes_unaligned *)p, vi), vf);
}
EP_INLINE vf ep_load_u8(const void *p) {
  return __builtin_convertvector(__builtin_convertvector(*(const ep_ubytes_unaligned *)p, vi), vf);
}

/* Truncation to the low byte: the value itself for -128 .. 255; NaN gives 0. */
EP_INLINE ep_bytes ep_to_bytes(vf x) {
  return __builtin_convertvector(__builtin_convertvector(x, vi), ep_bytes);
}
EP_INLINE void ep_store_8(void *p, vf x) { *(ep_bytes_unaligned *)p = ep_to_bytes(x); }

/* The first n lanes; memory past them is not touched. */
EP_INLINE void ep_store_8_n(void *p, vf x, int64_t n) {
  const ep_bytes bytes = ep_to_bytes(x);
  if (n >= EP_VL) {
    *(ep_bytes_unaligned *)p = bytes;
    return;
  }
  for (int64_t i = 0; i < EP_VL; ++i)
    if (i < n) ((int8_t *)p)[i] = bytes[i];
}

/* --- dot products --------------------------------------------------------------------------- */

#define EP_DOT_WIDE 0 /* 16-bit products of either sign; any CPU */
#define EP_DOT_VNNI 1 /* vpdpbusd: unsigned activations */
#define EP_DOT_SDOT 2 /* sdot: signed activations */

#if defined(EP_DOT) && EP_DOT <= EP_DOT_SDOT

#if EP_DOT == EP_DOT_VNNI && !defined(EP_ISA_AVX512) && !defined(__AVXVNNI__)
#error "EP_DOT_VNNI needs AVX-512 or AVX-VNNI"
#elif EP_DOT == EP_DOT_VNNI && defined(EP_ISA_AVX512) && !defined(__AVX512VNNI__)
#error "EP_DOT_VNNI needs AVX512-VNNI"
#elif EP_DOT == EP_DOT_SDOT && !defined(__ARM_FEATURE_DOTPROD)
#error "EP_DOT_SDOT needs the dot product extension"
#endif

/* The instruction reads activations of the other sign: bytes x are read as x ^ 0x80, which is 128
 * more (signed x) or 128 less (unsigned x): each ep_dot is off by 128 times its sum of weights. */
#define EP_DOT_FLIPS \
  ((EP_DOT == EP_DOT_VNNI && EP_DOT_SIGNED) || (EP_DOT == EP_DOT_SDOT && !EP_DOT_SIGNED))

/* Bytes of packed weights for four channels of one vector of outputs. WIDE: 16-bit integers, on x86
 * [even channels, odd channels][output][2], on NEON [channel][output]; else bytes [output][4]. */
#define EP_DOT_BYTES ((EP_DOT == EP_DOT_WIDE ? 8 : 4) * EP_VL)

typedef int8_t ep_quads __attribute__((vector_size(4 * EP_VL)));
typedef uint8_t ep_uquads __attribute__((vector_size(4 * EP_VL)));
typedef int16_t ep_pairs __attribute__((vector_size(4 * EP_VL)));
typedef uint16_t ep_upairs __attribute__((vector_size(4 * EP_VL)));

#if EP_DOT != EP_DOT_WIDE
typedef struct {
  vi bytes;
} ep_dot_values, ep_dot_weights;
#elif defined(EP_ISA_NEON)
typedef int16_t ep_words __attribute__((vector_size(8)));
typedef struct {
  ep_words words;
} ep_dot_values;
typedef struct {
  ep_words words[4];
} ep_dot_weights;
#else
typedef struct {
  ep_pairs even, odd;
} ep_dot_values, ep_dot_weights;
#endif

typedef vi ep_dot_sum;

/* Four bytes of activations, for all lanes. p may have any alignment. */
EP_INLINE ep_dot_values ep_dot_load(const void *p) {
  ep_dot_values x;
#if EP_DOT == EP_DOT_WIDE && defined(EP_ISA_NEON)
#if EP_DOT_SIGNED
  typedef int8_t four __attribute__((vector_size(4), aligned(1), may_alias));
#else
  typedef uint8_t four __attribute__((vector_size(4), aligned(1), may_alias));
#endif
  x.words = __builtin_convertvector(*(const four *)p, ep_words);
#elif EP_DOT_FLIPS && defined(EP_ISA_AVX512)
  /* One instruction; compilers flip one element first and broadcast from a register. */
  __asm__("vpxord %1%{1to16%}, %2, %0"
          : "=v"(x.bytes)
          : "m"(*(const ep_vi_unaligned *)p), "v"(ep_splat_i(INT32_C(-0x7f7f7f80))));
#else
  int32_t four;
  memcpy(&four, p, 4);
  const vi all = ep_splat_i(four);
#if EP_DOT == EP_DOT_WIDE && EP_DOT_SIGNED
  x.even = ((ep_pairs)all << 8) >> 8;
  x.odd = (ep_pairs)all >> 8;
#elif EP_DOT == EP_DOT_WIDE
  x.even = (ep_pairs)(all & ep_splat_i(0x00ff00ff));
  x.odd = (ep_pairs)((ep_upairs)all >> 8);
#else
  x.bytes = EP_DOT_FLIPS ? all ^ ep_splat_i(INT32_C(-0x7f7f7f80)) : all;
#endif
#endif
  return x;
}

/* EP_DOT_BYTES of packed weights, aligned to 16 bytes. */
EP_INLINE ep_dot_weights ep_dot_load_weights(const void *p) {
  ep_dot_weights w;
#if EP_DOT != EP_DOT_WIDE
  w.bytes = ep_load_i((const int32_t *)p);
#elif defined(EP_ISA_NEON)
  EP_UNROLL
  for (int c = 0; c < 4; ++c) w.words[c] = ((const ep_words *)p)[c];
#else
  w.even = (ep_pairs)ep_load_i((const int32_t *)p);
  w.odd = (ep_pairs)ep_load_i((const int32_t *)p + EP_VL);
#endif
  return w;
}

#if EP_DOT == EP_DOT_WIDE && !defined(EP_ISA_NEON)
EP_INLINE vi ep_dot_pairs(ep_pairs a, ep_pairs b) {
#if defined(EP_ISA_AVX512) && defined(__clang__)
  return __builtin_ia32_pmaddwd512(a, b);
#elif defined(EP_ISA_AVX512)
  return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__clang__)
  return __builtin_ia32_pmaddwd256(a, b);
#else
  return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#endif
}
#endif

#if EP_DOT == EP_DOT_VNNI && defined(__clang__) && __clang_major__ >= 22
#define EP_DPBUSD_OPERANDS(x, w) (ep_uquads)(x), (ep_quads)(w)
#else
#define EP_DPBUSD_OPERANDS(x, w) x, w
#endif

/* sum + the four products of each lane, modulo 2^32. */
EP_INLINE vi ep_dot(vi sum, ep_dot_values x, ep_dot_weights w) {
#if EP_DOT == EP_DOT_VNNI && defined(EP_ISA_AVX512) && defined(__clang__)
  return __builtin_ia32_vpdpbusd512(sum, EP_DPBUSD_OPERANDS(x.bytes, w.bytes));
#elif EP_DOT == EP_DOT_VNNI && defined(EP_ISA_AVX512)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x.bytes, (__m512i)w.bytes);
#elif EP_DOT == EP_DOT_VNNI && defined(__clang__)
  return __builtin_ia32_vpdpbusd256(sum, EP_DPBUSD_OPERANDS(x.bytes, w.bytes));
#elif EP_DOT == EP_DOT_VNNI
  return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x.bytes, (__m256i)w.bytes);
#elif EP_DOT == EP_DOT_SDOT && defined(__clang__)
  return __builtin_neon_vdotq_s32((ep_quads)sum, (ep_quads)x.bytes, (ep_quads)w.bytes, 34);
#elif EP_DOT == EP_DOT_SDOT
  return (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)x.bytes, (int8x16_t)w.bytes);
#elif defined(EP_ISA_NEON)
  EP_UNROLL
  for (int c = 0; c < 4; ++c) {
    const int16_t one = x.words[c];
    const ep_words all = {one, one, one, one};
    sum = (vi)((vu)sum + (vu)(__builtin_convertvector(all, vi) *
                              __builtin_convertvector(w.words[c], vi)));
  }
  return sum;
#else
  /* Compilers would join products of several steps before they reach the sum, and run out of
   * registers; what passes through an empty statement is not reordered. */
  sum = (vi)((vu)sum + (vu)ep_dot_pairs(x.even, w.even));
  __asm__("" : "+v"(sum));
  sum = (vi)((vu)sum + (vu)ep_dot_pairs(x.odd, w.odd));
  __asm__("" : "+v"(sum));
  return sum;
#endif
}

EP_INLINE vi ep_dot_zero(void) { return ep_splat_i(0); }
EP_INLINE vf ep_dot_result(vi sum) { return __builtin_convertvector(sum, vf); }

/* a + b modulo 2^32. */
EP_INLINE vi ep_add_i(vi a, vi b) { return (vi)((vu)a + (vu)b); }

#endif /* EP_DOT <= EP_DOT_SDOT */

#endif
