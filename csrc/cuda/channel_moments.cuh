// The mean and the squared distances from it of channels over rows, in one pass: sum_channels of
// Distances, then moments_of_part, then merge.
#pragma once
#include "cuda/channels.cuh"
#include "ops/moments.h"

namespace convlet::cuda {

// The distances of values from the first row of their part, which is exact enough to subtract and
// near enough for the variance to come from the sum of squares; see moments_of_part.
template <int kVector>
struct Distances {
  static constexpr int kUnroll = 4;
  const float* x;
  std::int64_t rows, channels;

  struct State {
    float pivot[kVector];
  };
  CONVLET_DEVICE State start(std::int64_t segment, std::int64_t row, std::int64_t channel) const {
    State state;
    load_values(x + (segment * rows + row) * channels + channel, state.pivot);
    return state;
  }
  CONVLET_DEVICE void add(const State& state, std::int64_t, std::int64_t at, float (&sum)[kVector],
                          float (&square)[kVector]) const {
    float v[kVector];
    load_values(x + at, v);
    for (int j = 0; j < kVector; ++j) {
      const float distance = v[j] - state.pivot[j];
      sum[j] += distance;
      square[j] = fmaf(distance, distance, square[j]);
    }
  }
};

struct CountedMoments {
  double count;
  Moments moments;
};

CONVLET_DEVICE void merge(CountedMoments& all, const CountedMoments& more) {
  if (more.count <= 0.0) return;
  all.moments = merged(all.moments, more.moments, shares_of(all.count, more.count));
  all.count += more.count;
}

// What sum_channels made of Distances, for one channel of a part.
CONVLET_DEVICE CountedMoments moments_of_part(const ChannelGrid& g, const float* x,
                                              const double* sums, std::int64_t segment,
                                              std::int64_t part, std::int64_t channel) {
  const std::int64_t first = g.rows * part / g.parts, last = g.rows * (part + 1) / g.parts;
  if (first == last) return {0.0, {0.0, 0.0}};
  const double count = static_cast<double>(last - first);
  const double pivot = static_cast<double>(x[(segment * g.rows + first) * g.channels + channel]);
  const double* at = sums + (segment * g.parts + part) * 2 * g.channels + channel;
  const double sum = at[0], square = at[g.channels];
  return {count, {pivot + sum / count, square - sum * (sum / count)}};
}

}  // namespace convlet::cuda
