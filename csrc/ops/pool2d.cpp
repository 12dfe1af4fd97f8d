#include "ops/pool2d.h"

#include "ops/window.h"

namespace convlet {
namespace {

// One axis of the geometry: H and the window's rows, or W and its columns.
struct Axis {
  const char* name;
  std::int64_t size, window, stride, dilation;
  Padding padding;

  std::int64_t extent() const { return dilation * (window - 1) + 1; }
};

void check_padding(const char* op, const Axis& axis) {
  const std::int64_t most = axis.extent() / 2;
  if (axis.padding.before < 0 || axis.padding.after < 0 || axis.padding.before > most ||
      axis.padding.after > most)
    value_error(op, ": expected padding of ", axis.name, " between 0 and half the window, ", most,
                ", got (", axis.padding.before, ",", axis.padding.after, ") for a window of ",
                axis.window, " with dilation ", axis.dilation);
}

std::int64_t output_size(const char* op, const Axis& axis, bool ceil_mode) {
  const std::int64_t padded = axis.size + axis.padding.before + axis.padding.after;
  const std::int64_t room = padded - axis.extent() + (ceil_mode ? axis.stride - 1 : 0);
  if (room < 0)
    value_error(op, ": expected x to be at least as large as the window, got ", axis.name, "=",
                axis.size, ", ", padded, " with padding, and a window of ", axis.extent(),
                " (pool_size ", axis.window, ", dilation ", axis.dilation, ")");
  std::int64_t outputs = room / axis.stride + 1;
  if (ceil_mode && (outputs - 1) * axis.stride >= axis.size + axis.padding.before) --outputs;
  return outputs;
}

// Taps that are no further apart than x is long cannot step over it: no window misses x.
void check_dilation(const char* op, const Axis& axis) {
  if (axis.window > 1 && axis.dilation > axis.size)
    value_error(op, ": expected dilation of at most ", axis.name, "=", axis.size,
                ", so that every window touches x, got dilation ", axis.dilation,
                " for a window of ", axis.window);
}

}  // namespace

Pool2dShape check_pool2d(const char* op, const Shape& x, const Pool2dOptions& options) {
  if (x.rank() != 4) value_error(op, ": expected x of 4 axes (N,H,W,C), got x of shape ", x);
  if (x[0] < 0 || x[1] < 1 || x[2] < 1 || x[3] < 1)
    value_error(op, ": expected x (N,H,W,C) with N >= 0 and H, W, C >= 1, got x of shape ", x);
  const std::string what = concat(op, ": x ", x);
  checked_multiply(x.elements(what.c_str()), sizeof(float), what.c_str());
  expect_positive(op, "pool_size", options.window_h, options.window_w);
  expect_positive(op, "stride", options.stride_h, options.stride_w);
  expect_positive(op, "dilation", options.dilation_h, options.dilation_w);
  checked_multiply(options.dilation_h, options.window_h, op);
  checked_multiply(options.dilation_w, options.window_w, op);

  Axis h = {"H", x[1], options.window_h, options.stride_h, options.dilation_h, {0, 0}};
  Axis w = {"W", x[2], options.window_w, options.stride_w, options.dilation_w, {0, 0}};
  if (options.padding == "same") {
    h.padding = same_padding(h.size, h.extent(), h.stride);
    w.padding = same_padding(w.size, w.extent(), w.stride);
  } else if (options.padding == "explicit") {
    h.padding = {options.pad_top, options.pad_bottom};
    w.padding = {options.pad_left, options.pad_right};
    check_padding(op, h);
    check_padding(op, w);
  } else if (options.padding != "valid") {
    value_error(op, ": expected padding \"valid\", \"same\" or numbers, got \"", options.padding,
                "\"");
  }
  check_dilation(op, h);
  check_dilation(op, w);

  Pool2dShape s;
  s.N = x[0], s.H = x[1], s.W = x[2], s.C = x[3];
  s.R = h.window, s.S = w.window;
  s.P = output_size(op, h, options.ceil_mode);
  s.Q = output_size(op, w, options.ceil_mode);
  s.stride_h = h.stride, s.stride_w = w.stride;
  s.pad_top = h.padding.before, s.pad_bottom = h.padding.after;
  s.pad_left = w.padding.before, s.pad_right = w.padding.after;
  s.dilation_h = h.dilation, s.dilation_w = w.dilation;
  s.count_include_pad = options.count_include_pad;
  checked_multiply(s.y().elements(what.c_str()), sizeof(float), what.c_str());
  // What kernels compute with: the taps of a window, and the steps from one to the next.
  checked_multiply(s.R, s.S, what.c_str());
  checked_multiply(checked_multiply(s.dilation_h, s.W, what.c_str()), s.C, what.c_str());
  checked_multiply(s.dilation_w, s.C, what.c_str());
  return s;
}

}  // namespace convlet
