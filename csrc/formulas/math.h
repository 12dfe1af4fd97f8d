// exp, log, tanh, sigmoid and the normal distribution on vectors: argument reduction as in
// W. J. Cody and W. Waite, "Software Manual for the Elementary Functions" (1980), then a
// polynomial. The coefficients are minimax ones of our own (Remez exchange, 40 digits, rounded to
// float); the error given with each polynomial is relative, before rounding.
namespace convlet::CONVLET_ISA {

// c[0] + c[1] x + ... + c[n-1] x^(n-1), by Horner's rule.
template <int n>
CONVLET_HOST_DEVICE inline V polynomial(const float (&c)[n], V x) {
  V y = broadcast(c[n - 1]);
  for (int i = n - 2; i >= 0; --i) y = fma(y, x, broadcast(c[i]));
  return y;
}

// ln 2 = kLn2High + kLn2Low; the first has few bits, so that a small integer times it is exact.
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;

// e^x = 2^n y for -104 <= x <= 89 or NaN: y = e^r, r = x - n ln 2, e^r = 1 + r + r^2 P(r) for
// |r| <= ln(2)/2, to 2^-28.
struct Exponential {
  V n, y;
};
CONVLET_HOST_DEVICE inline Exponential exponential(V x) {
  constexpr float kP[] = {0x1.fffffcp-2f, 0x1.55549p-3f, 0x1.5558fcp-5f, 0x1.123b8ap-7f,
                          0x1.6a2178p-10f};
  // NaN becomes -151 here: power_of_two needs a number.
  V n = max(round(x * broadcast(1.44269504f)), broadcast(-151.0f));
  V r = fma(n, broadcast(-kLn2High), x);
  r = fma(n, broadcast(-kLn2Low), r);
  return {n, fma(polynomial(kP, r), r * r, r) + broadcast(1.0f)};
}

// e^x. Results below the smallest normal are denormal, not zero. 1 ulp with FMA, 2 without.
CONVLET_HOST_DEVICE inline V exp(V x) {
  // Outside [-104, 89] the result is 0 or infinity. Constants stand first, so that NaN stays NaN.
  const Exponential e = exponential(min(broadcast(89.0f), max(broadcast(-104.0f), x)));
  // In two factors: 2^n itself may be denormal or infinite where the result is not.
  const V half = round(e.n * broadcast(0.5f));
  return e.y * power_of_two(half) * power_of_two(e.n - half);
}

// The same bits for x <= 0, with less work; 1 for x > 0.
CONVLET_HOST_DEVICE inline V exp_negative(V x) {
  const Exponential e = exponential(min(zero(), max(broadcast(-104.0f), x)));
  return e.y * power_of_two(e.n + broadcast(64.0f)) * broadcast(0x1p-64f);
}

// ln x = e ln 2 + ln(1+f), x = 2^e (1+f) with 1+f in [sqrt(1/2), sqrt(2)], and ln(1+f) = f - f^2/2
// + f^3 P(f), to 2^-30. -inf at 0, NaN below.
CONVLET_HOST_DEVICE inline V log(V x) {
  constexpr float kP[] = {0x1.555548p-2f,  -0x1.000006p-2f, 0x1.99a4b6p-3f,
                          -0x1.555c4ep-3f, 0x1.23376ap-3f,  -0x1.fc2206p-4f,
                          0x1.e6f052p-4f,  -0x1.de3c1p-4f,  0x1.1457d6p-4f};
  Mask denormal = x < broadcast(0x1p-126f);
  V scaled = select(denormal, x * broadcast(0x1p24f), x);
  V e = exponent(scaled) - select(denormal, broadcast(24.0f), zero());
  V m = mantissa(scaled);
  Mask high = m > broadcast(1.41421356f);
  e = select(high, e + broadcast(1.0f), e);
  V f = select(high, m * broadcast(0.5f), m) - broadcast(1.0f);
  V square = f * f;
  V low = fma(e, broadcast(kLn2Low), polynomial(kP, f) * f * square);
  V y = fma(e, broadcast(kLn2High), fma(square, broadcast(-0.5f), low) + f);
  constexpr float kInfinity = __builtin_inff();
  y = select(x < broadcast(kInfinity), y, x);  // infinity and NaN
  y = select(x == zero(), broadcast(-kInfinity), y);
  return select(x < zero(), broadcast(__builtin_nanf("")), y);
}

// e^x - 1 for x <= 0 without the loss near 0: with the n and r of exp, 2^n (e^r - 1) + (2^n - 1).
CONVLET_HOST_DEVICE inline V expm1_negative(V x) {
  constexpr float kP[] = {0x1.fffffcp-2f, 0x1.55549p-3f, 0x1.5558fcp-5f, 0x1.123b8ap-7f,
                          0x1.6a2178p-10f};
  x = max(broadcast(-87.0f), x);  // below, the result is -1
  const V n = max(round(x * broadcast(1.44269504f)), broadcast(-126.0f));  // a number for NaN
  V r = fma(n, broadcast(-kLn2High), x);
  r = fma(n, broadcast(-kLn2Low), r);
  const V scale = power_of_two(n);
  return fma(fma(polynomial(kP, r), r * r, r), scale, scale - broadcast(1.0f));
}

// ln(1 + x). With w = 1 + x rounded, ln(w) x / (w - 1) repairs the rounding (Kahan).
CONVLET_HOST_DEVICE inline V log1p(V x) {
  const V one = broadcast(1.0f), w = one + x;
  const V y = log(w) * (x / (w - one));
  return select(w == one, x, select(x < broadcast(__builtin_inff()), y, x));
}

// 1 / (1 + e^-x), from e^-|x| so that the small side keeps its relative accuracy.
CONVLET_HOST_DEVICE inline V sigmoid(V x) {
  V e = exp_negative(zero() - abs(x));
  V y = broadcast(1.0f) / (broadcast(1.0f) + e);
  return select(x < zero(), e * y, y);
}

// x + x^3 P(x^2) for |x| < 0.625, to 2^-27; 1 - 2 / (e^2|x| + 1) with the sign of x beyond.
CONVLET_HOST_DEVICE inline V tanh(V x) {
  constexpr float kP[] = {-0x1.555532p-2f, 0x1.110726p-3f, -0x1.b83c5ap-5f, 0x1.52269cp-6f,
                          -0x1.75e1ccp-8f};
  V a = abs(x);
  V square = x * x;
  V inner = fma(polynomial(kP, square) * square, x, x);
  V outer = broadcast(1.0f) - broadcast(2.0f) / (exp(a + a) + broadcast(1.0f));
  outer = select(x < zero(), zero() - outer, outer);
  return select(a < broadcast(0.625f), inner, outer);
}

// The normal distribution's upper tail for z >= 0, (1 - erf(z / sqrt 2)) / 2, without an
// exponential:
//   1 / (2 (1 + u)^8), u = z P(z), to 2^-22 for z <= 5.1;
// beyond, it goes on falling to 0, and z times it is never further off than 3e-12. Not 1 + u but u
// is squared, (1 + u)^2 = 1 + u (u + 2), so that nothing is lost near 0. The terms of P are added
// in pairs: half as many wait for one another.
CONVLET_HOST_DEVICE inline V normal_tail(V z) {
  constexpr float kP[] = {0x1.988416p-4f,  0x1.6eb80ep-5f,  0x1.1bc74p-7f,    0x1.d09d16p-11f,
                          0x1.68b262p-13f, 0x1.7953a4p-14f, -0x1.fcd1d8p-16f, 0x1.98c35ep-17f,
                          -0x1.73decp-19f, 0x1.e81124p-22f, -0x1.6daeaap-25f, 0x1.1581bep-29f};
  const V square = z * z;
  V y = fma(broadcast(kP[11]), z, broadcast(kP[10]));
  for (int i = 8; i >= 0; i -= 2)
    y = fma(y, square, fma(broadcast(kP[i + 1]), z, broadcast(kP[i])));
  V u = z * y;
  for (int i = 0; i < 3; ++i) u = u * (u + broadcast(2.0f));
  return broadcast(0.5f) / (broadcast(1.0f) + u);
}

// Its density at z >= 0 over that tail; times z and the tail, to 2^-26. Taken at 7 beyond 7.
CONVLET_HOST_DEVICE inline V normal_hazard(V z) {
  constexpr float kP[] = {0x1.98847ap-1f,  0x1.45f0a4p-1f,  0x1.bee32p-4f,
                          -0x1.3d4cd8p-6f, 0x1.ffbf6cp-14f, 0x1.181e76p-10f,
                          -0x1.51805p-12f, 0x1.7962e2p-15f, -0x1.5a2f88p-19f};
  return polynomial(kP, min(broadcast(7.0f), z));
}

}  // namespace convlet::CONVLET_ISA
