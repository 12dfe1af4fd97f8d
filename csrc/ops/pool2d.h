// max_pool2d: y[n,p,q,c] = max of x over the window (r,s); avg_pool2d: its mean.
// x (N,H,W,C)   y (N,P,Q,C);   window row r reads x row p*stride_h + r*dilation_h - pad_top.
// Max: padding never wins, NaN propagates, the first maximum in row-major order takes the gradient.
// Average: divides by the cells inside x, or with count_include_pad by those inside x plus padding.
// P = floor or (ceil_mode) ceil of (H + pads - dilation_h*(R-1) - 1) / stride_h, plus 1; with
// ceil_mode a last window that would start inside the bottom or right padding is dropped (as
// torch).
#pragma once
#include <string>

#include "core/tensor.h"

namespace convlet {

struct Pool2dOptions {
  std::int64_t window_h = 2, window_w = 2;
  std::int64_t stride_h = 2, stride_w = 2;
  std::string padding = "explicit";  // "valid" | "same" | "explicit", as in Conv2dOptions
  std::int64_t pad_top = 0, pad_bottom = 0, pad_left = 0, pad_right = 0;
  std::int64_t dilation_h = 1, dilation_w = 1;
  bool ceil_mode = false;
  bool count_include_pad = false;
};

struct Pool2dShape {
  std::int64_t N, H, W, C;
  std::int64_t R, S;
  std::int64_t P, Q;
  std::int64_t stride_h, stride_w;
  std::int64_t pad_top, pad_bottom, pad_left, pad_right;
  std::int64_t dilation_h, dilation_w;
  bool count_include_pad;

  Shape x() const { return {N, H, W, C}; }
  Shape y() const { return {N, P, Q, C}; }
};

// ValueError unless every size is positive, each padding is at most half the (dilated) window (not
// asked of "same") and no dilation exceeds x, so that no window lies wholly in the padding.
Pool2dShape check_pool2d(const char* op, const Shape& x, const Pool2dOptions& options);

}  // namespace convlet
