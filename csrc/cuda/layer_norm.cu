// layer_norm over rows (formulas in ops/layer_norm.h). A row comes from memory once: its team finds
// it in the cache when it passes over it again. The statistics of a row are made again for the
// backward. Sums along a row are in float32 over a few values of a thread, then in float64.
#include "cuda/channels.cuh"
#include "cuda/team.cuh"
#include "ops/kernels.h"

namespace convlet::cuda {
namespace {

// Adds f(c, left, pieces) over a row's quads to kSums totals of the team.
template <int kSums, class F>
CONVLET_DEVICE void sum_quads(const Team& team, std::int64_t count, F f, double (&totals)[kSums]) {
  constexpr int kQuadsOfFloat = 4;
  for (std::int64_t c = 4 * team.rank(); c < count;) {
    float pieces[kSums] = {};
    for (int i = 0; i < kQuadsOfFloat && c < count; ++i, c += 4 * team.size())
      f(c, count - c, pieces);
    for (int k = 0; k < kSums; ++k) totals[k] += static_cast<double>(pieces[k]);
  }
  for (double& total : totals) total = team.all(total, Sum());
}

// The mean of a row, rounded, and 1 / sqrt(variance + epsilon).
struct RowScale {
  float mean, inverse;
};

CONVLET_DEVICE RowScale row_scale(const Team& team, const LayerNormShape& s, const float* x,
                                  std::int64_t count, bool wide) {
  const double columns = static_cast<double>(s.C);
  double sum[1] = {}, square[1] = {};
  sum_quads(
      team, count,
      [=](std::int64_t c, std::int64_t left, float (&piece)[1]) {
        const Quad v = load_quad(x + c, left, wide);
        piece[0] += (v[0] + v[1]) + (v[2] + v[3]);
      },
      sum);
  const float mean = static_cast<float>(sum[0] / columns);
  sum_quads(
      team, count,
      [=](std::int64_t c, std::int64_t left, float (&piece)[1]) {
        const Quad v = load_quad(x + c, left, wide, mean);
        for (int k = 0; k < 4; ++k) piece[0] = fmaf(v[k] - mean, v[k] - mean, piece[0]);
      },
      square);
  const double around = square[0] / columns + static_cast<double>(s.epsilon);
  return {mean, static_cast<float>(1.0 / ::sqrt(around))};
}

// Quad c of gamma or beta, or `otherwise` where it was left out.
CONVLET_DEVICE Quad parameter_quad(const float* p, std::int64_t c, std::int64_t left, bool wide,
                                   float otherwise) {
  return p ? load_quad(p + c, left, wide) : quad_of(otherwise);
}

struct Normalise {
  LayerNormShape s;
  const float *x, *gamma, *beta;
  float* y;
  bool wide;

  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    const float* from = x + n * s.C;
    const RowScale scale = row_scale(team, s, from, count, wide);
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      Quad v = load_quad(from + c, left, wide);
      const Quad factor = parameter_quad(gamma, c, left, wide, 1.0f);
      const Quad offset = parameter_quad(beta, c, left, wide, 0.0f);
      for (int k = 0; k < 4; ++k)
        v[k] = (v[k] - scale.mean) * scale.inverse * factor[k] + offset[k];
      store_quad(y + n * s.C + c, v, left, wide);
    });
  }
};

struct Scales {
  LayerNormShape s;
  const float* x;
  RowScale* scales;
  bool wide;

  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    const RowScale scale = row_scale(team, s, x + n * s.C, count, wide);
    if (count > 0 && team.rank() == 0) scales[n] = scale;
  }
};

struct Gradient {
  LayerNormShape s;
  const float *dy, *x, *gamma;
  const RowScale* scales;
  float* dx;
  bool wide;

  // g and x^ of a quad of row n; zeros beyond its end.
  CONVLET_DEVICE void read(std::int64_t n, std::int64_t c, std::int64_t left, RowScale scale,
                           Quad& g, Quad& at) const {
    g = load_quad(dy + n * s.C + c, left, wide);
    at = load_quad(x + n * s.C + c, left, wide, scale.mean);
    const Quad factor = parameter_quad(gamma, c, left, wide, 1.0f);
    for (int k = 0; k < 4; ++k) {
      g[k] *= factor[k];
      at[k] = (at[k] - scale.mean) * scale.inverse;
    }
  }

  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    const RowScale scale = scales[n];
    double sums[2] = {};  // of g and of g * x^
    sum_quads(
        team, count,
        [&](std::int64_t c, std::int64_t left, float (&pieces)[2]) {
          Quad g, at;
          read(n, c, left, scale, g, at);
          for (int k = 0; k < 4; ++k) {
            pieces[0] += g[k];
            pieces[1] = fmaf(g[k], at[k], pieces[1]);
          }
        },
        sums);
    const double columns = static_cast<double>(s.C);
    const auto rest = static_cast<float>(sums[0] / columns);
    const auto slope = static_cast<float>(sums[1] / columns);
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      Quad g, at;
      read(n, c, left, scale, g, at);
      for (int k = 0; k < 4; ++k) g[k] = (g[k] - rest - at[k] * slope) * scale.inverse;
      store_quad(dx + n * s.C + c, g, left, wide);
    });
  }
};

// The sums of dy and of dy * x^ by column.
template <int kVector>
struct ColumnTerms {
  static constexpr int kUnroll = 2;
  const float *dy, *x;
  const RowScale* scales;

  struct State {};
  CONVLET_DEVICE State start(std::int64_t, std::int64_t, std::int64_t) const { return {}; }
  CONVLET_DEVICE void add(State, std::int64_t row, std::int64_t at, float (&plain)[kVector],
                          float (&product)[kVector]) const {
    const RowScale scale = scales[row];
    float g[kVector], v[kVector];
    load_values(dy + at, g);
    load_values(x + at, v);
    for (int j = 0; j < kVector; ++j) {
      plain[j] += g[j];
      product[j] = fmaf(g[j], (v[j] - scale.mean) * scale.inverse, product[j]);
    }
  }
};

__global__ void __launch_bounds__(kMergeColumns* kMergeLines)
    merge_columns_kernel(ChannelGrid g, const double* sums, float* dgamma, float* dbeta) {
  for (std::int64_t tile = blockIdx.x; tile * kMergeColumns < g.channels; tile += gridDim.x) {
    const std::int64_t c = tile * kMergeColumns + threadIdx.x;
    const ChannelTotals total =
        merge_sums(sums, g.parts, g.channels, c, [](std::int64_t) { return 1.0; });
    if (threadIdx.y == 0 && c < g.channels) {
      if (dbeta) dbeta[c] = static_cast<float>(total.first);
      if (dgamma) dgamma[c] = static_cast<float>(total.second);
    }
    __syncthreads();
  }
}

// Whether rows of these arrays, null ones aside, can be read 16 bytes at a time.
template <class... T>
bool wide_rows_of(const LayerNormShape& s, const T*... pointers) {
  return (wide_rows(s.C, pointers) && ...);
}

}  // namespace

void layer_norm(Context& context, const LayerNormShape& s, const float* x, const float* gamma,
                const float* beta, float* y) {
  launch_rows(context, s.N, s.C,
              Normalise{s, x, gamma, beta, y, wide_rows_of(s, x, gamma, beta, y)});
}

std::size_t layer_norm_backward_workspace(const LayerNormShape& s) {
  return static_cast<std::size_t>(channel_grid(1, s.N, s.C).sums()) * sizeof(double) +
         static_cast<std::size_t>(s.N) * sizeof(RowScale);
}

// dgamma and dbeta come first: dx may take the place of dy or x.
void layer_norm_backward(Context& context, const LayerNormShape& s, const float* dy, const float* x,
                         const float* gamma, const AffineGradients& out, void* workspace) {
  const ChannelGrid grid = channel_grid(1, s.N, s.C);
  double* sums = static_cast<double*>(workspace);
  RowScale* scales = reinterpret_cast<RowScale*>(sums + grid.sums());
  launch_rows(context, s.N, s.C, Scales{s, x, scales, wide_rows(s.C, x)});
  if (out.dgamma || out.dbeta) {
    with_vector(
        grid,
        [&](auto vector, const ChannelGrid& g) {
          sum_channels<vector.value>(context, g, ColumnTerms<vector.value>{dy, x, scales}, sums);
        },
        dy, x);
    launch(context, merge_columns_kernel, merge_grid(s.C), merge_block(), 0, grid, sums, out.dgamma,
           out.dbeta);
  }
  if (out.dx)
    launch_rows(context, s.N, s.C,
                Gradient{s, dy, x, gamma, scales, out.dx, wide_rows_of(s, dy, x, gamma, out.dx)});
}

}  // namespace convlet::cuda
