// reduce: y = the sum, mean, largest or smallest value of x over some of its axes.
// dx: sum dy · mean dy / count · max, min: dy / ties where x is the extreme (shared evenly by equal
// values, as torch's amax), else 0. NaN makes the result NaN, and shares its gradient.
#pragma once
#include <string>
#include <vector>

#include "core/tensor.h"

namespace convlet {

enum class ReduceFunction { sum, mean, max, min };
constexpr ReduceFunction kLastReduceFunction = ReduceFunction::min;

ReduceFunction reduce_function_named(const char* op, const std::string& name);
const char* name_of(ReduceFunction function);

// x's axes without those of size 1, neighbours of one kind joined: kept and reduced axes alternate.
struct ReduceShape {
  std::int64_t inputs, outputs;  // elements of x and of y
  std::int64_t count;            // elements of x for each of y
  int rank;                      // at least 1
  std::int64_t size[Shape::kMaxRank];
  bool reduced[Shape::kMaxRank];
};

// The shape of y: without the reduced axes, or with size 1 there. ValueError for an axis that x
// does not have, one that comes twice, and the largest or smallest of nothing.
Shape reduced_shape(const char* op, ReduceFunction function, const Shape& x,
                    const std::vector<std::int64_t>& axes, bool keepdims);
ReduceShape reduction(const Shape& x, const std::vector<std::int64_t>& axes);

// The sum that undoes broadcasting `operand` to y.
ReduceShape reduction_to(const Shape& y, const Shape& operand);

}  // namespace convlet
