// upsample2d: images enlarged by whole factors. x (N,H,W,C)   y (N,H*size_h,W*size_w,C)
//   nearest   y[p,q] = x[p / size_h, q / size_w]
//   bilinear  the position (p + 1/2) / size_h - 1/2 between rows of x (half-pixel centres, as
//             Keras, and torch with align_corners=False), clamped to [0, H-1]; columns likewise
#pragma once
#include "core/tensor.h"
#include "ops/interpolation.h"

namespace convlet {

struct Upsample2dShape {
  std::int64_t N, H, W, C;
  std::int64_t size_h, size_w;
  Interpolation interpolation;

  Shape x() const { return {N, H, W, C}; }
  Shape y() const { return {N, H * size_h, W * size_w, C}; }
};

Upsample2dShape check_upsample2d(const char* op, const Shape& x, std::int64_t size_h,
                                 std::int64_t size_w, Interpolation interpolation);

}  // namespace convlet
