#include "ops/broadcast.h"

namespace convlet {
namespace {

// Leaves out axes of size 1 and joins the others where every operand's step allows it.
BroadcastShape joined(const Shape& y, const std::vector<std::vector<std::int64_t>>& steps) {
  BroadcastShape s = {};
  s.elements = y.elements();
  for (int axis = 0; axis < y.rank(); ++axis) {
    if (y[axis] == 1) continue;
    bool joins = s.rank > 0;
    for (std::size_t i = 0; joins && i < steps.size(); ++i)
      joins = s.step[i][s.rank - 1] == steps[i][static_cast<std::size_t>(axis)] * y[axis];
    if (joins)
      s.size[s.rank - 1] *= y[axis];
    else
      s.size[s.rank++] = y[axis];
    for (std::size_t i = 0; i < steps.size(); ++i)
      s.step[i][s.rank - 1] = steps[i][static_cast<std::size_t>(axis)];
  }
  if (s.rank == 0) {  // one element
    s.size[0] = 1;
    s.rank = 1;
  }
  return s;
}

// The distances in memory between neighbours along each axis.
std::vector<std::int64_t> contiguous_steps(const Shape& shape) {
  std::vector<std::int64_t> steps(static_cast<std::size_t>(shape.rank()));
  std::int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    steps[static_cast<std::size_t>(axis)] = step;
    step *= shape[axis];
  }
  return steps;
}

std::string listed(const std::vector<Shape>& shapes) {
  std::string text;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    text += concat(i == 0 ? "" : i + 1 == shapes.size() ? " and " : ", ", shapes[i]);
  return text;
}

}  // namespace

Shape broadcast_shape(const char* op, const std::vector<Shape>& operands) {
  Shape y;
  int rank = 0;
  for (const Shape& operand : operands) rank = operand.rank() > rank ? operand.rank() : rank;
  for (int axis = 0; axis < rank; ++axis) {
    std::int64_t size = 1;
    for (const Shape& operand : operands) {
      const int own = axis - (rank - operand.rank());
      if (own < 0 || operand[own] == 1) continue;
      if (size != 1 && operand[own] != size)
        value_error(op, ": expected shapes that broadcast together (sizes equal or 1, aligned at ",
                    "the last axis), got ", listed(operands));
      size = operand[own];
    }
    y.push_back(size);
  }
  checked_multiply(y.elements(op), sizeof(float), op);
  return y;
}

BroadcastShape broadcast_to(const Shape& y, const std::vector<Shape>& operands) {
  std::vector<std::vector<std::int64_t>> steps;
  for (const Shape& operand : operands) {
    const std::vector<std::int64_t> own = contiguous_steps(operand);
    std::vector<std::int64_t> seen(static_cast<std::size_t>(y.rank()), 0);
    for (int axis = 0; axis < operand.rank(); ++axis)
      if (operand[axis] != 1)
        seen[static_cast<std::size_t>(axis + y.rank() - operand.rank())] =
            own[static_cast<std::size_t>(axis)];
    steps.push_back(seen);
  }
  return joined(y, steps);
}

Shape transposed_shape(const char* op, const Shape& x, const std::vector<std::int64_t>& order) {
  Shape y;
  unsigned seen = 0;
  bool valid = static_cast<int>(order.size()) == x.rank();
  for (std::int64_t axis : order) {
    valid = valid && axis >= 0 && axis < x.rank() && !(seen >> axis & 1);
    if (!valid) break;
    seen |= 1u << axis;
    y.push_back(x[static_cast<int>(axis)]);
  }
  if (!valid) {
    std::string got;
    for (std::int64_t axis : order) got += concat(got.empty() ? "" : ",", axis);
    value_error(op, ": expected each of the ", x.rank(), " axes of x ", x, " once, got (", got,
                ")");
  }
  return y;
}

BroadcastShape transposed(const Shape& x, const std::vector<std::int64_t>& order) {
  const std::vector<std::int64_t> own = contiguous_steps(x);
  Shape y;
  std::vector<std::int64_t> steps;
  for (std::int64_t axis : order) {
    y.push_back(x[static_cast<int>(axis)]);
    steps.push_back(own[static_cast<std::size_t>(axis)]);
  }
  return joined(y, {steps});
}

}  // namespace convlet
