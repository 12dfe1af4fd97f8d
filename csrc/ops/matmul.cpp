#include "ops/matmul.h"

namespace convlet {

MatmulShape check_matmul(const char* op, const Shape& a, const Shape& b, bool transpose_a,
                         bool transpose_b) {
  const int rank = a.rank();
  if (rank < 2 || b.rank() != rank)
    value_error(op, ": expected a and b of one rank >= 2, got a ", a, " and b ", b);
  MatmulShape s;
  s.B = 1;
  for (int axis = 0; axis < rank - 2; ++axis) {
    if (a[axis] != b[axis])
      value_error(op, ": expected equal leading axes, got a ", a, " and b ", b);
    s.B = checked_multiply(s.B, a[axis], op);
  }
  s.M = a[rank - (transpose_a ? 1 : 2)];
  s.K = a[rank - (transpose_a ? 2 : 1)];
  s.N = b[rank - (transpose_b ? 2 : 1)];
  s.transpose_a = transpose_a;
  s.transpose_b = transpose_b;
  if (b[rank - (transpose_b ? 1 : 2)] != s.K)
    value_error(op, ": expected inner sizes that agree, got ", s.K, " of a ", a,
                transpose_a ? " transposed" : "", " and ", b[rank - (transpose_b ? 1 : 2)],
                " of b ", b, transpose_b ? " transposed" : "");
  if (s.M < 1 || s.N < 1 || s.K < 1)
    value_error(op, ": expected matrices with sizes of at least 1, got a ", a, " and b ", b);
  checked_multiply(matmul_shape(a, s).elements(op), sizeof(float), op);
  return s;
}

Shape matmul_shape(const Shape& a, const MatmulShape& shape) {
  Shape y = a;
  y[y.rank() - 2] = shape.M;
  y[y.rank() - 1] = shape.N;
  return y;
}

// With A = op(a) and B = op(b): dA = dy B^T, and da is dA or its transpose B dy^T.
MatmulGradient gradient_of_a(const MatmulShape& s) {
  if (s.transpose_a) return {{s.B, s.K, s.M, s.N, s.transpose_b, true}, false};
  return {{s.B, s.M, s.K, s.N, false, !s.transpose_b}, true};
}

// dB = A^T dy, and db is dB or its transpose dy^T A.
MatmulGradient gradient_of_b(const MatmulShape& s) {
  if (s.transpose_b) return {{s.B, s.N, s.K, s.M, true, s.transpose_a}, true};
  return {{s.B, s.K, s.N, s.M, !s.transpose_a, false}, false};
}

}  // namespace convlet
