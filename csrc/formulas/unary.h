// Elementwise functions of one tensor and their gradients (ops/unary.h) on vectors.
namespace convlet::CONVLET_ISA {

CONVLET_HOST_DEVICE inline V apply(UnaryFunction function, V x) {
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

CONVLET_HOST_DEVICE inline V unary_gradient(UnaryFunction function, V dy, V y_or_x) {
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

}  // namespace convlet::CONVLET_ISA
