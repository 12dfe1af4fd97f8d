// matmul: y = op(a) op(b) for each of B pairs of matrices, where op transposes or not.
// op(a) (M,K)   op(b) (K,N)   y (M,N). The gradients are such products too.
#pragma once
#include "core/tensor.h"

namespace convlet {

struct MatmulShape {
  std::int64_t B, M, N, K;
  bool transpose_a, transpose_b;
};

// ValueError unless a and b have the same rank >= 2, equal leading axes and inner sizes that agree.
MatmulShape check_matmul(const char* op, const Shape& a, const Shape& b, bool transpose_a,
                         bool transpose_b);
// The shape of y: a's leading axes, M and N.
Shape matmul_shape(const Shape& a, const MatmulShape& shape);

// The product that gives the gradient of an operand: dy times the other one, or the other one times
// dy.
struct MatmulGradient {
  MatmulShape shape;
  bool dy_first;
};
MatmulGradient gradient_of_a(const MatmulShape& shape);  // dy and b
MatmulGradient gradient_of_b(const MatmulShape& shape);  // dy and a

}  // namespace convlet
