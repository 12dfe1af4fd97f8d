// What the checks of windowed ops (convolution, pooling) have in common.
#pragma once
#include "core/shape.h"

namespace convlet {

struct Padding {
  std::int64_t before, after;
};

// Keras' "same" along one axis: as many outputs as ceil(size / stride), the odd cell of padding
// after. `extent` is the dilated window.
inline Padding same_padding(std::int64_t size, std::int64_t extent, std::int64_t stride) {
  const std::int64_t outputs = (size - 1) / stride + 1;
  const std::int64_t total = (outputs - 1) * stride + extent - size;
  return total > 0 ? Padding{total / 2, total - total / 2} : Padding{0, 0};
}

inline void expect_positive(const char* op, const char* name, std::int64_t h, std::int64_t w) {
  if (h < 1 || w < 1) value_error(op, ": expected ", name, " of at least 1, got (", h, ",", w, ")");
  if (h > kMaxBytes || w > kMaxBytes)
    value_error(op, ": expected ", name, " of at most 2^47, got (", h, ",", w, ")");
}

}  // namespace convlet
