// A tensor's shape: at most eight sizes, and arithmetic on sizes that cannot overflow in silence.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "core/error.h"

namespace convlet {

// No tensor, workspace or arena may exceed this many bytes (2^47, the user address space of
// x86-64).
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 47;

// a * b for sizes; a ValueError that names `what` when the product exceeds kMaxBytes.
inline std::int64_t checked_multiply(std::int64_t a, std::int64_t b, const char* what) {
  std::int64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > kMaxBytes)
    value_error(what, ": expected a size of at most 2^47, got ", a, " x ", b);
  return product;
}

class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) {
    for (std::int64_t size : sizes) push_back(size);
  }

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return sizes_[axis]; }
  std::int64_t& operator[](int axis) { return sizes_[axis]; }
  std::int64_t back() const { return sizes_[rank_ - 1]; }
  const std::int64_t* begin() const { return sizes_; }
  const std::int64_t* end() const { return sizes_ + rank_; }

  void push_back(std::int64_t size) {
    if (rank_ == kMaxRank) value_error("shape: expected at most ", kMaxRank, " axes, got more");
    sizes_[rank_++] = size;
  }

  // The number of elements (1 for rank 0); a ValueError that names `what` when it exceeds
  // kMaxBytes.
  std::int64_t elements(const char* what = "shape") const {
    std::int64_t count = 1;
    bool empty = false;
    for (std::int64_t size : *this) {
      if (size == 0) empty = true;
      if (size > 0) count = checked_multiply(count, size, what);
    }
    return empty ? 0 : count;
  }

  // This shape with `size` in front: a per-sample shape becomes a batch's.
  Shape with_front(std::int64_t size) const {
    Shape batch{size};
    for (std::int64_t s : *this) batch.push_back(s);
    return batch;
  }

  // This shape without its first axis.
  Shape without_front() const {
    Shape rest;
    for (int axis = 1; axis < rank_; ++axis) rest.push_back(sizes_[axis]);
    return rest;
  }

  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int axis = 0; axis < rank_; ++axis)
      if (sizes_[axis] != other.sizes_[axis]) return false;
    return true;
  }
  bool operator!=(const Shape& other) const { return !(*this == other); }

  // Written as Python writes a tuple: (2,3), (5,), ().
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '(';
    for (int axis = 0; axis < shape.rank_; ++axis) out << (axis ? "," : "") << shape[axis];
    return out << (shape.rank_ == 1 ? ",)" : ")");
  }

 private:
  int rank_ = 0;
  std::int64_t sizes_[kMaxRank] = {};
};

}  // namespace convlet
