// Max and average pooling over NHWC images, four channels a thread (formulas in ops/pool2d.h). The
// backward gathers: a thread adds, in a fixed order, what the windows around its pixels give them.
#include "cuda/quads.cuh"

namespace convlet::cuda {
namespace {

// The quad of channels of an item, and the pixel or window (n,h,w) that it belongs to.
struct Place {
  std::int64_t n, h, w, c, left;
};
CONVLET_DEVICE Place place_of(std::int64_t item, std::int64_t rows, std::int64_t columns,
                              std::int64_t channels) {
  Place at;
  at.c = 4 * take_coordinate(item, (channels + 3) / 4);
  at.left = channels - at.c;
  at.w = take_coordinate(item, columns);
  at.h = take_coordinate(item, rows);
  at.n = item;
  return at;
}

// The part of a window that lies inside x.
struct Window {
  scalar::Taps rows, columns;
  const float* x;  // its first pixel
};
CONVLET_DEVICE Window window_of(const Pool2dShape& s, const float* x, std::int64_t n,
                                std::int64_t p, std::int64_t q, std::int64_t c) {
  const scalar::Taps rows = scalar::row_taps(s, p), columns = scalar::column_taps(s, q);
  return {rows, columns, x + ((n * s.H + rows.first) * s.W + columns.first) * s.C + c};
}
// f(pixel, number of the tap) for every tap, row by row.
template <class F>
CONVLET_DEVICE void for_taps(const Pool2dShape& s, const Window& window, F f) {
  const std::int64_t row = s.dilation_h * s.W * s.C, column = s.dilation_w * s.C;
  int tap = 0;
  for (std::int64_t i = 0; i < window.rows.count; ++i)
    for (std::int64_t j = 0; j < window.columns.count; ++j, ++tap)
      f(window.x + i * row + j * column, tap);
}

struct Maximum {
  Quad value;
  int tap[4];  // the first that is the largest, or NaN
};
CONVLET_DEVICE Maximum maximum_of(const Pool2dShape& s, const Window& window, std::int64_t left,
                                  bool wide) {
  Maximum best;
  for_taps(s, window, [&](const float* pixel, int tap) {
    const Quad a = load_quad(pixel, left, wide);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const bool nan = scalar::is_nan(best.value[k]);
      if (tap > 0 && (nan || !(a[k] > best.value[k] || scalar::is_nan(a[k])))) continue;
      best.value[k] = a[k];
      best.tap[k] = tap;
    }
  });
  return best;
}

// An item is a quad of y.
__global__ void __launch_bounds__(kThreads)
    max_pool2d_kernel(std::int64_t items, Pool2dShape s, const float* x, float* y, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const Place at = place_of(item, s.P, s.Q, s.C);
    Quad best = quad_of(-INFINITY);
    for_taps(s, window_of(s, x, at.n, at.h, at.w, at.c), [&](const float* pixel, int) {
      const Quad a = load_quad(pixel, at.left, wide);
#pragma unroll
      for (int k = 0; k < 4; ++k) best[k] = scalar::Largest::join(best[k], a[k]);
    });
    store_quad(y + ((at.n * s.P + at.h) * s.Q + at.w) * s.C + at.c, best, at.left, wide);
  }
}

__global__ void __launch_bounds__(kThreads)
    avg_pool2d_kernel(std::int64_t items, Pool2dShape s, const float* x, float* y, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const Place at = place_of(item, s.P, s.Q, s.C);
    const Window window = window_of(s, x, at.n, at.h, at.w, at.c);
    const float divisor =
        scalar::average_divisor(s, at.h, at.w, window.rows.count, window.columns.count);
    Quad sum = quad_of(0.0f);
    for_taps(s, window, [&](const float* pixel, int) {
      const Quad a = load_quad(pixel, at.left, wide);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += a[k];
    });
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] = sum[k] / divisor;
    store_quad(y + ((at.n * s.P + at.h) * s.Q + at.w) * s.C + at.c, sum, at.left, wide);
  }
}

bool windows_apart(const Pool2dShape& s) {
  return s.dilation_h == 1 && s.dilation_w == 1 && s.stride_h >= s.R && s.stride_w >= s.S;
}

// Windows that do not overlap: an item is a quad of a window, and writes dx from its first pixel to
// where the next window begins.
__global__ void __launch_bounds__(kThreads, 1)
    max_pool2d_apart_kernel(std::int64_t items, Pool2dShape s, const float* dy, const float* x,
                            float* dx, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const Place at = place_of(item, s.P, s.Q, s.C);
    const Window window = window_of(s, x, at.n, at.h, at.w, at.c);
    const Maximum best = maximum_of(s, window, at.left, wide);
    const Quad g = load_quad(dy + ((at.n * s.P + at.h) * s.Q + at.w) * s.C + at.c, at.left, wide);
    const std::int64_t bottom = at.h + 1 < s.P ? scalar::row_taps(s, at.h + 1).first : s.H;
    const std::int64_t right = at.w + 1 < s.Q ? scalar::column_taps(s, at.w + 1).first : s.W;
    for (std::int64_t h = window.rows.first; h < bottom; ++h)
      for (std::int64_t w = window.columns.first; w < right; ++w) {
        const std::int64_t i = h - window.rows.first, j = w - window.columns.first;
        const bool inside = i < window.rows.count && j < window.columns.count;
        const std::int64_t tap = inside ? i * window.columns.count + j : -1;
        Quad share;
#pragma unroll
        for (int k = 0; k < 4; ++k) share[k] = best.tap[k] == tap ? g[k] : 0.0f;
        store_quad(dx + ((at.n * s.H + h) * s.W + w) * s.C + at.c, share, at.left, wide);
      }
  }
}

// The windows that have position `at` of an axis among their taps: first, first + 1, ... up to
// last, of which those count whose distance is a multiple of the dilation.
struct Reach {
  std::int64_t first, last;
};
CONVLET_DEVICE Reach reach_of(std::int64_t at, std::int64_t pad, std::int64_t stride,
                              std::int64_t extent, std::int64_t windows) {
  const std::int64_t end = at + pad, begin = end - extent + 1;
  return {begin > 0 ? scalar::quotient(begin + stride - 1, stride) : 0,
          scalar::smaller(scalar::quotient(end, stride), windows - 1)};
}
// f(p, q) for the windows over pixel (h,w), in the order of the CPU's sums.
template <class F>
CONVLET_DEVICE void for_windows(const Pool2dShape& s, std::int64_t h, std::int64_t w, F f) {
  const Reach rows = reach_of(h, s.pad_top, s.stride_h, s.dilation_h * (s.R - 1) + 1, s.P);
  const Reach columns = reach_of(w, s.pad_left, s.stride_w, s.dilation_w * (s.S - 1) + 1, s.Q);
  for (std::int64_t p = rows.first; p <= rows.last; ++p) {
    if (s.dilation_h > 1 && (h + s.pad_top - p * s.stride_h) % s.dilation_h != 0) continue;
    for (std::int64_t q = columns.first; q <= columns.last; ++q) {
      if (s.dilation_w > 1 && (w + s.pad_left - q * s.stride_w) % s.dilation_w != 0) continue;
      f(p, q);
    }
  }
}

// An item is a quad of dx. Every window over it looks for its maximum again.
__global__ void __launch_bounds__(kThreads, 1)
    max_pool2d_overlapping_kernel(std::int64_t items, Pool2dShape s, const float* dy,
                                  const float* x, float* dx, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const Place at = place_of(item, s.H, s.W, s.C);
    Quad sum = quad_of(0.0f);
    for_windows(s, at.h, at.w, [&](std::int64_t p, std::int64_t q) {
      const Window window = window_of(s, x, at.n, p, q, at.c);
      const Maximum best = maximum_of(s, window, at.left, wide);
      const std::int64_t i = scalar::quotient(at.h - window.rows.first, s.dilation_h);
      const std::int64_t j = scalar::quotient(at.w - window.columns.first, s.dilation_w);
      const Quad g = load_quad(dy + ((at.n * s.P + p) * s.Q + q) * s.C + at.c, at.left, wide);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        sum[k] += best.tap[k] == i * window.columns.count + j ? g[k] : 0.0f;
    });
    store_quad(dx + ((at.n * s.H + at.h) * s.W + at.w) * s.C + at.c, sum, at.left, wide);
  }
}

__global__ void __launch_bounds__(kThreads)
    avg_pool2d_backward_kernel(std::int64_t items, Pool2dShape s, const float* dy, float* dx,
                               bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const Place at = place_of(item, s.H, s.W, s.C);
    Quad sum = quad_of(0.0f);
    for_windows(s, at.h, at.w, [&](std::int64_t p, std::int64_t q) {
      const float divisor = scalar::average_divisor(s, p, q, scalar::row_taps(s, p).count,
                                                    scalar::column_taps(s, q).count);
      const Quad g = load_quad(dy + ((at.n * s.P + p) * s.Q + q) * s.C + at.c, at.left, wide);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += g[k] / divisor;
    });
    store_quad(dx + ((at.n * s.H + at.h) * s.W + at.w) * s.C + at.c, sum, at.left, wide);
  }
}

std::int64_t y_items(const Pool2dShape& s) {
  return s.N * s.P * s.Q * quads_of(s.C);
}
std::int64_t x_items(const Pool2dShape& s) {
  return s.N * s.H * s.W * quads_of(s.C);
}

}  // namespace

void max_pool2d(Context& context, const Pool2dShape& s, const float* x, float* y) {
  const bool wide = wide_rows(s.C, x) && wide_rows(s.C, y);
  launch_items(context, max_pool2d_kernel, y_items(s), s, x, y, wide);
}

void avg_pool2d(Context& context, const Pool2dShape& s, const float* x, float* y) {
  const bool wide = wide_rows(s.C, x) && wide_rows(s.C, y);
  launch_items(context, avg_pool2d_kernel, y_items(s), s, x, y, wide);
}

void max_pool2d_backward(Context& context, const Pool2dShape& s, const float* dy, const float* x,
                         float* dx) {
  const bool wide = wide_rows(s.C, dy) && wide_rows(s.C, x) && wide_rows(s.C, dx);
  if (windows_apart(s))
    launch_items(context, max_pool2d_apart_kernel, y_items(s), s, dy, x, dx, wide);
  else
    launch_items(context, max_pool2d_overlapping_kernel, x_items(s), s, dy, x, dx, wide);
}

void avg_pool2d_backward(Context& context, const Pool2dShape& s, const float* dy, float* dx) {
  const bool wide = wide_rows(s.C, dy) && wide_rows(s.C, dx);
  launch_items(context, avg_pool2d_backward_kernel, x_items(s), s, dy, dx, wide);
}

}  // namespace convlet::cuda
