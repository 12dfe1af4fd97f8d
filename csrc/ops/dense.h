// dense: y[n,o] = act( bias[o] + sum_i x[n,i] w[i,o] ).   x (N,I)   w (I,O)   bias (O,)   y (N,O)
#pragma once
#include "core/tensor.h"

namespace convlet {

struct DenseShape {
  std::int64_t N, I, O;

  Shape x() const { return {N, I}; }
  Shape weight() const { return {I, O}; }
  Shape y() const { return {N, O}; }
};

DenseShape check_dense(const char* op, const Shape& x, const Shape& weight);

}  // namespace convlet
