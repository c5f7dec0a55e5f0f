/* Vectors of float for generated CPU kernels: one type for AVX-512, AVX2 and NEON.
 *
 * Compile with one of -DEP_ISA_AVX512, -DEP_ISA_AVX2, -DEP_ISA_NEON, and with -ffp-contract=off.
 * Vector functions have no suffix or _v, their scalar twins have _s; the twins give equal bits.
 * Clang needs no intrinsics header (parsing it costs 0.35 s per file); gcc includes its own.
 */
#ifndef EP_VECTOR_H
#define EP_VECTOR_H

#include <stddef.h>
#include <stdint.h>

/* Kernels are freestanding but for these two, which compilers also call on their own. */
void *memcpy(void *__restrict__ to, const void *__restrict__ from, size_t num_bytes);
void *memset(void *to, int byte, size_t num_bytes);

#if defined(EP_ISA_AVX512)
#define EP_VL 16
#elif defined(EP_ISA_AVX2)
#define EP_VL 8
#elif defined(EP_ISA_NEON)
#define EP_VL 4
#else
#error "define EP_ISA_AVX512, EP_ISA_AVX2 or EP_ISA_NEON"
#endif

#if !defined(__clang__)
#if defined(EP_ISA_NEON)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif
#endif

#define EP_EXPORT __attribute__((visibility("default")))
#define EP_INLINE static inline __attribute__((always_inline, unused))
#define EP_NOINLINE static __attribute__((noinline, unused))
#define EP_RESTRICT __restrict__
#define EP_ALIGN64 __attribute__((aligned(64)))
#define EP_LIKELY(x) __builtin_expect(!!(x), 1)
#define EP_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* EP_UNROLL: unroll the next loop fully. EP_NO_UNROLL: keep it a loop. EP_VECTORIZE: no lane of the
 * next loop depends on another one; clang must not unroll it first, or lanes of a short loop are
 * joined across iterations of the loop around it, with gathers. EP_LANES_LOOP: the same for few
 * lanes with accumulators, which live in registers only when the loop is unrolled. */
#if defined(__clang__)
#define EP_UNROLL _Pragma("clang loop unroll(full)")
#define EP_NO_UNROLL _Pragma("clang loop unroll(disable)")
#define EP_LANES_LOOP _Pragma("clang loop vectorize(assume_safety)")
#define EP_VECTORIZE _Pragma("clang loop vectorize(assume_safety) unroll(disable)")
#else
#define EP_UNROLL _Pragma("GCC unroll 1024")
#define EP_NO_UNROLL _Pragma("GCC unroll 1")
#define EP_VECTORIZE _Pragma("GCC ivdep")
#define EP_LANES_LOOP _Pragma("GCC ivdep")
#endif

typedef float vf __attribute__((vector_size(4 * EP_VL)));
typedef int32_t vi __attribute__((vector_size(4 * EP_VL)));
typedef uint32_t vu __attribute__((vector_size(4 * EP_VL)));
typedef double vd __attribute__((vector_size(8 * EP_VL)));
typedef uint64_t vdu __attribute__((vector_size(8 * EP_VL)));
typedef float ep_vf_unaligned __attribute__((vector_size(4 * EP_VL), aligned(4), may_alias));
typedef int32_t ep_vi_unaligned __attribute__((vector_size(4 * EP_VL), aligned(4), may_alias));

/* --- memory ------------------------------------------------------------------------------- */

EP_INLINE vf ep_load(const float *p) { return *(const ep_vf_unaligned *)p; }
EP_INLINE void ep_store(float *p, vf x) { *(ep_vf_unaligned *)p = x; }
EP_INLINE vi ep_load_i(const int32_t *p) { return *(const ep_vi_unaligned *)p; }
EP_INLINE void ep_store_i(int32_t *p, vi x) { *(ep_vi_unaligned *)p = x; }
EP_INLINE void ep_prefetch(const void *p) { __builtin_prefetch(p, 0, 3); }

#if EP_VL == 16
#define EP_LANES(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#define EP_LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif EP_VL == 8
#define EP_LANES(x) {x, x, x, x, x, x, x, x}
#define EP_LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define EP_LANES(x) {x, x, x, x}
#define EP_LANE_NUMBERS {0, 1, 2, 3}
#endif

EP_INLINE vf ep_splat(float x) { return (vf)EP_LANES(x); }
EP_INLINE vi ep_splat_i(int32_t x) { return (vi)EP_LANES(x); }

/* All ones in the first n lanes; n may be anything. */
EP_INLINE vi ep_first_lanes(int64_t n) {
  const vi lanes = (vi)EP_LANE_NUMBERS;
  return lanes < ep_splat_i((int32_t)(n < 0 ? 0 : n > EP_VL ? EP_VL : n));
}

/* First n lanes from memory, the others 0; memory past them is not touched. */
EP_INLINE vf ep_load_n(const float *p, int64_t n) {
#if defined(EP_ISA_AVX512) && defined(__clang__)
  return __builtin_ia32_loadups512_mask(p, (vf){0}, (uint16_t)(n >= 16 ? 0xffff : (1u << n) - 1));
#elif defined(EP_ISA_AVX512)
  return (vf)_mm512_maskz_loadu_ps((uint16_t)(n >= 16 ? 0xffff : (1u << n) - 1), p);
#elif defined(EP_ISA_AVX2) && defined(__clang__)
  return __builtin_ia32_maskloadps256((const vf *)p, ep_first_lanes(n));
#elif defined(EP_ISA_AVX2)
  return (vf)_mm256_maskload_ps(p, (__m256i)ep_first_lanes(n));
#else
  vf x = {0};
  if (n >= EP_VL) return ep_load(p);
  for (int64_t i = 0; i < EP_VL; ++i)
    if (i < n) x[i] = p[i];
  return x;
#endif
}

/* First n lanes to memory; memory past them is not touched. */
EP_INLINE void ep_store_n(float *p, vf x, int64_t n) {
#if defined(EP_ISA_AVX512) && defined(__clang__)
  __builtin_ia32_storeups512_mask(p, x, (uint16_t)(n >= 16 ? 0xffff : (1u << n) - 1));
#elif defined(EP_ISA_AVX512)
  _mm512_mask_storeu_ps(p, (uint16_t)(n >= 16 ? 0xffff : (1u << n) - 1), (__m512)x);
#elif defined(EP_ISA_AVX2) && defined(__clang__)
  __builtin_ia32_maskstoreps256((vf *)p, ep_first_lanes(n), x);
#elif defined(EP_ISA_AVX2)
  _mm256_maskstore_ps(p, (__m256i)ep_first_lanes(n), (__m256)x);
#else
  if (n >= EP_VL) {
    ep_store(p, x);
    return;
  }
  for (int64_t i = 0; i < EP_VL; ++i)
    if (i < n) p[i] = x[i];
#endif
}

/* --- integers ---------------------------------------------------------------------------- */

/* Division that rounds down and its remainder, for a divisor above 0. */
EP_INLINE int64_t ep_index_div(int64_t a, int64_t b) { return (a - (a < 0 ? b - 1 : 0)) / b; }
EP_INLINE int64_t ep_index_mod(int64_t a, int64_t b) {
  const int64_t r = a % b;
  return r < 0 ? r + b : r;
}
EP_INLINE int64_t ep_index_min(int64_t a, int64_t b) { return a < b ? a : b; }

/* Truncation; NaN gives 0 and what does not fit the nearest integer that does. */
EP_INLINE int64_t ep_to_i64(double x) {
  const double low = x < -9223372036854775808.0 ? -9223372036854775808.0 : x;
  return x != x ? 0 : low >= 9223372036854775808.0 ? INT64_MAX : (int64_t)low;
}
/* The same for int32, through 64 bits: what does not fit wraps. */
EP_INLINE int32_t ep_to_i32(float x) {
  return (int32_t)(uint64_t)ep_to_i64((double)x);
}
/* Truncation of a value inside int32, one instruction in vectors; NaN gives 0. */
EP_INLINE int32_t ep_to_i32_inside(float x) { return x == x ? (int32_t)x : 0; }
/* Division of integers that rounds down, and remainders; a zero divisor gives 0. */
EP_INLINE int64_t ep_floor_div_i(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return b == 0 ? 0 : (int64_t)(0u - (uint64_t)a);
  return a / b - ((a % b != 0) & ((a < 0) ^ (b < 0)));
}
EP_INLINE int64_t ep_fmod_i(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
EP_INLINE int64_t ep_mod_i(int64_t a, int64_t b) {
  const int64_t r = ep_fmod_i(a, b);
  return r != 0 && ((r < 0) ^ (b < 0)) ? r + b : r;
}

/* bfloat16 in the upper half of a float; rounding to nearest even, NaN stays NaN. */
EP_INLINE float ep_from_bf16(uint16_t h) {
  const uint32_t i = (uint32_t)h << 16;
  float x;
  memcpy(&x, &i, 4);
  return x;
}
EP_INLINE uint16_t ep_to_bf16(float x) {
  uint32_t i;
  memcpy(&i, &x, 4);
  const uint32_t rounded = (i + 0x7fffu + ((i >> 16) & 1u)) >> 16;
  return (uint16_t)(x != x ? (i >> 16) | 0x40u : rounded);
}

/* --- masks: lanes of all ones or all zeros; a scalar mask is -1 or 0 ------------------------- */

EP_INLINE vi ep_bits_v(vf x) { return (vi)x; }
EP_INLINE vf ep_from_bits_v(vi x) { return (vf)x; }
EP_INLINE int32_t ep_bits_s(float x) {
  int32_t i;
  memcpy(&i, &x, 4);
  return i;
}
EP_INLINE float ep_from_bits_s(int32_t i) {
  float x;
  memcpy(&x, &i, 4);
  return x;
}
EP_INLINE vf ep_select(vi mask, vf a, vf b) {
#if defined(__clang__) || !defined(EP_ISA_AVX2)
  return (vf)((mask & (vi)a) | (~mask & (vi)b)); /* compilers see a blend in this */
#else
  return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#endif
}
EP_INLINE float ep_select_s(int32_t mask, float a, float b) { return mask ? a : b; }
EP_INLINE vf ep_mask_to_float(vi mask) { return (vf)(mask & (vi)ep_splat(1.0f)); }
EP_INLINE float ep_mask_to_float_s(int32_t mask) { return mask ? 1.0f : 0.0f; }

/* --- arithmetic -------------------------------------------------------------------------- */

/* a * b + c with one rounding. */
EP_INLINE vf ep_fma(vf a, vf b, vf c) {
#if defined(__clang__)
  return __builtin_elementwise_fma(a, b, c);
#elif defined(EP_ISA_AVX512)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(EP_ISA_AVX2)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}
EP_INLINE float ep_fma_s(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

/* One instruction. A NaN in x gives NaN; c must not be NaN. */
EP_INLINE vf ep_max_const_first(vf c, vf x) {
#if defined(EP_ISA_NEON) && defined(__clang__)
  return __builtin_elementwise_maximum(c, x);
#elif defined(EP_ISA_NEON)
  return (vf)vmaxq_f32((float32x4_t)c, (float32x4_t)x);
#elif defined(__clang__)
  return ep_select(c > x, c, x); /* vmaxps */
#elif defined(EP_ISA_AVX512)
  return (vf)_mm512_max_ps((__m512)c, (__m512)x);
#else
  return (vf)_mm256_max_ps((__m256)c, (__m256)x);
#endif
}
EP_INLINE vf ep_min_const_first(vf c, vf x) {
#if defined(EP_ISA_NEON) && defined(__clang__)
  return __builtin_elementwise_minimum(c, x);
#elif defined(EP_ISA_NEON)
  return (vf)vminq_f32((float32x4_t)c, (float32x4_t)x);
#elif defined(__clang__)
  return ep_select(c < x, c, x); /* vminps */
#elif defined(EP_ISA_AVX512)
  return (vf)_mm512_min_ps((__m512)c, (__m512)x);
#else
  return (vf)_mm256_min_ps((__m256)c, (__m256)x);
#endif
}
EP_INLINE float ep_max_const_first_s(float c, float x) { return c > x ? c : x; }
EP_INLINE float ep_min_const_first_s(float c, float x) { return c < x ? c : x; }

/* A NaN in either operand gives NaN. */
EP_INLINE vf ep_max(vf a, vf b) {
#if defined(EP_ISA_NEON)
  return ep_max_const_first(a, b);
#else
  return ep_select(a == a, ep_max_const_first(a, b), a);
#endif
}
EP_INLINE vf ep_min(vf a, vf b) {
#if defined(EP_ISA_NEON)
  return ep_min_const_first(a, b);
#else
  return ep_select(a == a, ep_min_const_first(a, b), a);
#endif
}
EP_INLINE float ep_max_s(float a, float b) { return a != a ? a : a > b ? a : b; }
EP_INLINE float ep_min_s(float a, float b) { return a != a ? a : a < b ? a : b; }

EP_INLINE vf ep_abs_v(vf x) { return (vf)((vi)x & ep_splat_i(0x7fffffff)); }
EP_INLINE float ep_abs_s(float x) { return __builtin_fabsf(x); }
EP_INLINE vf ep_copysign_v(vf magnitude, vf sign) {
  return (vf)(((vi)magnitude & ep_splat_i(0x7fffffff)) | ((vi)sign & ep_splat_i(INT32_MIN)));
}
EP_INLINE float ep_copysign_s(float magnitude, float sign) {
  return __builtin_copysignf(magnitude, sign);
}

#if defined(__clang__)
#define EP_ROUNDING(name, builtin, zmm, ymm, q) \
  EP_INLINE vf ep_##name##_v(vf x) { return __builtin_elementwise_##builtin(x); }
#elif defined(EP_ISA_AVX512)
#define EP_ROUNDING(name, builtin, zmm, ymm, q) \
  EP_INLINE vf ep_##name##_v(vf x) { return (vf)zmm; }
#elif defined(EP_ISA_AVX2)
#define EP_ROUNDING(name, builtin, zmm, ymm, q) \
  EP_INLINE vf ep_##name##_v(vf x) { return (vf)ymm; }
#else
#define EP_ROUNDING(name, builtin, zmm, ymm, q) \
  EP_INLINE vf ep_##name##_v(vf x) { return (vf)q; }
#endif
EP_ROUNDING(floor, floor, _mm512_roundscale_ps((__m512)x, 9), _mm256_round_ps((__m256)x, 9),
            vrndmq_f32((float32x4_t)x))
EP_ROUNDING(ceil, ceil, _mm512_roundscale_ps((__m512)x, 10), _mm256_round_ps((__m256)x, 10),
            vrndpq_f32((float32x4_t)x))
EP_ROUNDING(trunc, trunc, _mm512_roundscale_ps((__m512)x, 11), _mm256_round_ps((__m256)x, 11),
            vrndq_f32((float32x4_t)x))
EP_ROUNDING(round, roundeven, _mm512_roundscale_ps((__m512)x, 8), _mm256_round_ps((__m256)x, 8),
            vrndnq_f32((float32x4_t)x))
EP_ROUNDING(sqrt, sqrt, _mm512_sqrt_ps((__m512)x), _mm256_sqrt_ps((__m256)x),
            vsqrtq_f32((float32x4_t)x))
EP_INLINE float ep_floor_s(float x) { return __builtin_floorf(x); }
EP_INLINE float ep_ceil_s(float x) { return __builtin_ceilf(x); }
EP_INLINE float ep_trunc_s(float x) { return __builtin_truncf(x); }
EP_INLINE float ep_round_s(float x) { return __builtin_roundevenf(x); }
EP_INLINE float ep_sqrt_s(float x) { return __builtin_sqrtf(x); }

/* --- across lanes: halves are joined, so the order of additions is fixed ---------------------- */

typedef float ep_vf2 __attribute__((vector_size(8)));
typedef float ep_vf4 __attribute__((vector_size(16)));
typedef float ep_vf8 __attribute__((vector_size(32)));

#define EP_HALVES_4(v, op) \
  const ep_vf2 l2 = __builtin_shufflevector(v, v, 0, 1), h2 = __builtin_shufflevector(v, v, 2, 3); \
  return op(op(l2[0], h2[0]), op(l2[1], h2[1]));
#define EP_ADD_S(a, b) ((a) + (b))
EP_INLINE float ep_sum4(ep_vf4 v) { EP_HALVES_4(v, EP_ADD_S) }
EP_INLINE float ep_sum(vf x) {
#if EP_VL == 16
  const ep_vf8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
                   __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  return ep_sum4(__builtin_shufflevector(a, a, 0, 1, 2, 3) +
                 __builtin_shufflevector(a, a, 4, 5, 6, 7));
#elif EP_VL == 8
  return ep_sum4(__builtin_shufflevector(x, x, 0, 1, 2, 3) +
                 __builtin_shufflevector(x, x, 4, 5, 6, 7));
#else
  return ep_sum4(x);
#endif
}
/* target[r][c] = source[c][r] for r, c < EP_VL; strides between rows in elements. */
EP_INLINE vf ep_zip_low(vf a, vf b) {
#if EP_VL == 16
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif EP_VL == 8
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
EP_INLINE vf ep_zip_high(vf a, vf b) {
#if EP_VL == 16
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif EP_VL == 8
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}
EP_INLINE void ep_copy_tile(float *EP_RESTRICT target, int64_t target_stride,
                            const float *EP_RESTRICT source, int64_t source_stride) {
  vf row[EP_VL], next[EP_VL];
  EP_UNROLL
  for (int i = 0; i < EP_VL; ++i) row[i] = ep_load(source + i * source_stride);
  EP_UNROLL
  for (int round = 1; round < EP_VL; round *= 2) {
    EP_UNROLL
    for (int i = 0; i < EP_VL / 2; ++i) {
      next[2 * i] = ep_zip_low(row[i], row[i + EP_VL / 2]);
      next[2 * i + 1] = ep_zip_high(row[i], row[i + EP_VL / 2]);
    }
    EP_UNROLL
    for (int i = 0; i < EP_VL; ++i) row[i] = next[i];
  }
  EP_UNROLL
  for (int i = 0; i < EP_VL; ++i) ep_store(target + i * target_stride, row[i]);
}
EP_INLINE float ep_lanes_max(vf x) {
  float m = x[0];
  for (int i = 1; i < EP_VL; ++i) m = ep_max_s(m, x[i]);
  return m;
}
EP_INLINE float ep_lanes_min(vf x) {
  float m = x[0];
  for (int i = 1; i < EP_VL; ++i) m = ep_min_s(m, x[i]);
  return m;
}

/* --- elementwise math: one text, compiled for vectors and for scalars ------------------------- */

#define EP_F(name) name##_v
#define EP_T vf
#define EP_I vi
#define EP_U vu
#define EP_D vd
#define EP_DU vdu
#define EP_C(c) ep_splat(c)
#define EP_MASK(comparison) (comparison)
#define EP_SELECT(m, a, b) ep_select(m, a, b)
#define EP_FMA(a, b, c) ep_fma(a, b, c)
#define EP_MAX_C(c, x) ep_max_const_first(ep_splat(c), x)
#define EP_MIN_C(c, x) ep_min_const_first(ep_splat(c), x)
#define EP_TO_DOUBLE(x) __builtin_convertvector(x, vd)
#define EP_TO_FLOAT(x) __builtin_convertvector(x, vf)
#define EP_DOUBLE_BITS(x) ((vdu)(x))
#define EP_DOUBLE_OF_BITS(x) ((vd)(x))
#include "ep_math.h"
#undef EP_F
#undef EP_T
#undef EP_I
#undef EP_U
#undef EP_D
#undef EP_DU
#undef EP_C
#undef EP_MASK
#undef EP_SELECT
#undef EP_FMA
#undef EP_MAX_C
#undef EP_MIN_C
#undef EP_TO_DOUBLE
#undef EP_TO_FLOAT
#undef EP_DOUBLE_BITS
#undef EP_DOUBLE_OF_BITS

EP_INLINE uint64_t ep_double_bits(double x) {
  uint64_t i;
  memcpy(&i, &x, 8);
  return i;
}
EP_INLINE double ep_double_of_bits(uint64_t i) {
  double x;
  memcpy(&x, &i, 8);
  return x;
}
#define EP_F(name) name##_s
#define EP_T float
#define EP_I int32_t
#define EP_U uint32_t
#define EP_D double
#define EP_DU uint64_t
#define EP_C(c) (c)
#define EP_MASK(comparison) (-(int32_t)(comparison))
#define EP_SELECT(m, a, b) ep_select_s(m, a, b)
#define EP_FMA(a, b, c) ep_fma_s(a, b, c)
#define EP_MAX_C(c, x) ep_max_const_first_s(c, x)
#define EP_MIN_C(c, x) ep_min_const_first_s(c, x)
#define EP_TO_DOUBLE(x) ((double)(x))
#define EP_TO_FLOAT(x) ((float)(x))
#define EP_DOUBLE_BITS(x) ep_double_bits(x)
#define EP_DOUBLE_OF_BITS(x) ep_double_of_bits(x)
#include "ep_math.h"
#undef EP_F
#undef EP_T
#undef EP_I
#undef EP_U
#undef EP_D
#undef EP_DU
#undef EP_C
#undef EP_MASK
#undef EP_SELECT
#undef EP_FMA
#undef EP_MAX_C
#undef EP_MIN_C
#undef EP_TO_DOUBLE
#undef EP_TO_FLOAT
#undef EP_DOUBLE_BITS
#undef EP_DOUBLE_OF_BITS

#endif
