// Elementwise functions of one tensor (formulas in ops/unary.h).
namespace convlet::CONVLET_ISA {

inline V apply(UnaryFunction function, V x) {
  const V one = broadcast(1.0f);
  switch (function) {
    case UnaryFunction::exp:
      return exp(x);
    case UnaryFunction::log:
      return log(x);
    case UnaryFunction::log1p:
      return log1p(x);
    case UnaryFunction::sqrt:
      return sqrt(x);
    case UnaryFunction::rsqrt:
      return one / sqrt(x);
    case UnaryFunction::square:
      return x * x;
    case UnaryFunction::abs:
      return abs(x);
    case UnaryFunction::negative:
      return zero() - x;
    case UnaryFunction::reciprocal:
      return one / x;
    case UnaryFunction::sign:
      return select(x > zero(), one, select(x < zero(), zero() - one, x));
  }
  return x;
}

inline V unary_gradient(UnaryFunction function, V dy, V y_or_x) {
  const V half = broadcast(0.5f), one = broadcast(1.0f);
  const V x = y_or_x, y = y_or_x;
  switch (function) {
    case UnaryFunction::exp:
      return dy * y;
    case UnaryFunction::log:
      return dy / x;
    case UnaryFunction::log1p:
      return dy / (one + x);
    case UnaryFunction::sqrt:
      return dy * half / y;
    case UnaryFunction::rsqrt:
      return dy * broadcast(-0.5f) * (y * y * y);
    case UnaryFunction::square:
      return dy * (x + x);
    case UnaryFunction::abs:
      return dy * apply(UnaryFunction::sign, x);
    case UnaryFunction::negative:
      return zero() - dy;
    case UnaryFunction::reciprocal:
      return (zero() - dy) * (y * y);
    case UnaryFunction::sign:
      return zero();
  }
  return dy;
}

inline void unary(Context& context, std::int64_t n, UnaryFunction function, const float* x,
                  float* y) {
  with_value<UnaryFunction, kLastUnaryFunction>(function, [&](auto constant) {
    transform(context, n, x, y, [](V a) { return apply(decltype(constant)::value, a); });
  });
}

inline void unary_backward(Context& context, std::int64_t n, UnaryFunction function,
                           const float* dy, const float* y_or_x, float* dx) {
  with_value<UnaryFunction, kLastUnaryFunction>(function, [&](auto constant) {
    transform(context, n, dy, y_or_x, dx,
              [](V g, V a) { return unary_gradient(decltype(constant)::value, g, a); });
  });
}

}  // namespace convlet::CONVLET_ISA
