// Broadcasting as in numpy: shapes are aligned at their last axes; where one has size 1 or no axis
// at all, it is repeated. And copies with any steps: a transposed tensor, or a repeated one.
#pragma once
#include <initializer_list>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace convlet {

// Up to three tensors seen in the shape of y, with neighbouring axes joined wherever all of them
// step evenly: a tensor of y's shape has one axis. Steps are in elements; 0 repeats.
struct BroadcastShape {
  static constexpr int kMost = 3;
  std::int64_t elements;  // of y
  int rank;               // at least 1
  std::int64_t size[Shape::kMaxRank];
  std::int64_t step[kMost][Shape::kMaxRank];
};

// The shape that operands of these shapes give together; ValueError with all shapes when they do
// not broadcast.
Shape broadcast_shape(const char* op, const std::vector<Shape>& operands);

// The operands seen in the shape of y, to which each of them must broadcast.
BroadcastShape broadcast_to(const Shape& y, const std::vector<Shape>& operands);

// The axes of x in another order: y's axis i is x's axis permutation[i].
Shape transposed_shape(const char* op, const Shape& x, const std::vector<std::int64_t>& order);
BroadcastShape transposed(const Shape& x, const std::vector<std::int64_t>& order);

}  // namespace convlet
