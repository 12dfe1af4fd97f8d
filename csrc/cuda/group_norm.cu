// group_norm (formulas in ops/group_norm.h). A sample is rows of channels, whose statistics are
// those of the channels merged within each group.
#include "cuda/channel_moments.cuh"
#include "ops/kernels.h"

namespace convlet::cuda {
namespace {

// Of one sample's group: what x is normalised by, and in the backward what each of its elements
// gives back, and the factor of x - mean.
struct GroupScale {
  float mean, inverse;
  float rest, slope;
};

constexpr int kWarps = 8;

struct GroupWork {
  ChannelGrid grid;
  double* sums;
  GroupScale* scales;  // (N, groups)
};

GroupWork group_work(const GroupNormShape& s, void* memory) {
  GroupWork w;
  w.grid = channel_grid(s.N, s.P, s.C);
  w.sums = static_cast<double*>(memory);
  w.scales = reinterpret_cast<GroupScale*>(w.sums + w.grid.sums());
  return w;
}

dim3 group_blocks(const GroupNormShape& s) {
  return dim3(blocks_of((s.N * s.groups + kWarps - 1) / kWarps));
}

// f(sample, group) by one warp for each.
template <class F>
CONVLET_DEVICE void for_groups(const GroupNormShape& s, F f) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kWarps;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
       i < s.N * s.groups; i += step)
    f(i / s.groups, i % s.groups);
}

// f(part, channel) for this lane's share of the parts and channels of a group.
template <class F>
CONVLET_DEVICE void for_group_items(const GroupNormShape& s, std::int64_t parts, std::int64_t group,
                                    F f) {
  const std::int64_t width = s.C / s.groups;
  for (std::int64_t i = threadIdx.x % 32; i < parts * width; i += 32)
    f(i / width, group * width + i % width);
}

__global__ void __launch_bounds__(32 * kWarps, 1)
    group_scales_kernel(GroupNormShape s, ChannelGrid g, const float* x, const double* sums,
                        GroupScale* scales) {
  for_groups(s, [&](std::int64_t n, std::int64_t group) {
    CountedMoments all = {0.0, {0.0, 0.0}};
    for_group_items(s, g.parts, group, [&](std::int64_t part, std::int64_t channel) {
      merge(all, moments_of_part(g, x, sums, n, part, channel));
    });
    for (int other = 16; other > 0; other /= 2) {
      const CountedMoments more = {__shfl_down_sync(~0u, all.count, other),
                                   {__shfl_down_sync(~0u, all.moments.mean, other),
                                    __shfl_down_sync(~0u, all.moments.square, other)}};
      merge(all, more);
    }
    if (threadIdx.x % 32 != 0) return;
    const double square = all.moments.square < 0.0 ? 0.0 : all.moments.square;
    const double around = square / all.count + static_cast<double>(s.epsilon);
    scales[n * s.groups + group] = {static_cast<float>(all.moments.mean),
                                    static_cast<float>(1.0 / sqrt(around)), 0.0f, 0.0f};
  });
}

void group_statistics(Context& context, const GroupNormShape& s, const float* x,
                      const GroupWork& w) {
  with_vector(
      w.grid,
      [&](auto vector, const ChannelGrid& g) {
        sum_channels<vector.value>(context, g, Distances<vector.value>{x, s.P, s.C}, w.sums);
      },
      x);
  launch(context, group_scales_kernel, group_blocks(s), dim3(32 * kWarps), 0, s, w.grid, x, w.sums,
         w.scales);
}

template <int kVector>
CONVLET_DEVICE void load_scales(const GroupNormShape& s, const GroupScale* scales, std::int64_t n,
                                std::int64_t channel, GroupScale (&scale)[kVector]) {
  const std::int64_t width = s.C / s.groups;
  for (int j = 0; j < kVector; ++j) scale[j] = scales[n * s.groups + (channel + j) / width];
}

template <int kVector>
struct NormaliseGroups {
  GroupNormShape s;
  const GroupScale* scales;
  const float *x, *gamma, *beta;
  float* y;

  struct State {
    float center[kVector], factor[kVector], offset[kVector];
  };
  CONVLET_DEVICE State start(std::int64_t n, std::int64_t channel) const {
    State state;
    GroupScale scale[kVector];
    load_scales(s, scales, n, channel, scale);
    load_values(gamma, channel, 1.0f, state.factor);
    load_values(beta, channel, 0.0f, state.offset);
    for (int j = 0; j < kVector; ++j) {
      state.center[j] = scale[j].mean;
      state.factor[j] *= scale[j].inverse;
    }
    return state;
  }
  CONVLET_DEVICE void apply(const State& state, std::int64_t at) const {
    float v[kVector];
    load_values(x + at, v);
    for (int j = 0; j < kVector; ++j)
      v[j] = fmaf(v[j] - state.center[j], state.factor[j], state.offset[j]);
    store_values(y + at, v);
  }
};

// The sums of dy and of dy * (x - center) by channel.
template <int kVector>
struct GroupTerms {
  static constexpr int kUnroll = 2;
  GroupNormShape s;
  const GroupScale* scales;
  const float *dy, *x;

  struct State {
    float center[kVector];
  };
  CONVLET_DEVICE State start(std::int64_t n, std::int64_t, std::int64_t channel) const {
    State state;
    GroupScale scale[kVector];
    load_scales(s, scales, n, channel, scale);
    for (int j = 0; j < kVector; ++j) state.center[j] = scale[j].mean;
    return state;
  }
  CONVLET_DEVICE void add(const State& state, std::int64_t, std::int64_t at,
                          float (&plain)[kVector], float (&product)[kVector]) const {
    float g[kVector], v[kVector];
    load_values(dy + at, g);
    load_values(x + at, v);
    for (int j = 0; j < kVector; ++j) {
      plain[j] += g[j];
      product[j] = fmaf(g[j], v[j] - state.center[j], product[j]);
    }
  }
};

__global__ void __launch_bounds__(32 * kWarps)
    group_slopes_kernel(GroupNormShape s, ChannelGrid g, const double* sums, const float* gamma,
                        GroupScale* scales) {
  for_groups(s, [&](std::int64_t n, std::int64_t group) {
    double plain = 0.0, product = 0.0;
    for_group_items(s, g.parts, group, [&](std::int64_t part, std::int64_t channel) {
      const double* at = sums + (n * g.parts + part) * 2 * s.C + channel;
      const double factor = gamma ? static_cast<double>(gamma[channel]) : 1.0;
      plain += factor * at[0];
      product += factor * at[s.C];
    });
    for (int other = 16; other > 0; other /= 2) {
      plain += __shfl_down_sync(~0u, plain, other);
      product += __shfl_down_sync(~0u, product, other);
    }
    if (threadIdx.x % 32 != 0) return;
    GroupScale& scale = scales[n * s.groups + group];
    const double count = static_cast<double>(s.P * (s.C / s.groups));
    const double inverse = static_cast<double>(scale.inverse);
    scale.rest = static_cast<float>(inverse * plain / count);
    scale.slope = static_cast<float>(inverse * inverse * inverse * product / count);
  });
}

__global__ void __launch_bounds__(kMergeColumns* kMergeLines, 1)
    merge_samples_kernel(GroupNormShape s, ChannelGrid g, const double* sums,
                         const GroupScale* scales, float* dgamma, float* dbeta) {
  const std::int64_t width = s.C / s.groups;
  for (std::int64_t tile = blockIdx.x; tile * kMergeColumns < s.C; tile += gridDim.x) {
    const std::int64_t c = tile * kMergeColumns + threadIdx.x;
    const ChannelTotals total = merge_sums(sums, s.N * g.parts, s.C, c, [&](std::int64_t i) {
      return static_cast<double>(scales[i / g.parts * s.groups + c / width].inverse);
    });
    if (threadIdx.y == 0 && c < s.C) {
      if (dbeta) dbeta[c] = static_cast<float>(total.first);
      if (dgamma) dgamma[c] = static_cast<float>(total.second);
    }
    __syncthreads();
  }
}

template <int kVector>
struct SpreadGroups {
  GroupNormShape s;
  const GroupScale* scales;
  const float *dy, *x, *gamma;
  float* dx;

  struct State {
    float center[kVector], factor[kVector], rest[kVector], slope[kVector];
  };
  CONVLET_DEVICE State start(std::int64_t n, std::int64_t channel) const {
    State state;
    GroupScale scale[kVector];
    load_scales(s, scales, n, channel, scale);
    load_values(gamma, channel, 1.0f, state.factor);
    for (int j = 0; j < kVector; ++j) {
      state.center[j] = scale[j].mean;
      state.factor[j] *= scale[j].inverse;
      state.rest[j] = scale[j].rest;
      state.slope[j] = scale[j].slope;
    }
    return state;
  }
  CONVLET_DEVICE void apply(const State& state, std::int64_t at) const {
    float g[kVector], v[kVector];
    load_values(dy + at, g);
    load_values(x + at, v);
    for (int j = 0; j < kVector; ++j)
      g[j] = g[j] * state.factor[j] - fmaf(v[j] - state.center[j], state.slope[j], state.rest[j]);
    store_values(dx + at, g);
  }
};

}  // namespace

std::size_t group_norm_workspace(const GroupNormShape& s, Pass, int) {
  return static_cast<std::size_t>(channel_grid(s.N, s.P, s.C).sums()) * sizeof(double) +
         static_cast<std::size_t>(s.N * s.groups) * sizeof(GroupScale);
}

void group_norm(Context& context, const GroupNormShape& s, const float* x, const float* gamma,
                const float* beta, float* y, void* workspace) {
  const GroupWork w = group_work(s, workspace);
  group_statistics(context, s, x, w);
  with_vector(
      w.grid,
      [&](auto vector, const ChannelGrid& g) {
        map_channels<vector.value>(context, g,
                                   NormaliseGroups<vector.value>{s, w.scales, x, gamma, beta, y});
      },
      x, gamma, beta, y);
}

// dgamma and dbeta come first: dx may take the place of dy or x.
void group_norm_backward(Context& context, const GroupNormShape& s, const float* dy, const float* x,
                         const float* gamma, const AffineGradients& out, void* workspace) {
  const GroupWork w = group_work(s, workspace);
  group_statistics(context, s, x, w);
  with_vector(
      w.grid,
      [&](auto vector, const ChannelGrid& g) {
        sum_channels<vector.value>(context, g, GroupTerms<vector.value>{s, w.scales, dy, x},
                                   w.sums);
      },
      dy, x);
  if (out.dgamma || out.dbeta)
    launch(context, merge_samples_kernel, merge_grid(s.C), merge_block(), 0, s, w.grid, w.sums,
           w.scales, out.dgamma, out.dbeta);
  if (!out.dx) return;
  launch(context, group_slopes_kernel, group_blocks(s), dim3(32 * kWarps), 0, s, w.grid, w.sums,
         gamma, w.scales);
  with_vector(
      w.grid,
      [&](auto vector, const ChannelGrid& g) {
        map_channels<vector.value>(context, g,
                                   SpreadGroups<vector.value>{s, w.scales, dy, x, gamma, out.dx});
      },
      dy, x, gamma, out.dx);
}

}  // namespace convlet::cuda
