/* Math of generated CUDA kernels: plain C++ over the device's math functions, no assembly.
 *
 * Included by ep_cuda.cuh and by the CPU stand-in of the tests, after both have defined EP_DEVICE,
 * EP_UNROLL and ep_i64 ..., `half` with __half2float and __float2half_rn, and uint4.
 * Errors are those of the CUDA math library without fast math: expf 1 ulp, logf 1, tanhf 2, erff 2,
 * powf 4, sinf and cosf 2, tanf 4 (CUDA C++ Programming Guide, "Mathematical Functions").
 */
#ifndef EP_CUDA_MATH_CUH
#define EP_CUDA_MATH_CUH

#define EP_INFINITY __int_as_float(0x7f800000)
#define EP_NAN __int_as_float(0x7fc00000)

/* The larger (smaller) of two; a NaN operand gives NaN. */
EP_DEVICE float ep_max(float a, float b) { return (a > b || a != a) ? a : b; }
EP_DEVICE float ep_min(float a, float b) { return (a < b || a != a) ? a : b; }
/* The same where the first is no NaN. */
EP_DEVICE float ep_max_const_first(float c, float x) { return c > x ? c : x; }
EP_DEVICE float ep_min_const_first(float c, float x) { return c < x ? c : x; }

EP_DEVICE float ep_abs_s(float x) { return fabsf(x); }
EP_DEVICE float ep_exp_s(float x) { return expf(x); }
EP_DEVICE float ep_expm1_s(float x) { return expm1f(x); }
EP_DEVICE float ep_log_s(float x) { return logf(x); }
EP_DEVICE float ep_sqrt_s(float x) { return sqrtf(x); }
EP_DEVICE float ep_rsqrt_s(float x) { return rsqrtf(x); }
EP_DEVICE float ep_recip_s(float x) { return 1.0f / x; }
EP_DEVICE float ep_sin_s(float x) { return sinf(x); }
EP_DEVICE float ep_cos_s(float x) { return cosf(x); }
EP_DEVICE float ep_tan_s(float x) { return tanf(x); }
EP_DEVICE float ep_sinh_s(float x) { return sinhf(x); }
EP_DEVICE float ep_cosh_s(float x) { return coshf(x); }
EP_DEVICE float ep_tanh_s(float x) { return tanhf(x); }
EP_DEVICE float ep_asin_s(float x) { return asinf(x); }
EP_DEVICE float ep_acos_s(float x) { return acosf(x); }
EP_DEVICE float ep_atan_s(float x) { return atanf(x); }
EP_DEVICE float ep_asinh_s(float x) { return asinhf(x); }
EP_DEVICE float ep_acosh_s(float x) { return acoshf(x); }
EP_DEVICE float ep_atanh_s(float x) { return atanhf(x); }
EP_DEVICE float ep_erf_s(float x) { return erff(x); }
EP_DEVICE float ep_pow_s(float x, float y) { return powf(x, y); }
EP_DEVICE float ep_floor_s(float x) { return floorf(x); }
EP_DEVICE float ep_ceil_s(float x) { return ceilf(x); }
EP_DEVICE float ep_round_s(float x) { return rintf(x); } /* half to even */
EP_DEVICE float ep_trunc_s(float x) { return truncf(x); }
EP_DEVICE float ep_sign_s(float x) { return x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : x); }
EP_DEVICE bool ep_isnan_s(float x) { return x != x; }
EP_DEVICE bool ep_isinf_s(float x) { return fabsf(x) == EP_INFINITY; }

/* 1 / (1 + e^-x) and ln(1 + e^x), without overflow. */
EP_DEVICE float ep_sigmoid_s(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
/* The same, and tanh, by fast functions: absolute error below 2^-19 where |x| < 16, which is far
 * under the grain of float16; the limits at both ends are exact. */
EP_DEVICE float ep_sigmoid_fast(float x) {
  return ep_reciprocal_fast(1.0f + ep_exp2_fast(x * -1.44269504f));
}
EP_DEVICE float ep_tanh_fast(float x) {
  return 1.0f - 2.0f * ep_reciprocal_fast(1.0f + ep_exp2_fast(x * 2.88539008f));
}
EP_DEVICE float ep_softplus_s(float x) {
  return ep_max_const_first(0.0f, x) + log1pf(expf(-fabsf(x)));
}

/* Quotient rounded down; remainders with the sign of the dividend, and of the divisor. */
EP_DEVICE float ep_fmod_s(float a, float b) { return fmodf(a, b); }
EP_DEVICE float ep_mod_s(float a, float b) {
  const float r = fmodf(a, b);
  return (r != 0.0f && (r < 0.0f) != (b < 0.0f)) ? r + b : r;
}
EP_DEVICE float ep_floor_div_s(float a, float b) {
  const float q = floorf(static_cast<float>(static_cast<double>(a) / static_cast<double>(b)));
  const double rest = static_cast<double>(a) - static_cast<double>(q) * static_cast<double>(b);
  const bool is_high = (rest < 0.0 && b > 0.0f) || (rest > 0.0 && b < 0.0f);
  return is_high ? q - 1.0f : q;
}

/* --- integers and conversions ------------------------------------------------------------------- */

/* Truncates; out of range gives the nearest end, NaN gives 0. */
EP_DEVICE ep_i64 ep_to_i64(double x) {
  if (x != x) return 0;
  if (x >= 9223372036854775808.0) return 9223372036854775807LL;
  if (x < -9223372036854775808.0) return -9223372036854775807LL - 1;
  return static_cast<ep_i64>(x);
}
EP_DEVICE ep_i64 ep_to_i64(float x) {
  if (x != x) return 0;
  if (x >= 9223372036854775808.0f) return 9223372036854775807LL;
  if (x < -9223372036854775808.0f) return -9223372036854775807LL - 1;
  return static_cast<ep_i64>(x);
}
EP_DEVICE ep_i64 ep_floor_div_i(ep_i64 a, ep_i64 b) {
  if (b == 0) return 0;
  if (b == -1) return static_cast<ep_i64>(0ULL - static_cast<ep_u64>(a));
  const ep_i64 q = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? q - 1 : q;
}
EP_DEVICE ep_i64 ep_fmod_i(ep_i64 a, ep_i64 b) { return b == 0 || b == -1 ? 0 : a % b; }
EP_DEVICE ep_i64 ep_mod_i(ep_i64 a, ep_i64 b) {
  const ep_i64 r = ep_fmod_i(a, b);
  return (r != 0 && (r < 0) != (b < 0)) ? r + b : r;
}
/* Indices by positive constants, rounded down. */
template <typename T>
EP_DEVICE T ep_index_div(T a, T b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}
template <typename T>
EP_DEVICE T ep_index_mod(T a, T b) {
  const T r = a % b;
  return r < 0 ? r + b : r;
}
template <typename T>
EP_DEVICE T ep_index_min(T a, T b) {
  return a < b ? a : b;
}

EP_DEVICE float ep_from_bf16(ep_u16 bits) {
  return __int_as_float(static_cast<int>(static_cast<unsigned>(bits) << 16));
}
/* Nearest, ties to even; a NaN stays one. */
EP_DEVICE ep_u16 ep_to_bf16(float x) {
  const unsigned bits = static_cast<unsigned>(__float_as_int(x));
  if (x != x) return static_cast<ep_u16>((bits >> 16) | 0x40u);
  return static_cast<ep_u16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Storage to float and back; to 8 bits: a whole number in range, NaN gives 0. */
EP_DEVICE float ep_to_float(float x) { return x; }
EP_DEVICE float ep_to_float(half x) { return __half2float(x); }
EP_DEVICE float ep_to_float(ep_i8 x) { return static_cast<float>(x); }
EP_DEVICE float ep_to_float(ep_u8 x) { return static_cast<float>(x); }
template <typename T>
EP_DEVICE T ep_from_float(float x);
template <>
__device__ __forceinline__ float ep_from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ half ep_from_float<half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ ep_i8 ep_from_float<ep_i8>(float x) {
  return static_cast<ep_i8>(static_cast<int>(x));
}
template <>
__device__ __forceinline__ ep_u8 ep_from_float<ep_u8>(float x) {
  return static_cast<ep_u8>(static_cast<int>(x));
}

/* --- several neighbouring elements at once -------------------------------------------------------- */

template <int bytes>
struct EpBits;
template <>
struct EpBits<1> {
  typedef ep_u8 type;
};
template <>
struct EpBits<2> {
  typedef ep_u16 type;
};
template <>
struct EpBits<4> {
  typedef ep_u32 type;
};
template <>
struct EpBits<8> {
  typedef uint2 type;
};
template <>
struct EpBits<16> {
  typedef uint4 type;
};

/* `count` elements, at most 16 bytes together or a multiple of 16; `p` is aligned to that. */
template <typename T, int count>
struct alignas((sizeof(T) * count > 16) ? 16 : sizeof(T) * count) EpPack {
  T at[count];
};
template <typename T, int count>
EP_DEVICE EpPack<T, count> ep_load_pack(const T *p) {
  constexpr int size = sizeof(T) * count, step = size > 16 ? 16 : size;
  typedef typename EpBits<step>::type Bits;
  EpPack<T, count> pack;
  EP_UNROLL
  for (int i = 0; i < size / step; ++i) {
    reinterpret_cast<Bits *>(&pack)[i] = reinterpret_cast<const Bits *>(p)[i];
  }
  return pack;
}
template <typename T, int count>
EP_DEVICE void ep_store_pack(T *p, const EpPack<T, count> &pack) {
  constexpr int size = sizeof(T) * count, step = size > 16 ? 16 : size;
  typedef typename EpBits<step>::type Bits;
  EP_UNROLL
  for (int i = 0; i < size / step; ++i) {
    reinterpret_cast<Bits *>(p)[i] = reinterpret_cast<const Bits *>(&pack)[i];
  }
}
/* The same, element by element unless is_aligned: for code that is compiled for both cases and tests
 * an address once (`ep_is_pack_aligned`), so that loads stay together. */
template <typename T, int count>
EP_DEVICE bool ep_is_pack_aligned(const T *p) {
  return (reinterpret_cast<ep_u64>(p) & (alignof(EpPack<T, count>) - 1)) == 0;
}
template <typename T, int count, bool is_aligned>
EP_DEVICE EpPack<T, count> ep_load_pack_if(const T *p) {
  if constexpr (is_aligned) {
    return ep_load_pack<T, count>(p);
  } else {
    EpPack<T, count> pack;
    EP_UNROLL
    for (int i = 0; i < count; ++i) pack.at[i] = p[i];
    return pack;
  }
}
template <typename T, int count, bool is_aligned>
EP_DEVICE void ep_store_pack_if(T *p, const EpPack<T, count> &pack) {
  if constexpr (is_aligned) {
    ep_store_pack<T, count>(p, pack);
  } else {
    EP_UNROLL
    for (int i = 0; i < count; ++i) p[i] = pack.at[i];
  }
}
/* What an earlier step wrote, in kernels that can start early (EP_STARTS_EARLY): past L1 then. */
template <typename T, int count, bool is_aligned>
EP_DEVICE EpPack<T, count> ep_load_pack_of_step(const T *p) {
#if defined(EP_STARTS_EARLY) && defined(__CUDA_ARCH__)
  constexpr int own = sizeof(T) * count, whole = own > 16 ? 16 : own;
  constexpr int step = is_aligned ? whole : int(sizeof(T));
  typedef typename EpBits<step>::type Bits;
  EpPack<T, count> pack;
  EP_UNROLL
  for (int i = 0; i < own / step; ++i) {
    reinterpret_cast<Bits *>(&pack)[i] = __ldcg(reinterpret_cast<const Bits *>(p) + i);
  }
  return pack;
#else
  return ep_load_pack_if<T, count, is_aligned>(p);
#endif
}
/* The same with a test per access: whole where the address happens to be aligned. */
template <typename T, int count>
EP_DEVICE EpPack<T, count> ep_load_pack_any(const T *p) {
  if (ep_is_pack_aligned<T, count>(p)) return ep_load_pack<T, count>(p);
  return ep_load_pack_if<T, count, false>(p);
}
template <typename T, int count>
EP_DEVICE void ep_store_pack_any(T *p, const EpPack<T, count> &pack) {
  if (ep_is_pack_aligned<T, count>(p)) {
    ep_store_pack<T, count>(p, pack);
  } else {
    ep_store_pack_if<T, count, false>(p, pack);
  }
}

/* --- results shared by the lanes of a point ------------------------------------------------------
 * `lanes` threads of a block work on one of `points` points: neighbours when is_contiguous (thread
 * = point * lanes + lane), else rows of points (thread = lane * points + point). All threads of the
 * block must call. Every lane gets the same bits; the order of joining is fixed. */

template <int lanes, int points, bool is_contiguous, typename T, typename Join>
EP_DEVICE T ep_join_lanes(T x, Join join) {
  if constexpr (is_contiguous) {
    EP_UNROLL
    for (int step = (lanes > 32 ? 32 : lanes) / 2; step > 0; step /= 2) {
      x = join(x, __shfl_xor_sync(EP_ALL_LANES, x, step));
    }
    if constexpr (lanes > 32) {
      constexpr int warps = lanes / 32;
      __shared__ T parts[points * warps];
      if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
      __syncthreads();
      const int first = threadIdx.x / lanes * warps;
      x = parts[first];
      for (int i = 1; i < warps; ++i) x = join(x, parts[first + i]);
      __syncthreads();
    }
  } else {
    __shared__ T parts[points * lanes];
    parts[threadIdx.x] = x;
    __syncthreads();
    const int point = threadIdx.x % points;
    x = parts[point];
    for (int i = 1; i < lanes; ++i) x = join(x, parts[i * points + point]);
    __syncthreads();
  }
  return x;
}

/* The same for a value and its position; is_better(a, at_a, b, at_b): b replaces a. */
template <int lanes, int points, bool is_contiguous, typename T, typename Better>
EP_DEVICE void ep_join_best(T &value, ep_i64 &at, Better is_better) {
  __shared__ T values[points * lanes];
  __shared__ ep_i64 places[points * lanes];
  values[threadIdx.x] = value;
  places[threadIdx.x] = at;
  const int lane = is_contiguous ? threadIdx.x % lanes : threadIdx.x / points;
  constexpr int step = is_contiguous ? 1 : points;
  for (int half_lanes = lanes / 2; half_lanes > 0; half_lanes /= 2) {
    __syncthreads();
    const int other = threadIdx.x + half_lanes * step;
    if (lane < half_lanes &&
        is_better(values[threadIdx.x], places[threadIdx.x], values[other], places[other])) {
      values[threadIdx.x] = values[other];
      places[threadIdx.x] = places[other];
    }
  }
  __syncthreads();
  const int first = threadIdx.x - lane * step;
  value = values[first];
  at = places[first];
  __syncthreads();
}

#endif
