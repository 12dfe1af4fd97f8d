// conv2d: y[n,p,q,k] = act( bias[k] + sum_{r,s,c} x[n, p*stride_h + r*dilation_h - pad_top,
//                                                   q*stride_w + s*dilation_w - pad_left, g*C/G +
//                                                   c]
//                                               * w[r,s,c,k] ),   g = k / (K/G),  c < C/G
// x (N,H,W,C)   w (R,S,C/G,K)   bias (K,)   y (N,P,Q,K);   reads outside x count as zero.
// P = (H + pad_top + pad_bottom - dilation_h*(R-1) - 1) / stride_h + 1, and Q likewise.
#pragma once
#include <string>

#include "core/tensor.h"

namespace convlet {

struct Conv2dOptions {
  std::int64_t stride_h = 1, stride_w = 1;
  // "valid" and "same" leave the four numbers to the check; "explicit" uses them as they are.
  std::string padding = "explicit";
  std::int64_t pad_top = 0, pad_bottom = 0, pad_left = 0, pad_right = 0;
  std::int64_t dilation_h = 1, dilation_w = 1;
  std::int64_t groups = 1;
};

// Everything a kernel needs to know; made only by check_conv2d.
struct Conv2dShape {
  std::int64_t N, H, W, C;
  std::int64_t K, R, S;
  std::int64_t P, Q;
  std::int64_t stride_h, stride_w;
  std::int64_t pad_top, pad_bottom, pad_left, pad_right;
  std::int64_t dilation_h, dilation_w;
  std::int64_t groups;

  Shape x() const { return {N, H, W, C}; }
  Shape weight() const { return {R, S, C / groups, K}; }
  Shape y() const { return {N, P, Q, K}; }
};

// The one check: ValueError named `op` unless x, weight and options fit together. "same" is Keras':
// P = ceil(H / stride_h), the odd row of padding below and the odd column to the right.
Conv2dShape check_conv2d(const char* op, const Shape& x, const Shape& weight,
                         const Conv2dOptions& options);

}  // namespace convlet
