// Enlarging images by whole factors (formulas in ops/upsample2d.h), four channels a thread.
#include "cuda/quads.cuh"

namespace convlet::cuda {
namespace {

// The value of y between the rows and columns around it.
CONVLET_DEVICE Quad bilinear(const Upsample2dShape& s, const float* image, std::int64_t p,
                             std::int64_t q, std::int64_t left, bool wide) {
  const scalar::Neighbours row(p, s.size_h, s.H), column(q, s.size_w, s.W);
  const float* low = image + row.low * s.W * s.C;
  const float* high = image + row.high * s.W * s.C;
  const Quad a = load_quad(low + column.low * s.C, left, wide);
  const Quad b = load_quad(low + column.high * s.C, left, wide);
  const Quad c = load_quad(high + column.low * s.C, left, wide);
  const Quad d = load_quad(high + column.high * s.C, left, wide);
  Quad y;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float top = fmaf(column.share, b[k], (1.0f - column.share) * a[k]);
    const float bottom = fmaf(column.share, d[k], (1.0f - column.share) * c[k]);
    y[k] = fmaf(row.share, bottom, (1.0f - row.share) * top);
  }
  return y;
}

// An item is a quad of y.
__global__ void __launch_bounds__(kThreads)
    upsample2d_kernel(std::int64_t items, Upsample2dShape s, const float* x, float* y, bool wide) {
  const std::int64_t P = s.H * s.size_h, Q = s.W * s.size_w;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t n = item;
    const std::int64_t c = 4 * take_coordinate(n, (s.C + 3) / 4), left = s.C - c;
    const std::int64_t q = take_coordinate(n, Q), p = take_coordinate(n, P);
    const float* image = x + n * s.H * s.W * s.C + c;
    Quad value;
    if (s.interpolation == Interpolation::nearest) {
      const std::int64_t h = scalar::quotient(p, s.size_h), w = scalar::quotient(q, s.size_w);
      value = load_quad(image + (h * s.W + w) * s.C, left, wide);
    } else {
      value = bilinear(s, image, p, q, left, wide);
    }
    store_quad(y + ((n * P + p) * Q + q) * s.C + c, value, left, wide);
  }
}

// An item is a quad of dx: it gathers from the pixels of dy that it counts for.
__global__ void __launch_bounds__(kThreads)
    upsample2d_backward_kernel(std::int64_t items, Upsample2dShape s, const float* dy, float* dx,
                               bool wide) {
  const std::int64_t P = s.H * s.size_h, Q = s.W * s.size_w;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t n = item;
    const std::int64_t c = 4 * take_coordinate(n, (s.C + 3) / 4), left = s.C - c;
    const std::int64_t w = take_coordinate(n, s.W), h = take_coordinate(n, s.H);
    Quad sum = quad_of(0.0f);
    const scalar::Dependents rows(s.interpolation, h, s.size_h, s.H);
    const scalar::Dependents columns(s.interpolation, w, s.size_w, s.W);
    for (std::int64_t p = rows.begin; p < rows.end; ++p)
      for (std::int64_t q = columns.begin; q < columns.end; ++q) {
        const float weight = rows.weight(p) * columns.weight(q);
        const Quad g = load_quad(dy + ((n * P + p) * Q + q) * s.C + c, left, wide);
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[k] = fmaf(weight, g[k], sum[k]);
      }
    store_quad(dx + ((n * s.H + h) * s.W + w) * s.C + c, sum, left, wide);
  }
}

}  // namespace

void upsample2d(Context& context, const Upsample2dShape& s, const float* x, float* y) {
  const bool wide = wide_rows(s.C, x) && wide_rows(s.C, y);
  const std::int64_t pixels = s.N * s.H * s.size_h * s.W * s.size_w;
  launch_items(context, upsample2d_kernel, pixels * quads_of(s.C), s, x, y, wide);
}

void upsample2d_backward(Context& context, const Upsample2dShape& s, const float* dy, float* dx) {
  const bool wide = wide_rows(s.C, dy) && wide_rows(s.C, dx);
  launch_items(context, upsample2d_backward_kernel, s.N * s.H * s.W * quads_of(s.C), s, dy, dx,
               wide);
}

}  // namespace convlet::cuda
