// group_norm (formulas in ops/group_norm.h). A sample is P rows of C channels. One pass takes the
// sums of its channels, of distances from a center that is near their mean; the channels' moments
// are then merged within each group. A sample is never split among threads.
namespace convlet::CONVLET_ISA {

// Of one worker, by channel.
struct GroupNormWork {
  double *distance, *square;              // sums of x - center and of its square
  float *center, *factor, *rest, *slope;  // what the elements are normalised by
};

constexpr std::int64_t kGroupNormFloats = 4, kGroupNormDoubles = 2;

inline std::size_t group_norm_worker_bytes(const GroupNormShape& s) {
  const std::size_t channel = kGroupNormDoubles * sizeof(double) + kGroupNormFloats * sizeof(float);
  return (static_cast<std::size_t>(s.C) * channel + 63) / 64 * 64;
}

inline GroupNormWork group_norm_work(const GroupNormShape& s, void* memory, int worker) {
  char* own =
      static_cast<char*>(memory) + static_cast<std::size_t>(worker) * group_norm_worker_bytes(s);
  double* doubles = reinterpret_cast<double*>(own);
  float* floats = reinterpret_cast<float*>(doubles + kGroupNormDoubles * s.C);
  return {doubles, doubles + s.C, floats, floats + s.C, floats + 2 * s.C, floats + 3 * s.C};
}

// The backward also keeps each sample's terms of dgamma and dbeta.
inline std::size_t group_norm_workspace(const GroupNormShape& s, Pass pass, int threads) {
  std::size_t bytes = static_cast<std::size_t>(threads) * group_norm_worker_bytes(s);
  if (pass != Pass::forward) bytes += static_cast<std::size_t>(s.N * 2 * s.C) * sizeof(double);
  return bytes;
}

// The gradient of a sample, and by channel its sums of dy * (x - center) and of dy.
struct GroupGradient {
  const float* dy;
  double *product, *plain;
};

// Adds a block of rows of some channels, at most kChannelsAtOnce, to the sums.
template <bool kBackward>
inline void add_group_block(const GroupNormShape& s, std::int64_t first, std::int64_t last,
                            std::int64_t channel, std::int64_t channels, const float* x,
                            const GroupNormWork& work, const GroupGradient& gradient) {
  float memory[4 * kChannelsAtOnce];
  float *distances = memory, *squares = distances + channels, *products = squares + channels,
        *plains = products + channels;
  clear(memory, (kBackward ? 4 : 2) * channels);
  const float *from = x + channel, *dy = kBackward ? gradient.dy + channel : nullptr,
              *centers = work.center + channel;
  const std::int64_t pitch = s.C;
  for_row_groups(first, last, channels,
                 [=](std::int64_t n, auto count, std::int64_t c, auto lanes) {
                   const V center = load(centers + c, lanes);
                   V sum = load(distances + c, lanes), square = load(squares + c, lanes);
                   V product = zero(), plain = zero();
                   if (kBackward)
                     product = load(products + c, lanes), plain = load(plains + c, lanes);
                   CONVLET_UNROLL
                   for (int i = 0; i < decltype(count)::value; ++i) {
                     const std::int64_t at = (n + i) * pitch + c;
                     const V distance = load(from + at, lanes) - center;
                     sum = sum + distance;
                     square = fma(distance, distance, square);
                     if (!kBackward) continue;
                     const V g = load(dy + at, lanes);
                     product = fma(g, distance, product);
                     plain = plain + g;
                   }
                   store(distances + c, sum, lanes);
                   store(squares + c, square, lanes);
                   if (!kBackward) return;
                   store(products + c, product, lanes);
                   store(plains + c, plain, lanes);
                 });
  auto add = [=](const float* sums, double* totals) {
    for (std::int64_t c = 0; c < channels; ++c) totals[channel + c] += static_cast<double>(sums[c]);
  };
  add(distances, work.distance);
  add(squares, work.square);
  if (!kBackward) return;
  add(products, gradient.product);
  add(plains, gradient.plain);
}

// All sums of a sample, and work.center: the means of its first rows.
template <bool kBackward>
inline void sum_sample(const GroupNormShape& s, const float* x, const GroupNormWork& work,
                       const GroupGradient& gradient) {
  for (std::int64_t c = 0; c < s.C; ++c) work.distance[c] = work.square[c] = 0.0;
  if (kBackward)
    for (std::int64_t c = 0; c < s.C; ++c) gradient.product[c] = gradient.plain[c] = 0.0;
  for_pieces(s.C, [&](std::int64_t c, std::int64_t channels) {
    block_means(x + c, smaller(kRowsOfBlock, s.P), s.C, channels, work.center + c);
  });
  for (std::int64_t p = 0; p < s.P; p += kRowsOfBlock)
    for_pieces(s.C, [&](std::int64_t c, std::int64_t channels) {
      add_group_block<kBackward>(s, p, smaller(p + kRowsOfBlock, s.P), c, channels, x, work,
                                 gradient);
    });
}

// From the sums of a sample, center and factor: the mean of a channel's group, rounded, and
// 1 / sqrt(variance + epsilon). The sums of dy * (x - center) become those of dy * (x - mean).
template <bool kBackward>
inline void group_statistics(const GroupNormShape& s, const GroupNormWork& work,
                             const GroupGradient& gradient) {
  const std::int64_t width = s.C / s.groups;
  const double rows = static_cast<double>(s.P);
  auto channel_moments = [=](std::int64_t c) -> Moments {
    const double offset = work.distance[c] / rows;
    return {static_cast<double>(work.center[c]) + offset,
            work.square[c] - work.distance[c] * offset};
  };
  for (std::int64_t c = 0; c < s.C; c += width) {
    Moments all = channel_moments(c);
    for (std::int64_t i = 1; i < width; ++i)
      all = merged(all, channel_moments(c + i), shares_of(static_cast<double>(i) * rows, rows));
    const double square = all.square < 0.0 ? 0.0 : all.square;
    const double variance = square / (rows * static_cast<double>(width));
    const float inverse =
        static_cast<float>(1.0 / std::sqrt(variance + static_cast<double>(s.epsilon)));
    for (std::int64_t i = c; i < c + width; ++i) {
      if (kBackward)
        gradient.product[i] += (static_cast<double>(work.center[i]) - all.mean) * gradient.plain[i];
      work.center[i] = static_cast<float>(all.mean);
      work.factor[i] = inverse;
    }
  }
}

// f(p, c, lanes) for the vectors of a sample's rows. Blocks of rows come last to first: the last
// ones have just been read and are still in the cache.
template <class F>
inline void for_sample_backwards(const GroupNormShape& s, F f) {
  const std::int64_t C = s.C;
  for (std::int64_t p = (s.P - 1) / kRowsOfBlock * kRowsOfBlock; p >= 0; p -= kRowsOfBlock)
    for (std::int64_t row = p; row < smaller(p + kRowsOfBlock, s.P); ++row)
      for_vectors(0, C, [=](std::int64_t c, auto lanes) { f(row, c, lanes); });
}

inline void group_norm(Context& context, const GroupNormShape& s, const float* x,
                       const float* gamma, const float* beta, float* y, void* workspace) {
  const std::int64_t C = s.C, size = s.P * C;
  parallel_for(
      context, s.N, grain_of(2 * size), [&](std::int64_t begin, std::int64_t end, int worker) {
        const GroupNormWork work = group_norm_work(s, workspace, worker);
        const GroupGradient none{};
        for (std::int64_t n = begin; n < end; ++n) {
          sum_sample<false>(s, x + n * size, work, none);
          group_statistics<false>(s, work, none);
          for (std::int64_t c = 0; c < s.C; ++c) {
            if (gamma) work.factor[c] *= gamma[c];
            work.rest[c] = beta ? beta[c] : 0.0f;
          }
          const GroupNormWork by = work;
          const float* x_n = x + n * size;
          float* y_n = y + n * size;
          for_sample_backwards(s, [=](std::int64_t p, std::int64_t c, auto lanes) {
            const V distance = load(x_n + p * C + c, lanes) - load(by.center + c, lanes);
            store(y_n + p * C + c,
                  fma(distance, load(by.factor + c, lanes), load(by.rest + c, lanes)), lanes);
          });
        }
      });
}

// What dx of one sample is made of: factor * gamma * dy - rest - slope * (x - center), where rest
// and slope are a group's. The sums of dy * (x - mean) become those of dy * x^.
inline void group_gradients(const GroupNormShape& s, const float* gamma, const GroupNormWork& work,
                            const GroupGradient& gradient) {
  const std::int64_t width = s.C / s.groups;
  const double count = static_cast<double>(s.P * width);
  for (std::int64_t c = 0; c < s.C; c += width) {
    double sum = 0.0, with_distance = 0.0;
    for (std::int64_t i = c; i < c + width; ++i) {
      const double g = gamma ? static_cast<double>(gamma[i]) : 1.0;
      sum += g * gradient.plain[i];
      with_distance += g * gradient.product[i];
    }
    const double inverse = static_cast<double>(work.factor[c]);
    for (std::int64_t i = c; i < c + width; ++i) {
      gradient.product[i] *= inverse;
      work.rest[i] = static_cast<float>(inverse * sum / count);
      work.slope[i] = static_cast<float>(inverse * inverse * inverse * with_distance / count);
      if (gamma) work.factor[i] *= gamma[i];
    }
  }
}

inline void group_norm_backward_sample(const GroupNormShape& s, const float* x, const float* dy,
                                       const GroupNormWork& work, float* dx) {
  const std::int64_t C = s.C;
  const float *center = work.center, *factor = work.factor, *rest = work.rest, *slope = work.slope;
  for_sample_backwards(s, [=](std::int64_t p, std::int64_t c, auto lanes) {
    const std::int64_t i = p * C + c;
    const V distance = load(x + i, lanes) - load(center + c, lanes);
    const V direct = load(dy + i, lanes) * load(factor + c, lanes);
    const V indirect = fma(distance, load(slope + c, lanes), load(rest + c, lanes));
    store(dx + i, direct - indirect, lanes);
  });
}

inline void group_norm_backward(Context& context, const GroupNormShape& s, const float* dy,
                                const float* x, const float* gamma, const AffineGradients& out,
                                void* workspace) {
  double* sums = reinterpret_cast<double*>(static_cast<char*>(workspace) +
                                           static_cast<std::size_t>(context.threads()) *
                                               group_norm_worker_bytes(s));
  const std::int64_t size = s.P * s.C;
  parallel_for(context, s.N, grain_of(4 * size),
               [&](std::int64_t begin, std::int64_t end, int worker) {
                 const GroupNormWork work = group_norm_work(s, workspace, worker);
                 for (std::int64_t n = begin; n < end; ++n) {
                   const float* x_n = x + n * size;
                   double* own = sums + n * 2 * s.C;
                   const GroupGradient gradient = {dy + n * size, own, own + s.C};
                   sum_sample<true>(s, x_n, work, gradient);
                   group_statistics<true>(s, work, gradient);
                   group_gradients(s, gamma, work, gradient);
                   if (out.dx)
                     group_norm_backward_sample(s, x_n, gradient.dy, work, out.dx + n * size);
                 }
               });
  parallel_for(context, s.C, grain_of(2 * s.N), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t c = begin; c < end; ++c) {
      double product = 0.0, plain = 0.0;
      for (std::int64_t n = 0; n < s.N; ++n) {
        product += sums[n * 2 * s.C + c];
        plain += sums[n * 2 * s.C + s.C + c];
      }
      if (out.dgamma) out.dgamma[c] = static_cast<float>(product);
      if (out.dbeta) out.dbeta[c] = static_cast<float>(plain);
    }
  });
}

}  // namespace convlet::CONVLET_ISA
