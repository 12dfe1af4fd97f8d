// Elementwise functions of one tensor (formulas in formulas/unary.h).
namespace convlet::CONVLET_ISA {

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
