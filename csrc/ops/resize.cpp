#include "ops/resize.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace convlet {

namespace {

constexpr std::int64_t kLargest = 32767;

const Shape& checked(const char* op, const Shape& x, std::int64_t height, std::int64_t width) {
  if (x[2] != 1 && x[2] != 3) {
    value_error(op, ": expected x (H,W,C) with C=1 or C=3, got C=", x[2]);
  }
  for (std::int64_t size : {x[0], x[1], height, width}) {
    if (size < 1 || size > kLargest) {
      value_error(op, ": expected heights and widths in 1..", kLargest, ", got ", size);
    }
  }
  return x;
}

}  // namespace

Resize::Axis::Axis(std::int64_t in_size, std::int64_t out_size) : in(in_size), out(out_size) {
  const double step = static_cast<double>(in) / static_cast<double>(out);
  const double reach = std::max(step, 1.0);
  most = static_cast<std::int64_t>(std::ceil(reach)) * 2 + 1;
  weights.resize(static_cast<std::size_t>(out * most));
  std::vector<double> shares(static_cast<std::size_t>(most));
  for (std::int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * step;
    const auto begin = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - reach + 0.5));
    const auto end = std::min(in, static_cast<std::int64_t>(centre + reach + 0.5));
    double sum = 0;
    for (std::int64_t j = begin; j < end; ++j) {
      const double distance = std::abs((static_cast<double>(j) - centre + 0.5) * (1.0 / reach));
      sum += shares[static_cast<std::size_t>(j - begin)] = std::max(0.0, 1.0 - distance);
    }
    first.push_back(begin);
    count.push_back(end - begin);
    for (std::int64_t j = 0; j < end - begin; ++j) {
      const double share = shares[static_cast<std::size_t>(j)] / sum;
      weights[static_cast<std::size_t>(i * most + j)] =
          static_cast<std::int32_t>(0.5 + share * (1 << kResizeBits));
    }
  }
}

ResizeAxis Resize::Axis::view() const {
  return {in, out, most, first.data(), count.data(), weights.data()};
}

Resize::Resize(const char* op, const Shape& x, std::int64_t height, std::int64_t width)
    : channels_(checked(op, x, height, width)[2]), h_(x[0], height), w_(x[1], width) {}

ResizeShape Resize::shape() const {
  return {channels_, h_.view(), w_.view()};
}

}  // namespace convlet
