// Elementwise functions of two tensors and their gradients (ops/binary.h) on vectors.
namespace convlet::CONVLET_ISA {

CONVLET_HOST_DEVICE inline V apply(BinaryFunction function, V a, V b) {
  const V one = broadcast(1.0f);
  switch (function) {
    case BinaryFunction::add:
      return a + b;
    case BinaryFunction::subtract:
      return a - b;
    case BinaryFunction::multiply:
      return a * b;
    case BinaryFunction::divide:
      return a / b;
    case BinaryFunction::maximum:
      return select(is_nan(a), a, max(a, b));  // max gives b where b is NaN
    case BinaryFunction::minimum:
      return select(is_nan(a), a, min(a, b));
    case BinaryFunction::power:
      return power(a, b);
    case BinaryFunction::greater:
      return select(a > b, one, zero());
    case BinaryFunction::greater_equal:
      return select((a > b) | (a == b), one, zero());
    case BinaryFunction::less:
      return select(a < b, one, zero());
    case BinaryFunction::less_equal:
      return select((a < b) | (a == b), one, zero());
    case BinaryFunction::equal:
      return select(a == b, one, zero());
    case BinaryFunction::not_equal:
      return select(a == b, zero(), one);
  }
  return a;
}

// The gradient of operand `side` where it is not repeated.
CONVLET_HOST_DEVICE inline V binary_gradient(BinaryFunction function, int side, V dy, V a, V b) {
  const V half = broadcast(0.5f), one = broadcast(1.0f);
  switch (function) {
    case BinaryFunction::add:
      return dy;
    case BinaryFunction::subtract:
      return side == 0 ? dy : zero() - dy;
    case BinaryFunction::multiply:
      return dy * (side == 0 ? b : a);
    case BinaryFunction::divide:
      return side == 0 ? dy / b : (zero() - dy) * ((a / b) / b);
    case BinaryFunction::maximum:
      return select(a == b, dy * half, select(side == 0 ? a < b : b < a, zero(), dy));
    case BinaryFunction::minimum:
      return select(a == b, dy * half, select(side == 0 ? a > b : b > a, zero(), dy));
    case BinaryFunction::power: {
      if (side == 0) return select(b == zero(), zero(), dy * (b * power(a, b - one)));
      const Mask none = (a == zero()) & ((b > zero()) | (b == zero()));
      return select(none, zero(), dy * (power(a, b) * log(a)));
    }
    default:
      return zero();
  }
}

}  // namespace convlet::CONVLET_ISA
