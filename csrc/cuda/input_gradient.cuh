// The gradient of a convolution's input: a row of the product is a pixel of x, a column an input
// channel, a term a tap and an output channel. With a stride, only some taps of a window meet a
// pixel of x: which ones depends on its coordinates modulo the stride. So the pixels are cut into
// phases, and each is a product with its own taps, in which nothing is multiplied by zero for the
// stride's sake.
#pragma once
#include "cuda/convolution.cuh"

namespace convlet::cuda {

// Taps whose places in x differ by a multiple of the stride are this far apart.
inline std::int64_t tap_step(std::int64_t stride, std::int64_t dilation) {
  std::int64_t a = stride, b = dilation;
  while (b != 0) {
    const std::int64_t rest = a % b;
    a = b, b = rest;
  }
  return stride / a;
}

// One axis of x (size), w (window) and dy.
struct Axis {
  int size, window, stride, pad, dilation, tap_step;

  Axis(std::int64_t size, std::int64_t window, std::int64_t stride, std::int64_t pad,
       std::int64_t dilation)
      : size(static_cast<int>(size)),
        window(static_cast<int>(window)),
        stride(static_cast<int>(stride)),
        pad(static_cast<int>(pad)),
        dilation(static_cast<int>(dilation)),
        tap_step(static_cast<int>(cuda::tap_step(stride, dilation))) {}

  // Phase i is the pixels i, i + stride, ... of x.
  CONVLET_HOST_DEVICE int phases() const { return stride < size ? stride : size; }
  std::int64_t most_pixels() const { return ceil_div(size, stride); }
  std::int64_t most_taps() const { return ceil_div(window, tap_step); }

  struct Phase {
    int pixels, taps;
    int first_tap;           // the taps are first_tap, first_tap + tap_step, ...
    int first_place, place;  // in dy: of the first pixel's first tap, and from tap to tap
  };
  // Pixel i + stride * j meets tap r where i + stride * j + pad - dilation * r is a multiple of the
  // stride; the multiple is the pixel of dy.
  CONVLET_HOST_DEVICE Phase phase(int i) const {
    const int end = tap_step < window ? tap_step : window;
    int first = 0;
    while (first < end && (i + pad - dilation * first) % stride != 0) ++first;
    const bool any = first < end;
    return {(size - i + stride - 1) / stride, any ? (window - first + tap_step - 1) / tap_step : 0,
            first, any ? (i + pad - dilation * first) / stride : 0,
            -(dilation / (stride / tap_step))};
  }
};

struct InputGradient {
  static constexpr bool kColumnsOfAAreTerms = true;
  static constexpr bool kColumnsOfBAreTerms = true;

  Axis vertical, horizontal;
  Patches a;  // of dy
  Filters b;
  Result y;                                   // dx
  std::int64_t w_row, w_tap, x_row, x_pixel;  // elements from one to the next
  std::int64_t a_step, b_step, y_step;        // from one group or entry of the batch to the next

  CONVLET_DEVICE Product<Patches, Filters> slice(std::int64_t index) const {
    const int across = horizontal.phases(), phases = vertical.phases() * across;
    const std::int64_t group = divide(index, phases);
    const int phase = static_cast<int>(index - group * phases);
    const int row = phase / across, column = phase % across;
    const Axis::Phase h = vertical.phase(row), w = horizontal.phase(column);

    Product<Patches, Filters> p = {a, b, y, 0};
    p.terms = static_cast<std::int64_t>(h.taps) * w.taps * a.terms.low;
    p.a.data += group * a_step;
    p.a.results = {h.pixels, w.pixels};
    p.a.first_h = h.first_place, p.a.first_w = w.first_place;
    p.a.taps_h = h.taps;
    p.a.terms.middle = w.taps > 0 ? w.taps : 1;
    p.a.tap_h = h.place, p.a.tap_w = w.place;
    p.b.data += group * b_step + h.first_tap * w_row + w.first_tap * w_tap;
    p.b.taps_h = h.taps;
    p.b.terms.middle = p.a.terms.middle;
    p.y.data += group * y_step + row * x_row + column * x_pixel;
    p.y.rows = a.images * h.pixels * w.pixels;
    p.y.pixels = p.a.results;
    return p;
  }
};

inline Axis vertical_axis(const Conv2dShape& s) {
  return {s.H, s.R, s.stride_h, s.pad_top, s.dilation_h};
}
inline Axis horizontal_axis(const Conv2dShape& s) {
  return {s.W, s.S, s.stride_w, s.pad_left, s.dilation_w};
}

inline InputGradient input_gradient(const Conv2dShape& s, const Batch& batch, const float* dy,
                                    const float* w, float* dx) {
  const SliceSteps steps = slice_steps(s, batch);
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups;
  InputGradient problem = {vertical_axis(s), horizontal_axis(s), {}, {}, {}, 0, 0, 0, 0, 0, 0, 0};
  const Axis &vertical = problem.vertical, &horizontal = problem.horizontal;

  Patches& a = problem.a;
  a.data = dy;
  a.images = s.N, a.image = s.P * s.Q * s.K, a.row = s.Q * s.K, a.pixel = s.K;
  a.height = static_cast<int>(s.P), a.width = static_cast<int>(s.Q);
  a.stride_h = 1, a.stride_w = 1;
  a.terms = {1, static_cast<int>(K)};
  a.vectors = is_aligned(dy) && all_fours({s.K, K, steps.y});

  problem.w_tap = C * s.K, problem.w_row = s.S * problem.w_tap;
  problem.b = {w,
               s.K,
               C,
               0,
               a.terms,
               vertical.tap_step * problem.w_row,
               horizontal.tap_step * problem.w_tap,
               is_aligned(w) && all_fours({s.K, K, steps.w})};

  problem.x_pixel = s.C, problem.x_row = s.W * s.C;
  problem.y = matrix_result(dx, 0, C, s.C, steps.x);
  problem.y.image = s.H * s.W * s.C;
  problem.y.row = vertical.stride * problem.x_row;
  problem.y.pixel = horizontal.stride * problem.x_pixel;

  problem.a_step = steps.y, problem.b_step = steps.w, problem.y_step = steps.x;
  return problem;
}

}  // namespace convlet::cuda
