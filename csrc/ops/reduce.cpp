#include "ops/reduce.h"

namespace convlet {
namespace {

ReduceShape joined(const Shape& x, const bool* reduced) {
  ReduceShape s = {};
  s.inputs = x.elements();
  s.outputs = s.count = 1;
  for (int axis = 0; axis < x.rank(); ++axis) {
    (reduced[axis] ? s.count : s.outputs) *= x[axis];
    if (x[axis] == 1) continue;
    if (s.rank > 0 && s.reduced[s.rank - 1] == reduced[axis]) {
      s.size[s.rank - 1] *= x[axis];
    } else {
      s.reduced[s.rank] = reduced[axis];
      s.size[s.rank++] = x[axis];
    }
  }
  if (s.rank == 0) {  // one element, kept
    s.size[0] = 1;
    s.rank = 1;
  }
  return s;
}

}  // namespace

const char* name_of(ReduceFunction function) {
  static const char* const names[] = {"sum", "mean", "max", "min"};
  return names[static_cast<int>(function)];
}

ReduceFunction reduce_function_named(const char* op, const std::string& name) {
  for (int i = 0; i <= static_cast<int>(kLastReduceFunction); ++i)
    if (name == name_of(static_cast<ReduceFunction>(i))) return static_cast<ReduceFunction>(i);
  value_error(op, ": expected function to be one of sum, mean, max, min, got '", name, "'");
}

Shape reduced_shape(const char* op, ReduceFunction function, const Shape& x,
                    const std::vector<std::int64_t>& axes, bool keepdims) {
  bool reduced[Shape::kMaxRank] = {};
  for (std::int64_t axis : axes) {
    if (axis < 0 || axis >= x.rank())
      value_error(op, ": expected axes of x ", x, ", got axis ", axis);
    if (reduced[axis]) value_error(op, ": expected different axes, got axis ", axis, " twice");
    reduced[axis] = true;
    const bool extreme = function == ReduceFunction::max || function == ReduceFunction::min;
    if (extreme && x[static_cast<int>(axis)] == 0)
      value_error(op, ": expected at least one value along axis ", axis, ", got x of shape ", x);
  }
  Shape y;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (!reduced[axis])
      y.push_back(x[axis]);
    else if (keepdims)
      y.push_back(1);
  }
  return y;
}

ReduceShape reduction(const Shape& x, const std::vector<std::int64_t>& axes) {
  bool reduced[Shape::kMaxRank] = {};
  for (std::int64_t axis : axes) reduced[axis] = true;
  return joined(x, reduced);
}

ReduceShape reduction_to(const Shape& y, const Shape& operand) {
  bool reduced[Shape::kMaxRank] = {};
  for (int axis = 0; axis < y.rank(); ++axis) {
    const int own = axis - (y.rank() - operand.rank());
    reduced[axis] = own < 0 || (operand[own] == 1 && y[axis] != 1);
  }
  return joined(y, reduced);
}

}  // namespace convlet
