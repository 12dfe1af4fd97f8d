// Elementwise functions of one tensor (formulas/unary.h).
#include "cuda/scalar.cuh"
#include "cuda/transform.cuh"

namespace convlet::cuda {
namespace {

template <UnaryFunction function>
struct Unary {
  CONVLET_DEVICE float operator()(float x) const { return scalar::apply(function, x); }
};

template <UnaryFunction function>
struct UnaryGradient {
  CONVLET_DEVICE float operator()(float dy, float y_or_x) const {
    return scalar::unary_gradient(function, dy, y_or_x);
  }
};

}  // namespace

void unary(Context& context, std::int64_t n, UnaryFunction function, const float* x, float* y) {
  scalar::with_value<UnaryFunction, kLastUnaryFunction>(function, [&](auto constant) {
    transform(context, n, x, y, Unary<decltype(constant)::value>());
  });
}

void unary_backward(Context& context, std::int64_t n, UnaryFunction function, const float* dy,
                    const float* y_or_x, float* dx) {
  scalar::with_value<UnaryFunction, kLastUnaryFunction>(function, [&](auto constant) {
    transform(context, n, dy, y_or_x, dx, UnaryGradient<decltype(constant)::value>());
  });
}

}  // namespace convlet::cuda
