/* Elementwise float functions without branches; ep_vector.h includes this twice (vf, float).
 *
 * Polynomials were fitted for the smallest largest relative error, coefficient by coefficient
 * rounded to float. Error bounds in units of the last place against float64 are stated per function
 * and checked by tests/unit/builder_host/codegen/test_ep_math.py. NaN gives NaN unless said.
 */

#define EP_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
#define EP_INF __builtin_inff()
#define EP_NAN __builtin_nanf("")

/* 2^n for n in [-126, 127]. */
EP_INLINE EP_T EP_F(ep_two_to)(EP_I n) {
  return EP_F(ep_from_bits)((EP_I)(((EP_U)n + 127u) << 23));
}

/* e^x = 2^n * (1 + r + r^2 P(r)): 1 ulp, results below 2^-126 included. */
EP_INLINE EP_T EP_F(ep_exp)(EP_T x) {
  const EP_T c = EP_MIN_C(89.0f, EP_MAX_C(-105.0f, x));
  const EP_T t = EP_FMA(c, EP_C(1.44269504f), EP_C(EP_MAGIC));
  const EP_T n = t - EP_MAGIC;
  const EP_T r = EP_FMA(n, EP_C(-0x1.7f7d1cp-20f), EP_FMA(n, EP_C(-0x1.62e4p-1f), c));
  EP_T p = EP_C(0x1.6a4d6p-10f);
  p = EP_FMA(p, r, EP_C(0x1.12398ep-7f));
  p = EP_FMA(p, r, EP_C(0x1.5558bp-5f));
  p = EP_FMA(p, r, EP_C(0x1.555492p-3f));
  p = EP_FMA(p, r, EP_C(0x1.fffffcp-2f));
  p = EP_FMA(r * r, p, r) + 1.0f;
  const EP_I i = (EP_I)((EP_U)EP_F(ep_bits)(t) - 0x4b400000u);
  const EP_I half = i >> 1; /* two factors: each is a normal number for every result */
  return p * EP_F(ep_two_to)(half) * EP_F(ep_two_to)(i - half);
}

/* ln x: 1 ulp; 0 gives -inf, negative gives NaN. */
EP_INLINE EP_T EP_F(ep_log)(EP_T x) {
  const EP_I tiny = EP_MASK(x < 1.17549435e-38f);
  const EP_T y = EP_SELECT(tiny, x * 8388608.0f, x);
  const EP_U shifted = (EP_U)EP_F(ep_bits)(y) - 0x3f3504f3u;
  const EP_I e = (EP_I)shifted >> 23;
  const EP_T m = EP_F(ep_from_bits)((EP_I)((shifted & 0x007fffffu) + 0x3f3504f3u));
  EP_T n = EP_F(ep_from_bits)((EP_I)((EP_U)e + 0x4b400000u)) - EP_MAGIC;
  n = EP_SELECT(tiny, n - 23.0f, n);
  const EP_T f = m - 1.0f;
  EP_T p = EP_C(0x1.147ddp-4f);
  p = EP_FMA(p, f, EP_C(-0x1.de2584p-4f));
  p = EP_FMA(p, f, EP_C(0x1.e6cda8p-4f));
  p = EP_FMA(p, f, EP_C(-0x1.fc24b4p-4f));
  p = EP_FMA(p, f, EP_C(0x1.233aacp-3f));
  p = EP_FMA(p, f, EP_C(-0x1.555c52p-3f));
  p = EP_FMA(p, f, EP_C(0x1.99a47ep-3f));
  p = EP_FMA(p, f, EP_C(-0x1.000006p-2f));
  p = EP_FMA(p, f, EP_C(0x1.555548p-2f));
  const EP_T f2 = f * f;
  EP_T low = EP_FMA(f2 * f, p, n * 0x1.7f7d1cp-20f);
  low = EP_FMA(f2, EP_C(-0.5f), low);
  const EP_T r = EP_FMA(n, EP_C(0x1.62e4p-1f), f + low);
  const EP_T zero_or_less = EP_SELECT(EP_MASK(x == 0.0f), EP_C(-EP_INF), EP_C(EP_NAN));
  const EP_T above = EP_SELECT(EP_MASK(x == EP_INF), x, r);
  return EP_SELECT(EP_MASK(x > 0.0f), above, EP_SELECT(EP_MASK(x == x), zero_or_less, x));
}

/* ln(1 + x) without loss near 0: 2 ulp. */
EP_INLINE EP_T EP_F(ep_log1p)(EP_T x) {
  const EP_T u = x + 1.0f;
  const EP_T lost = (x - (u - 1.0f)) / u;
  const EP_T r = EP_F(ep_log)(u) + EP_SELECT(EP_MASK(EP_F(ep_abs)(lost) < 1.0f), lost, EP_C(0.0f));
  return EP_SELECT(EP_MASK(x == 0.0f), x, r);
}

/* e^x - 1 without loss near 0: 4 ulp. */
EP_INLINE EP_T EP_F(ep_expm1)(EP_T x) {
  EP_T p = EP_C(0x1.6a4d6p-10f); /* |x| <= 0.34 */
  p = EP_FMA(p, x, EP_C(0x1.12398ep-7f));
  p = EP_FMA(p, x, EP_C(0x1.5558bp-5f));
  p = EP_FMA(p, x, EP_C(0x1.555492p-3f));
  p = EP_FMA(p, x, EP_C(0x1.fffffcp-2f));
  const EP_T small = EP_FMA(x * x, p, x);
  return EP_SELECT(EP_MASK(EP_F(ep_abs)(x) < 0.34f), small, EP_F(ep_exp)(x) - 1.0f);
}

/* tanh x: 2 ulp. */
EP_INLINE EP_T EP_F(ep_tanh)(EP_T x) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_T t = x * x;
  EP_T p = EP_C(0x1.1a3932p-9f);
  p = EP_FMA(p, t, EP_C(-0x1.0c622cp-7f));
  p = EP_FMA(p, t, EP_C(0x1.63a5bap-6f));
  p = EP_FMA(p, t, EP_C(-0x1.b9f18cp-5f));
  p = EP_FMA(p, t, EP_C(0x1.11107ap-3f));
  p = EP_FMA(p, t, EP_C(-0x1.555554p-2f));
  const EP_T small = EP_FMA(t * x, p, x);
  const EP_T large = 1.0f - 2.0f / (EP_F(ep_exp)(a + a) + 1.0f);
  return EP_SELECT(EP_MASK(a < 0.625f), small, EP_F(ep_copysign)(large, x));
}

/* 1 / (1 + e^-x): 3 ulp. */
EP_INLINE EP_T EP_F(ep_sigmoid)(EP_T x) {
  const EP_T e = EP_F(ep_exp)(-EP_F(ep_abs)(x));
  return EP_SELECT(EP_MASK(x < 0.0f), e, EP_C(1.0f)) / (e + 1.0f);
}

/* ln(1 + e^x): 3 ulp. */
EP_INLINE EP_T EP_F(ep_softplus)(EP_T x) {
  return EP_MAX_C(0.0f, x) + EP_F(ep_log1p)(EP_F(ep_exp)(-EP_F(ep_abs)(x)));
}

/* erf x: 2 ulp. */
EP_INLINE EP_T EP_F(ep_erf)(EP_T x) {
  const EP_T a = EP_MIN_C(4.0f, EP_F(ep_abs)(x));
  const EP_T t = a * a;
  EP_T p = EP_C(-0x1.238ccap-19f);
  p = EP_FMA(p, t, EP_C(0x1.69b1b2p-14f));
  p = EP_FMA(p, t, EP_C(-0x1.a998eep-11f));
  p = EP_FMA(p, t, EP_C(0x1.5482fep-8f));
  p = EP_FMA(p, t, EP_C(-0x1.b8044ep-6f));
  p = EP_FMA(p, t, EP_C(0x1.ce2d74p-4f));
  p = EP_FMA(p, t, EP_C(-0x1.812740p-2f));
  p = EP_FMA(p, t, EP_C(0x1.06eba8p-3f));
  const EP_T small = EP_FMA(x, p, x);
  EP_T q = EP_C(0x1.ce96c6p-23f); /* ln erfc a */
  q = EP_FMA(q, a, EP_C(-0x1.9fedcap-16f));
  q = EP_FMA(q, a, EP_C(0x1.e2e6ep-12f));
  q = EP_FMA(q, a, EP_C(-0x1.17e8c6p-8f));
  q = EP_FMA(q, a, EP_C(0x1.9f53dap-6f));
  q = EP_FMA(q, a, EP_C(-0x1.bcdaep-4f));
  q = EP_FMA(q, a, EP_C(-0x1.442128p-1f));
  q = EP_FMA(q, a, EP_C(-0x1.2130b4p+0f));
  q = EP_FMA(q, a, EP_C(0x1.a7c32ap-13f));
  const EP_T large = 1.0f - EP_F(ep_exp)(q);
  return EP_SELECT(EP_MASK(a < 1.0f), small, EP_F(ep_copysign)(large, x));
}

/* rsqrt: 1.5 ulp; recip: 0.5 ulp. */
EP_INLINE EP_T EP_F(ep_rsqrt)(EP_T x) { return 1.0f / EP_F(ep_sqrt)(x); }
EP_INLINE EP_T EP_F(ep_recip)(EP_T x) { return 1.0f / x; }

/* sinh x: 4 ulp; cosh x: 3 ulp. */
EP_INLINE EP_T EP_F(ep_sinh)(EP_T x) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_T t = x * x;
  EP_T p = EP_C(0x1.756c1ep-19f);
  p = EP_FMA(p, t, EP_C(0x1.a022bcp-13f));
  p = EP_FMA(p, t, EP_C(0x1.1110ep-7f));
  p = EP_FMA(p, t, EP_C(0x1.555556p-3f));
  const EP_T small = EP_FMA(t * x, p, x);
  const EP_T h = EP_F(ep_exp)(a * 0.5f); /* e^a itself overflows before sinh does */
  const EP_T large = (0.5f * h) * h - 0.5f / h / h;
  return EP_SELECT(EP_MASK(a < 1.0f), small, EP_F(ep_copysign)(large, x));
}
EP_INLINE EP_T EP_F(ep_cosh)(EP_T x) {
  const EP_T h = EP_F(ep_exp)(EP_F(ep_abs)(x) * 0.5f);
  return (0.5f * h) * h + 0.5f / h / h;
}

/* Quadrant and remainder in [-pi/4, pi/4], in double: 2 ulp for |x| <= 10^8. */
EP_INLINE EP_T EP_F(ep_quarter_turns)(EP_T x, EP_I *quadrant) {
  const EP_D xd = EP_TO_DOUBLE(x);
  const EP_D t = xd * 0.63661977236758134 + 6755399441055744.0; /* 1.5 * 2^52 */
  const EP_D n = t - 6755399441055744.0;
  const EP_D near = (xd - n * 0x1.921fb5p+0) - n * 0x1.110b46p-26; /* both products are exact */
  const EP_D r = near - n * 0x1.1a62633145c07p-54;
  const EP_T nf = EP_TO_FLOAT(n - 4.0 * ((n * 0.25 + 6755399441055744.0) - 6755399441055744.0));
  *quadrant = (EP_I)((EP_U)EP_F(ep_bits)(nf + EP_MAGIC) & 3u); /* nf is in [-2, 2] */
  return EP_TO_FLOAT(r);
}
EP_INLINE EP_T EP_F(ep_sin_near)(EP_T r) {
  const EP_T t = r * r;
  EP_T p = EP_C(-0x1.9953p-13f);
  p = EP_FMA(p, t, EP_C(0x1.110776p-7f));
  p = EP_FMA(p, t, EP_C(-0x1.555546p-3f));
  return EP_FMA(t * r, p, r);
}
EP_INLINE EP_T EP_F(ep_cos_near)(EP_T r) {
  const EP_T t = r * r;
  EP_T p = EP_C(0x1.99e904p-16f);
  p = EP_FMA(p, t, EP_C(-0x1.6c0c2ap-10f));
  p = EP_FMA(p, t, EP_C(0x1.55554ap-5f));
  return EP_FMA(t * t, p, EP_FMA(t, EP_C(-0.5f), EP_C(1.0f)));
}

/* sin, cos: 2 ulp, tan: 4 ulp, for |x| <= 10^8; beyond that any value. Infinity gives NaN. */
EP_INLINE EP_T EP_F(ep_sin)(EP_T x) {
  EP_I q;
  const EP_T r = EP_F(ep_quarter_turns)(x, &q);
  const EP_T y = EP_SELECT(EP_MASK((q & 1) != 0), EP_F(ep_cos_near)(r), EP_F(ep_sin_near)(r));
  return EP_SELECT(EP_MASK((q & 2) != 0), -y, y);
}
EP_INLINE EP_T EP_F(ep_cos)(EP_T x) {
  EP_I q;
  const EP_T r = EP_F(ep_quarter_turns)(x, &q);
  const EP_T y = EP_SELECT(EP_MASK((q & 1) != 0), EP_F(ep_sin_near)(r), EP_F(ep_cos_near)(r));
  return EP_SELECT(EP_MASK(((q + 1) & 2) != 0), -y, y);
}
EP_INLINE EP_T EP_F(ep_tan)(EP_T x) {
  EP_I q;
  const EP_T r = EP_F(ep_quarter_turns)(x, &q);
  const EP_T s = EP_F(ep_sin_near)(r), c = EP_F(ep_cos_near)(r);
  return EP_SELECT(EP_MASK((q & 1) != 0), -c / s, s / c);
}

/* atan: 3 ulp; asin: 3 ulp; acos: 4 ulp. */
EP_INLINE EP_T EP_F(ep_atan)(EP_T x) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_I far = EP_MASK(a > 2.41421356f), near = EP_MASK(a <= 0.414213562f);
  const EP_T middle = (a - 1.0f) / (a + 1.0f);
  const EP_T z = EP_SELECT(near, a, EP_SELECT(far, -1.0f / a, middle));
  const EP_T high =
      EP_SELECT(near, EP_C(0.0f), EP_SELECT(far, EP_C(1.57079637f), EP_C(0.785398185f)));
  const EP_T low =
      EP_SELECT(near, EP_C(0.0f), EP_SELECT(far, EP_C(-4.37113883e-8f), EP_C(-2.18556941e-8f)));
  const EP_T t = z * z;
  EP_T p = EP_C(0x1.49bc1ap-4f);
  p = EP_FMA(p, t, EP_C(-0x1.1c3178p-3f));
  p = EP_FMA(p, t, EP_C(0x1.992440p-3f));
  p = EP_FMA(p, t, EP_C(-0x1.555452p-2f));
  return EP_F(ep_copysign)(high + (EP_FMA(t * z, p, z) + low), x);
}
EP_INLINE EP_T EP_F(ep_asin_near)(EP_T z, EP_T t) {
  EP_T p = EP_C(0x1.595c6p-5f);
  p = EP_FMA(p, t, EP_C(0x1.8c3e5p-6f));
  p = EP_FMA(p, t, EP_C(0x1.747b8p-5f));
  p = EP_FMA(p, t, EP_C(0x1.330204p-4f));
  p = EP_FMA(p, t, EP_C(0x1.5555c8p-3f));
  return EP_FMA(t * z, p, z);
}
EP_INLINE EP_T EP_F(ep_asin)(EP_T x) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_I small = EP_MASK(a <= 0.5f);
  const EP_T t = EP_SELECT(small, a * a, EP_FMA(a, EP_C(-0.5f), EP_C(0.5f)));
  const EP_T y = EP_F(ep_asin_near)(EP_SELECT(small, a, EP_F(ep_sqrt)(t)), t);
  const EP_T far = 1.57079637f - EP_FMA(EP_C(2.0f), y, EP_C(4.37113883e-8f));
  return EP_F(ep_copysign)(EP_SELECT(small, y, far), x);
}
EP_INLINE EP_T EP_F(ep_acos)(EP_T x) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_I small = EP_MASK(a <= 0.5f);
  const EP_T t = EP_SELECT(small, a * a, EP_FMA(a, EP_C(-0.5f), EP_C(0.5f)));
  const EP_T y = EP_F(ep_asin_near)(EP_SELECT(small, a, EP_F(ep_sqrt)(t)), t);
  const EP_T near = 1.57079637f - (EP_F(ep_copysign)(y, x) + 4.37113883e-8f);
  const EP_T obtuse = 3.14159274f - EP_FMA(EP_C(2.0f), y, EP_C(8.74227766e-8f));
  const EP_T far = EP_SELECT(EP_MASK(x < 0.0f), obtuse, 2.0f * y);
  return EP_SELECT(small, near, far);
}

/* ln x for x > 0 and finite, in double, relative error 10^-12; 0 gives -inf. */
EP_INLINE EP_D EP_F(ep_log_double)(EP_T x) {
  const EP_I tiny = EP_MASK(x < 1.17549435e-38f);
  const EP_T y = EP_SELECT(tiny, x * 8388608.0f, x);
  const EP_U shifted = (EP_U)EP_F(ep_bits)(y) - 0x3f3504f3u;
  const EP_I e = (EP_I)shifted >> 23;
  const EP_D m = EP_TO_DOUBLE(EP_F(ep_from_bits)((EP_I)((shifted & 0x007fffffu) + 0x3f3504f3u)));
  EP_T n = EP_F(ep_from_bits)((EP_I)((EP_U)e + 0x4b400000u)) - EP_MAGIC;
  n = EP_SELECT(tiny, n - 23.0f, n);
  n = EP_SELECT(EP_MASK(x == 0.0f), EP_C(-EP_INF), EP_SELECT(EP_MASK(x == EP_INF), x, n));
  const EP_D s = (m - 1.0) / (m + 1.0), t = s * s; /* ln m = 2 artanh s */
  EP_D p = t * (2.0 / 15.0) + 2.0 / 13.0;
  p = p * t + 2.0 / 11.0;
  p = p * t + 2.0 / 9.0;
  p = p * t + 2.0 / 7.0;
  p = p * t + 2.0 / 5.0;
  p = p * t + 2.0 / 3.0;
  return EP_TO_DOUBLE(n) * 0.69314718055994531 + (p * t * s + 2.0 * s);
}
/* e^x of a double in [-750, 750], in double, relative error 10^-11. */
EP_INLINE EP_D EP_F(ep_exp_double)(EP_D x) {
  const EP_D t = x * 1.4426950408889634 + 6755399441055744.0;
  const EP_D n = t - 6755399441055744.0;
  const EP_D r = x - n * 0.69314718055994531;
  EP_D p = r * (1.0 / 362880.0) + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return p * EP_DOUBLE_OF_BITS((EP_DOUBLE_BITS(t) + 1023u) << 52);
}

/* x^y with the special cases of C's pow: 1 ulp. */
EP_INLINE EP_T EP_F(ep_pow)(EP_T x, EP_T y) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_T yc = EP_MIN_C(1e30f, EP_MAX_C(-1e30f, y)); /* no infinity times zero */
  const EP_T lf = EP_TO_FLOAT(EP_F(ep_log_double)(a) * EP_TO_DOUBLE(yc)); /* decides overflow */
  const EP_I over = EP_MASK(lf > 90.0f), under = EP_MASK(lf < -105.0f);
  const EP_I odd_case = over | under | EP_MASK(lf != lf);
  const EP_T base = EP_SELECT(odd_case, EP_C(1.0f), a);
  const EP_D exponent = EP_TO_DOUBLE(EP_SELECT(odd_case, EP_C(1.0f), yc));
  EP_T r = EP_TO_FLOAT(EP_F(ep_exp_double)(EP_F(ep_log_double)(base) * exponent));
  r = EP_SELECT(over, EP_C(EP_INF), EP_SELECT(under, EP_C(0.0f), r));
  const EP_T half = y * 0.5f;
  const EP_I integral = EP_MASK(EP_F(ep_trunc)(y) == y);
  const EP_I odd = integral & EP_MASK(EP_F(ep_trunc)(half) != half);
  r = EP_SELECT(odd, EP_F(ep_copysign)(r, x), r);
  const EP_I bad = EP_MASK(x < 0.0f) & EP_MASK(a != EP_INF) & ~integral;
  r = EP_SELECT(bad, EP_C(EP_NAN), r);
  r = EP_SELECT(EP_MASK(x == x) & EP_MASK(y == y), r, x + y);
  return EP_SELECT(EP_MASK(y == 0.0f) | EP_MASK(x == 1.0f), EP_C(1.0f), r);
}

/* asinh: 2 ulp; acosh: 3 ulp, below 1 NaN; atanh: 3 ulp, beyond 1 NaN. */
EP_INLINE EP_T EP_F(ep_asinh)(EP_T x) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_T b = EP_MIN_C(1e9f, a), rest = EP_SELECT(EP_MASK(a > 1e9f), a, EP_C(1e9f)) / 1e9f;
  const EP_T t = b * b;
  const EP_T root = EP_F(ep_sqrt)(t + 1.0f);
  const EP_T r = EP_F(ep_log1p)(b + t / (1.0f + root)) + EP_F(ep_log)(rest);
  return EP_F(ep_copysign)(r, x);
}
EP_INLINE EP_T EP_F(ep_acosh)(EP_T x) {
  const EP_T b = EP_MIN_C(1e9f, x), rest = EP_SELECT(EP_MASK(x > 1e9f), x, EP_C(1e9f)) / 1e9f;
  const EP_T t = b - 1.0f;
  const EP_T r = EP_F(ep_log1p)(t + EP_F(ep_sqrt)(t * (b + 1.0f))) + EP_F(ep_log)(rest);
  return EP_SELECT(EP_MASK(x >= 1.0f), r, EP_C(EP_NAN));
}
EP_INLINE EP_T EP_F(ep_atanh)(EP_T x) {
  const EP_T a = EP_F(ep_abs)(x);
  const EP_T r = 0.5f * EP_F(ep_log1p)((a + a) / (1.0f - a));
  return EP_F(ep_copysign)(EP_SELECT(EP_MASK(a > 1.0f), EP_C(EP_NAN), r), x);
}

/* -1, 0 (with its sign) or 1. */
EP_INLINE EP_T EP_F(ep_sign)(EP_T x) {
  return EP_SELECT(EP_MASK(x > 0.0f), EP_C(1.0f), EP_SELECT(EP_MASK(x < 0.0f), EP_C(-1.0f), x));
}
EP_INLINE EP_I EP_F(ep_isnan)(EP_T x) { return EP_MASK(x != x); }
EP_INLINE EP_I EP_F(ep_isinf)(EP_T x) { return EP_MASK(EP_F(ep_abs)(x) == EP_INF); }

/* Remainders through a double quotient: exact while |a / b| < 2^29. */
EP_INLINE EP_T EP_F(ep_floor_div)(EP_T a, EP_T b) {
  const EP_T q = EP_F(ep_floor)(EP_TO_FLOAT(EP_TO_DOUBLE(a) / EP_TO_DOUBLE(b)));
  const EP_D rest = EP_TO_DOUBLE(a) - EP_TO_DOUBLE(q) * EP_TO_DOUBLE(b);
  const EP_T r = EP_TO_FLOAT(rest); /* the quotient may have been rounded up to an integer */
  const EP_I high =
      (EP_MASK(r < 0.0f) & EP_MASK(b > 0.0f)) | (EP_MASK(r > 0.0f) & EP_MASK(b < 0.0f));
  return EP_SELECT(high, q - 1.0f, q);
}
EP_INLINE EP_T EP_F(ep_fmod)(EP_T a, EP_T b) {
  const EP_D x = EP_TO_DOUBLE(EP_F(ep_abs)(a)), y = EP_TO_DOUBLE(EP_F(ep_abs)(b));
  const EP_D q = x / y - 0.5;
  const EP_D n = (q + 6755399441055744.0) - 6755399441055744.0; /* floor(x / y), or 1 off */
  EP_T r = EP_TO_FLOAT(x - n * y);
  const EP_T m = EP_F(ep_abs)(b);
  r = EP_SELECT(EP_MASK(r < 0.0f), r + m, r);
  r = EP_SELECT(EP_MASK(r >= m), r - m, r);
  r = EP_SELECT(EP_MASK(m == EP_INF) & EP_MASK(EP_F(ep_abs)(a) < EP_INF), EP_F(ep_abs)(a), r);
  return EP_F(ep_copysign)(r, a);
}
EP_INLINE EP_T EP_F(ep_mod)(EP_T a, EP_T b) {
  const EP_T r = EP_F(ep_fmod)(a, b);
  const EP_I other = EP_MASK(r != 0.0f) & (EP_MASK(r < 0.0f) ^ EP_MASK(b < 0.0f));
  return EP_SELECT(other, r + b, r);
}

#undef EP_MAGIC
#undef EP_INF
#undef EP_NAN
