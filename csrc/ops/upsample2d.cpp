#include "ops/upsample2d.h"

namespace convlet {

Upsample2dShape check_upsample2d(const char* op, const Shape& x, std::int64_t size_h,
                                 std::int64_t size_w, Interpolation interpolation) {
  if (x.rank() != 4 || x[0] < 0 || x[1] < 1 || x[2] < 1 || x[3] < 1)
    value_error(op, ": expected x (N,H,W,C) with H, W, C of at least 1, got x of shape ", x);
  if (size_h < 1 || size_w < 1)
    value_error(op, ": expected size of at least 1, got (", size_h, ",", size_w, ")");
  Upsample2dShape s{x[0], x[1], x[2], x[3], size_h, size_w, interpolation};
  checked_multiply(x[1], size_h, op);
  checked_multiply(x[2], size_w, op);
  checked_multiply(s.y().elements(op), sizeof(float), op);
  return s;
}

}  // namespace convlet
