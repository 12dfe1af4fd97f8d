// unary: y = f(x), elementwise, and its gradient:
//   exp dy*y · log dy/x · log1p dy/(1+x) · sqrt dy/(2y) · rsqrt 1/sqrt(x): -dy*y^3/2
//   square 2*dy*x · abs dy*sign(x) · negative -dy · reciprocal 1/x: -dy*y^2
//   sign -1, 0 or 1 (NaN stays): no gradient
#pragma once
#include <string>

#include "core/tensor.h"

namespace convlet {

enum class UnaryFunction { exp, log, log1p, sqrt, rsqrt, square, abs, negative, reciprocal, sign };
constexpr UnaryFunction kLastUnaryFunction = UnaryFunction::sign;

// ValueError that lists the names for another.
UnaryFunction unary_function_named(const char* op, const std::string& name);
const char* name_of(UnaryFunction function);

constexpr bool is_differentiable(UnaryFunction function) {
  return function != UnaryFunction::sign;
}
// Whether the gradient is had from y = f(x); otherwise it needs x.
constexpr bool gradient_from_output(UnaryFunction function) {
  return function == UnaryFunction::exp || function == UnaryFunction::sqrt ||
         function == UnaryFunction::rsqrt || function == UnaryFunction::reciprocal;
}

}  // namespace convlet
