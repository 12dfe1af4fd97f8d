// softmax:     y[n,c] = exp(x[n,c] - max_c x[n,:]) / sum_c exp(...)        over the last axis
// log_softmax: y[n,c] = x[n,c] - max - log sum_c exp(x[n,c] - max)
// Gradients: softmax dx = y * (dy - sum(dy*y));  log_softmax dx = dy - exp(y) * sum(dy)
#pragma once
#include "core/tensor.h"

namespace convlet {

struct RowsShape {
  std::int64_t N, C;  // N rows of C contiguous values
};

// The rows of a tensor of rank >= 1 whose last axis is C; ValueError for rank 0 or C = 0.
RowsShape check_softmax(const char* op, const Shape& x);

}  // namespace convlet
