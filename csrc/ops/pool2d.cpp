#include "ops/pool2d.h"

namespace convlet {
namespace {

// One axis of the geometry: H and the window's rows, or W and its columns.
struct Axis {
  const char* name;
  std::int64_t size, window, stride, dilation;
  std::int64_t before, after;  // padding

  std::int64_t extent() const { return dilation * (window - 1) + 1; }
};

void expect_positive(const char* op, const char* name, std::int64_t h, std::int64_t w) {
  if (h < 1 || w < 1) value_error(op, ": expected ", name, " of at least 1, got (", h, ",", w, ")");
  if (h > kMaxBytes || w > kMaxBytes)
    value_error(op, ": expected ", name, " of at most 2^47, got (", h, ",", w, ")");
}

// Keras' "same": ceil(size / stride) outputs, the odd cell of padding after.
void pad_same(Axis& axis) {
  const std::int64_t outputs = (axis.size - 1) / axis.stride + 1;
  const std::int64_t total = (outputs - 1) * axis.stride + axis.extent() - axis.size;
  axis.before = total > 0 ? total / 2 : 0;
  axis.after = total > 0 ? total - axis.before : 0;
}

void check_padding(const char* op, const Axis& axis) {
  const std::int64_t most = axis.extent() / 2;
  if (axis.before < 0 || axis.after < 0 || axis.before > most || axis.after > most)
    value_error(op, ": expected padding of ", axis.name, " between 0 and half the window, ", most,
                ", got (", axis.before, ",", axis.after, ") for a window of ", axis.window,
                " with dilation ", axis.dilation);
}

std::int64_t output_size(const char* op, const Axis& axis, bool ceil_mode) {
  const std::int64_t padded = axis.size + axis.before + axis.after;
  const std::int64_t room = padded - axis.extent() + (ceil_mode ? axis.stride - 1 : 0);
  if (room < 0)
    value_error(op, ": expected x to be at least as large as the window, got ", axis.name, "=",
                axis.size, ", ", padded, " with padding, and a window of ", axis.extent(),
                " (pool_size ", axis.window, ", dilation ", axis.dilation, ")");
  std::int64_t outputs = room / axis.stride + 1;
  if (ceil_mode && (outputs - 1) * axis.stride >= axis.size + axis.before) --outputs;
  return outputs;
}

// Padding and extents are bounded, so only a dilation larger than x can step over all of it.
void check_no_empty_window(const char* op, const Axis& axis, std::int64_t outputs) {
  if (axis.dilation <= axis.size) return;
  for (std::int64_t p = 0; p < outputs && p * axis.stride < axis.before; ++p) {
    const std::int64_t skipped = axis.before - p * axis.stride;
    const std::int64_t first = (axis.dilation - skipped % axis.dilation) % axis.dilation;
    if (first >= axis.size)
      value_error(op, ": expected every window to touch x, got one that lies in the padding: ",
                  axis.name, "=", axis.size, ", pool_size ", axis.window, ", dilation ",
                  axis.dilation, ", padding (", axis.before, ",", axis.after, ")");
  }
}

}  // namespace

Pool2dShape check_pool2d(const char* op, const Shape& x, const Pool2dOptions& options) {
  if (x.rank() != 4) value_error(op, ": expected x of 4 axes (N,H,W,C), got x of shape ", x);
  if (x[0] < 0 || x[1] < 1 || x[2] < 1 || x[3] < 1)
    value_error(op, ": expected x (N,H,W,C) with N >= 0 and H, W, C >= 1, got x of shape ", x);
  expect_positive(op, "pool_size", options.window_h, options.window_w);
  expect_positive(op, "stride", options.stride_h, options.stride_w);
  expect_positive(op, "dilation", options.dilation_h, options.dilation_w);
  checked_multiply(options.dilation_h, options.window_h, op);
  checked_multiply(options.dilation_w, options.window_w, op);

  Axis h = {"H", x[1], options.window_h, options.stride_h, options.dilation_h, 0, 0};
  Axis w = {"W", x[2], options.window_w, options.stride_w, options.dilation_w, 0, 0};
  if (options.padding == "same") {
    pad_same(h);
    pad_same(w);
  } else if (options.padding == "explicit") {
    h.before = options.pad_top, h.after = options.pad_bottom;
    w.before = options.pad_left, w.after = options.pad_right;
    check_padding(op, h);
    check_padding(op, w);
  } else if (options.padding != "valid") {
    value_error(op, ": expected padding \"valid\", \"same\" or numbers, got \"", options.padding,
                "\"");
  }

  Pool2dShape s;
  s.N = x[0], s.H = x[1], s.W = x[2], s.C = x[3];
  s.R = h.window, s.S = w.window;
  s.P = output_size(op, h, options.ceil_mode);
  s.Q = output_size(op, w, options.ceil_mode);
  s.stride_h = h.stride, s.stride_w = w.stride;
  s.pad_top = h.before, s.pad_bottom = h.after;
  s.pad_left = w.before, s.pad_right = w.after;
  s.dilation_h = h.dilation, s.dilation_w = w.dilation;
  s.count_include_pad = options.count_include_pad;
  check_no_empty_window(op, h, s.P);
  check_no_empty_window(op, w, s.Q);
  for (const Shape& shape : {s.x(), s.y()}) checked_multiply(shape.elements(), sizeof(float), op);
  return s;
}

}  // namespace convlet
