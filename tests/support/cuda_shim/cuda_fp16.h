// The part of CUDA's half-precision header that kernels use, on the compiler's _Float16.
#pragma once
#include "emulation.h"

struct __half {
    _Float16 value;
    __half() = default;
    __half(float x) : value((_Float16)x) {}
    operator float() const { return (float)value; }
};
struct __align__(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;
static inline float __half2float(__half x) { return (float)x.value; }
static inline __half __float2half(float x) { return __half(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline __half2 __floats2half2_rn(float x, float y) { return __half2{__half(x), __half(y)}; }
static inline float2 __half22float2(__half2 v) { return float2{(float)v.x, (float)v.y}; }
static inline __half2 __halves2half2(__half x, __half y) { return __half2{x, y}; }
static inline float __low2float(__half2 v) { return (float)v.x; }
static inline float __high2float(__half2 v) { return (float)v.y; }
static inline unsigned short __half_as_ushort(__half x) {
    unsigned short r;
    memcpy(&r, &x, 2);
    return r;
}
static inline __half __ushort_as_half(unsigned short x) {
    __half r;
    memcpy(&r, &x, 2);
    return r;
}
