#include "ops/conv2d.h"

#include "ops/window.h"

namespace convlet {
namespace {

std::int64_t dilated(std::int64_t window, std::int64_t dilation, const char* what) {
  return checked_multiply(dilation, window - 1, what) + 1;
}

void check_shapes(const char* op, const Shape& x, const Shape& weight, std::int64_t groups) {
  if (x.rank() != 4) value_error(op, ": expected x of 4 axes (N,H,W,C), got x of shape ", x);
  if (weight.rank() != 4)
    value_error(op, ": expected weight of 4 axes (R,S,C/groups,K), got weight of shape ", weight);
  if (x[0] < 0 || x[1] < 1 || x[2] < 1 || x[3] < 1)
    value_error(op, ": expected x (N,H,W,C) with N >= 0 and H, W, C >= 1, got x of shape ", x);
  for (std::int64_t size : weight)
    if (size < 1)
      value_error(
          op, ": expected weight (R,S,C/groups,K) with sizes of at least 1, got weight of shape ",
          weight);
  if (groups < 1) value_error(op, ": expected groups of at least 1, got ", groups);
  if (x[3] % groups != 0)
    value_error(op, ": expected groups to divide the ", x[3], " channels of x (N,H,W,C)=", x,
                ", got groups=", groups);
  if (weight[2] != x[3] / groups)
    value_error(op, ": expected weight (R,S,C/groups,K) with C/groups=", x[3] / groups,
                " to match x (N,H,W,C)=", x, ", got weight ", weight);
  if (weight[3] % groups != 0)
    value_error(op, ": expected groups to divide the K=", weight[3],
                " output channels of weight (R,S,C/groups,K)=", weight, ", got groups=", groups);
}

}  // namespace

Conv2dShape check_conv2d(const char* op, const Shape& x, const Shape& weight,
                         const Conv2dOptions& options) {
  check_shapes(op, x, weight, options.groups);
  expect_positive(op, "stride", options.stride_h, options.stride_w);
  expect_positive(op, "dilation", options.dilation_h, options.dilation_w);

  Conv2dShape s;
  s.N = x[0], s.H = x[1], s.W = x[2], s.C = x[3];
  s.R = weight[0], s.S = weight[1], s.K = weight[3];
  s.stride_h = options.stride_h, s.stride_w = options.stride_w;
  s.dilation_h = options.dilation_h, s.dilation_w = options.dilation_w;
  s.groups = options.groups;

  const std::string what = concat(op, ": x ", x, " and weight ", weight);
  const std::int64_t extent_h = dilated(s.R, s.dilation_h, what.c_str());
  const std::int64_t extent_w = dilated(s.S, s.dilation_w, what.c_str());
  Padding h = {0, 0}, w = {0, 0};
  if (options.padding == "same") {
    h = same_padding(s.H, extent_h, s.stride_h);
    w = same_padding(s.W, extent_w, s.stride_w);
  } else if (options.padding == "explicit") {
    h = {options.pad_top, options.pad_bottom};
    w = {options.pad_left, options.pad_right};
    for (std::int64_t pad : {h.before, h.after, w.before, w.after})
      if (pad < 0 || pad > kMaxBytes)
        value_error(op, ": expected padding between 0 and 2^47, got ((", h.before, ",", h.after,
                    "),(", w.before, ",", w.after, "))");
  } else if (options.padding != "valid") {
    value_error(op, ": expected padding \"valid\", \"same\" or numbers, got \"", options.padding,
                "\"");
  }
  s.pad_top = h.before, s.pad_bottom = h.after;
  s.pad_left = w.before, s.pad_right = w.after;

  const std::int64_t padded_h = s.H + h.before + h.after, padded_w = s.W + w.before + w.after;
  if (padded_h < extent_h || padded_w < extent_w)
    value_error(op, ": expected x to be at least as large as the window, got x (H,W)=(", s.H, ",",
                s.W, "), (", padded_h, ",", padded_w, ") with padding, and a window of (", extent_h,
                ",", extent_w, ") (weight (R,S)=(", s.R, ",", s.S, "), dilation (", s.dilation_h,
                ",", s.dilation_w, "))");
  s.P = (padded_h - extent_h) / s.stride_h + 1;
  s.Q = (padded_w - extent_w) / s.stride_w + 1;

  for (const Shape& shape : {s.x(), s.weight(), s.y()})
    checked_multiply(shape.elements(what.c_str()), sizeof(float), what.c_str());
  // Kernels copy a padded image at a time, of x or of dy; a large one is never asked for on
  // purpose.
  const std::int64_t pixels = checked_multiply(padded_h, padded_w, what.c_str());
  checked_multiply(checked_multiply(pixels, s.C > s.K ? s.C : s.K, what.c_str()), 64, what.c_str());
  return s;
}

}  // namespace convlet
