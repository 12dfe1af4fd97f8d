// batch_norm and the statistics of channels (formulas in ops/batch_norm.h) over rows of channels.
#include <type_traits>

#include "cuda/channel_moments.cuh"
#include "cuda/scalar.cuh"
#include "ops/kernels.h"

namespace convlet::cuda {

// ---------------------------------------------------------------- statistics

namespace {

__global__ void __launch_bounds__(kMergeColumns* kMergeLines, 1)
    merge_statistics_kernel(ChannelGrid g, const float* x, const double* sums, float* mean,
                            float* variance) {
  CONVLET_SHARED(CountedMoments, partial, [kMergeLines][kMergeColumns]);
  const int column = static_cast<int>(threadIdx.x), line = static_cast<int>(threadIdx.y);
  for (std::int64_t tile = blockIdx.x; tile * kMergeColumns < g.channels; tile += gridDim.x) {
    const std::int64_t c = tile * kMergeColumns + column;
    CountedMoments all = {0.0, {0.0, 0.0}};
    if (c < g.channels)
      for (std::int64_t part = line; part < g.parts; part += kMergeLines)
        merge(all, moments_of_part(g, x, sums, 0, part, c));
    partial[line][column] = all;
    __syncthreads();
    if (line == 0 && c < g.channels) {
      for (int i = 1; i < kMergeLines; ++i) merge(all, partial[i][column]);
      mean[c] = static_cast<float>(all.moments.mean);
      // Rounding may take the sum below zero; NaN stays.
      const double square = all.moments.square < 0.0 ? 0.0 : all.moments.square;
      variance[c] = all.count > 0.0 ? static_cast<float>(square / all.count) : 0.0f;
    }
    __syncthreads();
  }
}

}  // namespace

std::size_t channel_statistics_workspace(const RowsShape& s) {
  return static_cast<std::size_t>(channel_grid(1, s.N, s.C).sums()) * sizeof(double);
}

void channel_statistics(Context& context, const RowsShape& s, const float* x, float* mean,
                        float* variance, void* workspace) {
  double* sums = static_cast<double*>(workspace);
  const ChannelGrid grid = channel_grid(1, s.N, s.C);
  with_vector(
      grid,
      [&](auto vector, const ChannelGrid& g) {
        sum_channels<vector.value>(context, g, Distances<vector.value>{x, s.N, s.C}, sums);
      },
      x);
  launch(context, merge_statistics_kernel, merge_grid(s.C), merge_block(), 0, grid, x, sums, mean,
         variance);
}

// ---------------------------------------------------------------- forward

namespace {

// By channel: what x - mean is multiplied by, and beta.
template <int kVector>
struct NormFactors {
  float mean[kVector], factor[kVector], offset[kVector];
};

template <int kVector>
CONVLET_DEVICE NormFactors<kVector> norm_factors(const BatchNormInputs& in, float epsilon,
                                                 std::int64_t channel) {
  NormFactors<kVector> f;
  float variance[kVector], gamma[kVector];
  load_values(in.mean + channel, f.mean);
  load_values(in.variance + channel, variance);
  load_values(in.gamma, channel, 1.0f, gamma);
  load_values(in.beta, channel, 0.0f, f.offset);
  for (int j = 0; j < kVector; ++j) f.factor[j] = gamma[j] / sqrtf(variance[j] + epsilon);
  return f;
}

template <int kVector>
struct Normalise {
  BatchNormInputs in;
  float epsilon;
  Activation activation;
  float* y;

  CONVLET_DEVICE NormFactors<kVector> start(std::int64_t, std::int64_t channel) const {
    return norm_factors<kVector>(in, epsilon, channel);
  }
  CONVLET_DEVICE void apply(const NormFactors<kVector>& f, std::int64_t at) const {
    float x[kVector], residual[kVector];
    load_values(in.x + at, x);
    load_values(in.residual, at, 0.0f, residual);
    for (int j = 0; j < kVector; ++j) {
      x[j] = fmaf(x[j] - f.mean[j], f.factor[j], f.offset[j]);
      if (in.residual) x[j] += residual[j];
    }
    scalar::with_applied(activation, [&](auto constant) {
      for (int j = 0; j < kVector; ++j) x[j] = scalar::activate(constant.value, x[j]);
    });
    store_values(y + at, x);
  }
};

}  // namespace

std::size_t batch_norm_workspace(const BatchNormShape&) {
  return 0;
}

void batch_norm(Context& context, const BatchNormShape& s, const BatchNormInputs& in, float* y,
                void*) {
  with_vector(
      channel_grid(1, s.N, s.C),
      [&](auto vector, const ChannelGrid& g) {
        map_channels<vector.value>(context, g,
                                   Normalise<vector.value>{in, s.epsilon, s.activation, y});
      },
      in.x, in.residual, y, in.mean, in.variance, in.gamma, in.beta);
}

// ---------------------------------------------------------------- backward

namespace {

// g = dy * act' and x - mean of some channels of a row.
template <int kVector>
struct GradientSource {
  BatchNormInputs in;
  float epsilon;
  Activation activation;
  const float *dy, *y;

  CONVLET_DEVICE void read(const NormFactors<kVector>& f, std::int64_t at, float (&g)[kVector],
                           float (&distance)[kVector]) const {
    load_values(dy + at, g);
    load_values(in.x + at, distance);
    for (int j = 0; j < kVector; ++j) distance[j] -= f.mean[j];
    if (activation == Activation::none) return;
    float known[kVector];
    load_values(y, at, 0.0f, known);
    scalar::with_applied(activation, [&](auto constant) {
      constexpr Activation kActivation = constant.value;
      for (int j = 0; j < kVector; ++j) {
        if (!y) {
          known[j] = fmaf(distance[j], f.factor[j], f.offset[j]);
          if (gradient_from_output(kActivation)) known[j] = scalar::activate(kActivation, known[j]);
        }
        g[j] = scalar::activation_gradient(kActivation, g[j], known[j], default_alpha(kActivation));
      }
    });
  }
};

// The sums of g and of g * (x - mean).
template <int kVector>
struct GradientTerms {
  static constexpr int kUnroll = 1;
  GradientSource<kVector> source;

  CONVLET_DEVICE NormFactors<kVector> start(std::int64_t, std::int64_t,
                                            std::int64_t channel) const {
    return norm_factors<kVector>(source.in, source.epsilon, channel);
  }
  CONVLET_DEVICE void add(const NormFactors<kVector>& f, std::int64_t, std::int64_t at,
                          float (&plain)[kVector], float (&product)[kVector]) const {
    float g[kVector], distance[kVector];
    source.read(f, at, g, distance);
    for (int j = 0; j < kVector; ++j) {
      plain[j] += g[j];
      product[j] = fmaf(g[j], distance[j], product[j]);
    }
  }
};

// dgamma and dbeta, and by channel what each row gives back of them: dbeta / N, and then the factor
// of x - mean.
__global__ void __launch_bounds__(kMergeColumns* kMergeLines)
    merge_gradients_kernel(ChannelGrid g, const double* sums, const float* variance, float epsilon,
                           float* dgamma, float* dbeta, float* share) {
  for (std::int64_t tile = blockIdx.x; tile * kMergeColumns < g.channels; tile += gridDim.x) {
    const std::int64_t c = tile * kMergeColumns + threadIdx.x;
    const ChannelTotals total =
        merge_sums(sums, g.parts, g.channels, c, [](std::int64_t) { return 1.0; });
    if (threadIdx.y == 0 && c < g.channels) {
      const double rows = static_cast<double>(g.rows);
      const double around = static_cast<double>(variance[c]) + static_cast<double>(epsilon);
      if (dbeta) dbeta[c] = static_cast<float>(total.first);
      if (dgamma) dgamma[c] = static_cast<float>(total.second / sqrt(around));
      if (share && g.rows > 0) {
        share[c] = static_cast<float>(total.first / rows);
        share[g.channels + c] = static_cast<float>(total.second / (rows * around));
      }
    }
    __syncthreads();
  }
}

// dx and dresidual. Without `share` the statistics were given.
template <int kVector>
struct SpreadGradients {
  GradientSource<kVector> source;
  std::int64_t channels;
  const float* share;
  float *dx, *dresidual;

  struct State {
    NormFactors<kVector> factors;
    float rest[kVector], slope[kVector];
  };
  CONVLET_DEVICE State start(std::int64_t, std::int64_t channel) const {
    State state;
    state.factors = norm_factors<kVector>(source.in, source.epsilon, channel);
    load_values(share, channel, 0.0f, state.rest);
    load_values(share, channels + channel, 0.0f, state.slope);
    return state;
  }
  CONVLET_DEVICE void apply(const State& state, std::int64_t at) const {
    float g[kVector], distance[kVector];
    source.read(state.factors, at, g, distance);
    if (dresidual) store_values(dresidual + at, g);
    if (!dx) return;
    for (int j = 0; j < kVector; ++j)
      g[j] = (g[j] - state.rest[j] - distance[j] * state.slope[j]) * state.factors.factor[j];
    store_values(dx + at, g);
  }
};

}  // namespace

std::size_t batch_norm_backward_workspace(const BatchNormShape& s) {
  return static_cast<std::size_t>(channel_grid(1, s.N, s.C).sums()) * sizeof(double) +
         static_cast<std::size_t>(2 * s.C) * sizeof(float);
}

void batch_norm_backward(Context& context, const BatchNormShape& s, const BatchNormInputs& in,
                         const float* dy, const float* y, const BatchNormGradients& out,
                         void* workspace) {
  const ChannelGrid grid = channel_grid(1, s.N, s.C);
  double* sums = static_cast<double*>(workspace);
  float* share = s.training && out.dx ? reinterpret_cast<float*>(sums + grid.sums()) : nullptr;
  auto with_source = [&](auto&& f) {
    with_vector(
        grid,
        [&](auto vector, const ChannelGrid& g) {
          f(g, GradientSource<vector.value>{in, s.epsilon, s.activation, dy, y}, vector);
        },
        in.x, in.mean, in.variance, in.gamma, in.beta, dy, y, out.dx, out.dresidual);
  };
  if (share || out.dgamma || out.dbeta) {
    with_source([&](const ChannelGrid& g, auto source, auto vector) {
      sum_channels<vector.value>(context, g, GradientTerms<vector.value>{source}, sums);
    });
    launch(context, merge_gradients_kernel, merge_grid(s.C), merge_block(), 0, grid, sums,
           in.variance, s.epsilon, out.dgamma, out.dbeta, share);
  }
  if (out.dx || out.dresidual)
    with_source([&](const ChannelGrid& g, auto source, auto vector) {
      map_channels<vector.value>(
          context, g, SpreadGradients<vector.value>{source, s.C, share, out.dx, out.dresidual});
    });
}

// ---------------------------------------------------------------- folding

namespace {

template <int kVector>
struct FoldWeight {
  BatchNormInputs in;
  float epsilon;
  float* weight;

  CONVLET_DEVICE NormFactors<kVector> start(std::int64_t, std::int64_t channel) const {
    return norm_factors<kVector>(in, epsilon, channel);
  }
  CONVLET_DEVICE void apply(const NormFactors<kVector>& f, std::int64_t at) const {
    float w[kVector];
    load_values(in.x + at, w);
    for (int j = 0; j < kVector; ++j) w[j] *= f.factor[j];
    store_values(weight + at, w);
  }
};

// One row: the bias.
struct FoldBias {
  BatchNormInputs in;
  float epsilon;
  const float* bias;
  float* folded;

  CONVLET_DEVICE NormFactors<1> start(std::int64_t, std::int64_t channel) const {
    return norm_factors<1>(in, epsilon, channel);
  }
  CONVLET_DEVICE void apply(const NormFactors<1>& f, std::int64_t at) const {
    const float old = bias ? bias[at] : 0.0f;
    folded[at] = fmaf(old - f.mean[0], f.factor[0], f.offset[0]);
  }
};

}  // namespace

void fold_batch_norm(Context& context, const BatchNormShape& s, const BatchNormInputs& in,
                     const float* bias, float* weight, float* folded_bias, void*) {
  with_vector(
      channel_grid(1, s.N, s.C),
      [&](auto vector, const ChannelGrid& g) {
        map_channels<vector.value>(context, g, FoldWeight<vector.value>{in, s.epsilon, weight});
      },
      in.x, in.mean, in.variance, in.gamma, in.beta, weight);
  map_channels<1>(context, cut_channels(channel_grid(1, 1, s.C), 1),
                  FoldBias{in, s.epsilon, bias, folded_bias});
}

}  // namespace convlet::cuda
