// softmax and log_softmax over rows, and their gradients (formulas in ops/softmax.h). A row comes
// from memory once: its team finds it in the cache when it passes over it again.
#include "cuda/softmax.cuh"

namespace convlet::cuda {
namespace {

struct Softmax {
  const float* x;
  float* y;
  std::int64_t C;
  bool wide;
  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    softmax_row(team, x + n * C, count, wide, y + n * C);
  }
};

struct LogSoftmax {
  const float* x;
  float* y;
  std::int64_t C;
  bool wide;
  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    const float* from = x + n * C;
    float* to = y + n * C;
    const float maximum = row_maximum(team, from, count, wide);
    const float log_sum = scalar::log(row_exponentials(team, from, count, wide, maximum, nullptr));
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      Quad q = load_quad(from + c, left, wide);
      for (int k = 0; k < 4; ++k) q[k] = (q[k] - maximum) - log_sum;
      store_quad(to + c, q, left, wide);
    });
  }
};

template <bool logarithmic>
struct SoftmaxGradient {
  const float *dy, *y;
  float* dx;
  std::int64_t C;
  bool wide;
  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    const float *g = dy + n * C, *p = y + n * C;
    float* to = dx + n * C;
    float sum = 0.0f;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      const Quad a = load_quad(g + c, left, wide);
      const Quad b = logarithmic ? quad_of(1.0f) : load_quad(p + c, left, wide);
      for (int k = 0; k < 4; ++k) sum += a[k] * b[k];
    });
    sum = team.sum(sum);
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      Quad a = load_quad(g + c, left, wide);
      const Quad b = load_quad(p + c, left, wide);
      for (int k = 0; k < 4; ++k)
        a[k] = logarithmic ? a[k] - scalar::exp(b[k]) * sum : b[k] * (a[k] - sum);
      store_quad(to + c, a, left, wide);
    });
  }
};

}  // namespace

void softmax(Context& context, const RowsShape& s, const float* x, float* y) {
  const bool wide = wide_rows(s.C, x) && wide_rows(s.C, y);
  launch_rows(context, s.N, s.C, Softmax{x, y, s.C, wide});
}

void log_softmax(Context& context, const RowsShape& s, const float* x, float* y) {
  const bool wide = wide_rows(s.C, x) && wide_rows(s.C, y);
  launch_rows(context, s.N, s.C, LogSoftmax{x, y, s.C, wide});
}

void softmax_backward(Context& context, const RowsShape& s, const float* dy, const float* y,
                      float* dx) {
  const bool wide = wide_rows(s.C, dy) && wide_rows(s.C, y) && wide_rows(s.C, dx);
  launch_rows(context, s.N, s.C, SoftmaxGradient<false>{dy, y, dx, s.C, wide});
}

void log_softmax_backward(Context& context, const RowsShape& s, const float* dy, const float* y,
                          float* dx) {
  const bool wide = wide_rows(s.C, dy) && wide_rows(s.C, y) && wide_rows(s.C, dx);
  launch_rows(context, s.N, s.C, SoftmaxGradient<true>{dy, y, dx, s.C, wide});
}

}  // namespace convlet::cuda
