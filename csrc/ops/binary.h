// binary: y = f(a, b), elementwise, with broadcasting (ops/broadcast.h).
//   add a+b · subtract a-b · multiply a*b · divide a/b · power a^b
//   maximum, minimum: NaN where an operand is NaN
//   greater, greater_equal, less, less_equal, equal, not_equal: 1 where it holds, else 0
// Gradients, before the sum over the axes along which an operand is repeated:
//   divide  da = dy/b, db = -dy*a/b^2 · power  da = dy*b*a^(b-1) (0 for b = 0), db = dy*y*log(a)
//   (0 where a = 0 and b >= 0) · maximum, minimum: to the chosen operand, half to each where they
//   are equal · comparisons: 0
#pragma once
#include <string>

#include "core/tensor.h"

namespace convlet {

enum class BinaryFunction {
  add,
  subtract,
  multiply,
  divide,
  maximum,
  minimum,
  power,
  greater,
  greater_equal,
  less,
  less_equal,
  equal,
  not_equal,
};
constexpr BinaryFunction kLastBinaryFunction = BinaryFunction::not_equal;

// ValueError that lists the names for another.
BinaryFunction binary_function_named(const char* op, const std::string& name);
const char* name_of(BinaryFunction function);

// Whether it has a gradient (comparisons have none).
constexpr bool is_differentiable(BinaryFunction function) {
  return function < BinaryFunction::greater;
}

}  // namespace convlet
