// group_norm (formulas in ops/group_norm.h). A sample is P rows of C channels, whose statistics are
// those of the channels (batch_norm.h) merged within each group. A sample is never split among
// threads.
namespace convlet::CONVLET_ISA {

// Of one worker, by channel.
struct GroupNormWork {
  double *mean, *square;
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

// f(first position, last position) for the blocks of a sample, in order.
template <class F>
inline void for_position_blocks(const GroupNormShape& s, F f) {
  for (std::int64_t p = 0; p < s.P; p += kRowsOfBlock) f(p, smaller(p + kRowsOfBlock, s.P));
}

// center and factor: the mean of a channel's group, rounded, and 1 / sqrt(variance + epsilon).
inline void group_statistics(const GroupNormShape& s, const float* x, const GroupNormWork& work) {
  for (std::int64_t c = 0; c < s.C; ++c) work.mean[c] = work.square[c] = 0.0;
  for_position_blocks(s, [&](std::int64_t first, std::int64_t last) {
    for_pieces(s.C, [&](std::int64_t c, std::int64_t channels) {
      add_block(x + first * s.C + c, last - first, s.C, channels, static_cast<double>(first),
                work.mean + c, work.square + c);
    });
  });
  const std::int64_t width = s.C / s.groups;
  const double rows = static_cast<double>(s.P);
  for (std::int64_t c = 0; c < s.C; c += width) {
    Moments all = {work.mean[c], work.square[c]};
    for (std::int64_t i = 1; i < width; ++i)
      all = merged(all, {work.mean[c + i], work.square[c + i]},
                   shares_of(static_cast<double>(i) * rows, rows));
    const double square = all.square < 0.0 ? 0.0 : all.square;
    const double variance = square / (rows * static_cast<double>(width));
    const float inverse =
        static_cast<float>(1.0 / std::sqrt(variance + static_cast<double>(s.epsilon)));
    for (std::int64_t i = c; i < c + width; ++i) {
      work.center[i] = static_cast<float>(all.mean);
      work.factor[i] = inverse;
    }
  }
}

inline void group_norm(Context& context, const GroupNormShape& s, const float* x,
                       const float* gamma, const float* beta, float* y, void* workspace) {
  parallel_for(
      context, s.N, grain_of(2 * s.P * s.C), [&](std::int64_t begin, std::int64_t end, int worker) {
        const GroupNormWork work = group_norm_work(s, workspace, worker);
        for (std::int64_t n = begin; n < end; ++n) {
          group_statistics(s, x + n * s.P * s.C, work);
          for (std::int64_t c = 0; c < s.C; ++c) {
            if (gamma) work.factor[c] *= gamma[c];
            work.rest[c] = beta ? beta[c] : 0.0f;
          }
          for (std::int64_t p = n * s.P; p < (n + 1) * s.P; ++p)
            for_vectors(0, s.C, [=](std::int64_t c, auto lanes) {
              const V distance = load(x + p * s.C + c, lanes) - load(work.center + c, lanes);
              store(y + p * s.C + c,
                    fma(distance, load(work.factor + c, lanes), load(work.rest + c, lanes)), lanes);
            });
        }
      });
}

// By channel of one sample: the sums of dy in `plain` and of dy * (x - center) in `product`.
inline void group_gradient_sums(const GroupNormShape& s, const float* dy, const float* x,
                                const float* center, double* product, double* plain) {
  for (std::int64_t c = 0; c < s.C; ++c) product[c] = plain[c] = 0.0;
  for_position_blocks(s, [&](std::int64_t first, std::int64_t last) {
    add_gradients(
        first, last, s.C,
        [=](std::int64_t p, std::int64_t c, auto lanes) -> GradientTerms {
          return {load(dy + p * s.C + c, lanes),
                  load(x + p * s.C + c, lanes) - load(center + c, lanes)};
        },
        plain, product);
  });
}

// dx of one sample, unless it is null: factor * gamma * dy - rest - slope * (x - center), where
// rest and slope are a group's. The sums of dy * (x - center) become those of dy * x^.
inline void group_norm_backward_sample(const GroupNormShape& s, const float* dy, const float* x,
                                       const float* gamma, const GroupNormWork& work,
                                       double* product, const double* plain, float* dx) {
  const std::int64_t width = s.C / s.groups;
  const double count = static_cast<double>(s.P * width);
  for (std::int64_t c = 0; c < s.C; c += width) {
    double sum = 0.0, with_distance = 0.0;
    for (std::int64_t i = c; i < c + width; ++i) {
      const double g = gamma ? static_cast<double>(gamma[i]) : 1.0;
      sum += g * plain[i];
      with_distance += g * product[i];
    }
    const double inverse = static_cast<double>(work.factor[c]);
    for (std::int64_t i = c; i < c + width; ++i) {
      product[i] *= inverse;
      work.rest[i] = static_cast<float>(inverse * sum / count);
      work.slope[i] = static_cast<float>(inverse * inverse * inverse * with_distance / count);
      if (gamma) work.factor[i] *= gamma[i];
    }
  }
  if (!dx) return;
  for (std::int64_t p = 0; p < s.P; ++p)
    for_vectors(0, s.C, [=](std::int64_t c, auto lanes) {
      const std::int64_t i = p * s.C + c;
      const V distance = load(x + i, lanes) - load(work.center + c, lanes);
      const V direct = load(dy + i, lanes) * load(work.factor + c, lanes);
      const V indirect = fma(distance, load(work.slope + c, lanes), load(work.rest + c, lanes));
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
                   double *product = sums + n * 2 * s.C, *plain = product + s.C;
                   const float *dy_n = dy + n * size, *x_n = x + n * size;
                   group_statistics(s, x_n, work);
                   group_gradient_sums(s, dy_n, x_n, work.center, product, plain);
                   group_norm_backward_sample(s, dy_n, x_n, gamma, work, product, plain,
                                              out.dx ? out.dx + n * size : nullptr);
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
