// batch_norm and the statistics of channels (formulas in ops/batch_norm.h). A tensor is rows of
// channels. Sums over rows are taken in blocks that stay in the cache, in float32, and the blocks
// of a part one after the other in float64; blocks and parts depend on the shape alone.
namespace convlet::CONVLET_ISA {

inline std::int64_t rows_of_block(std::int64_t channels) {
  return larger(8, smaller(32, 16384 / channels));
}
inline std::int64_t channel_parts(std::int64_t rows, std::int64_t channels) {
  const std::int64_t parts = smaller(rows * channels / 65536, rows / 8);
  return larger(1, smaller(kReductionParts, parts));
}

inline int lanes_in(All) {
  return V::width;
}
inline int lanes_in(First lanes) {
  return lanes.n;
}

// f(first row, last row, part) for every block of rows, in order within each part.
template <class F>
inline void for_blocks(Context& context, std::int64_t rows, std::int64_t channels, F f) {
  const std::int64_t parts = channel_parts(rows, channels), block = rows_of_block(channels);
  parallel_for(context, parts, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t part = begin; part < end; ++part) {
      const std::int64_t last = rows * (part + 1) / parts;
      for (std::int64_t n = rows * part / parts; n < last; n += block)
        f(n, smaller(n + block, last), part);
    }
  });
}

// Adds a block of rows of some channels to the moments of the `before` rows above it, zeros where
// there are none. Squares are
// taken of the distances from the block's own mean, rounded; what the rounding leaves is made good.
template <int kVectors, class Lanes>
inline void add_block(const float* x, std::int64_t rows, std::int64_t channels, double before,
                      double* mean, double* square, Lanes lanes) {
  V center[kVectors], rest[kVectors], squares[kVectors];
  for (int j = 0; j < kVectors; ++j) center[j] = rest[j] = squares[j] = zero();
  for (std::int64_t n = 0; n < rows; ++n)
    for (int j = 0; j < kVectors; ++j)
      center[j] = center[j] + load(x + n * channels + j * V::width, lanes);
  for (int j = 0; j < kVectors; ++j)
    center[j] = center[j] * broadcast(1.0f / static_cast<float>(rows));
  for (std::int64_t n = 0; n < rows; ++n)
    for (int j = 0; j < kVectors; ++j) {
      const V distance = load(x + n * channels + j * V::width, lanes) - center[j];
      rest[j] = rest[j] + distance;
      squares[j] = fma(distance, distance, squares[j]);
    }
  const double count = static_cast<double>(rows), inverse = 1.0 / count;
  const Shares shares = shares_of(before, count);
  for (int j = 0; j < kVectors; ++j) {
    float c[V::width], r[V::width], q[V::width];
    store(c, center[j]);
    store(r, rest[j]);
    store(q, squares[j]);
    for (int k = 0; k < lanes_in(lanes); ++k) {
      const double left = static_cast<double>(r[k]) * inverse;
      const Moments block = {static_cast<double>(c[k]) + left,
                             static_cast<double>(q[k]) - static_cast<double>(r[k]) * left};
      const int i = j * V::width + k;
      const Moments all = merged({mean[i], square[i]}, block, shares);
      mean[i] = all.mean;
      square[i] = all.square;
    }
  }
}

inline std::size_t channel_statistics_workspace(const RowsShape& s) {
  return static_cast<std::size_t>(2 * channel_parts(s.N, s.C) * s.C) * sizeof(double);
}

inline void channel_statistics(Context& context, const RowsShape& s, const float* x, float* mean,
                               float* variance, void* workspace) {
  double* moments = static_cast<double*>(workspace);  // by part: means, squares
  const std::int64_t parts = channel_parts(s.N, s.C);
  for_blocks(context, s.N, s.C, [&](std::int64_t first, std::int64_t last, std::int64_t part) {
    double* means = moments + 2 * part * s.C;
    const double before = static_cast<double>(first - s.N * part / parts);
    if (before == 0.0)
      for (std::int64_t i = 0; i < 2 * s.C; ++i) means[i] = 0.0;
    for_channels(s.C, [&](std::int64_t c, auto vectors, auto lanes) {
      add_block<decltype(vectors)::value>(x + first * s.C + c, last - first, s.C, before, means + c,
                                          means + s.C + c, lanes);
    });
  });
  parallel_for(context, s.C, grain_of(8 * parts), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t c = begin; c < end; ++c) {
      Moments all = {0.0, 0.0};
      double before = 0.0;
      for (std::int64_t part = 0; part < parts; ++part) {
        const double rows = static_cast<double>(s.N * (part + 1) / parts - s.N * part / parts);
        const double* means = moments + 2 * part * s.C;
        if (rows > 0) all = merged(all, {means[c], means[s.C + c]}, shares_of(before, rows));
        before += rows;
      }
      mean[c] = static_cast<float>(all.mean);
      // Rounding may take the sum below zero; NaN stays.
      const double square = all.square < 0.0 ? 0.0 : all.square;
      variance[c] = before > 0.0 ? static_cast<float>(square / before) : 0.0f;
    }
  });
}

// By channel: k, and beta or zeros.
struct Affine {
  float *factor, *offset;
};

inline Affine make_affine(const BatchNormShape& s, const BatchNormInputs& in, float* memory) {
  const Affine affine = {memory, memory + s.C};
  for_vectors(0, s.C, [&](std::int64_t c, auto lanes) {
    const V gamma = in.gamma ? load(in.gamma + c, lanes) : broadcast(1.0f);
    const V deviation = sqrt(load(in.variance + c, lanes) + broadcast(s.epsilon));
    store(affine.factor + c, gamma / deviation, lanes);
    store(affine.offset + c, in.beta ? load(in.beta + c, lanes) : zero(), lanes);
  });
  return affine;
}

inline std::size_t batch_norm_workspace(const BatchNormShape& s) {
  return static_cast<std::size_t>(2 * s.C) * sizeof(float);
}

inline void batch_norm(Context& context, const BatchNormShape& s, const BatchNormInputs& in,
                       float* y, void* workspace) {
  const Affine affine = make_affine(s, in, static_cast<float*>(workspace));
  with_applied(s.activation, [&](auto activation) {
    parallel_for(context, s.N, grain_of(s.C), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = begin; n < end; ++n) {
        const float* x = in.x + n * s.C;
        const float* residual = in.residual ? in.residual + n * s.C : nullptr;
        float* to = y + n * s.C;
        for_vectors(0, s.C, [=](std::int64_t c, auto lanes) {
          V v = fma(load(x + c, lanes) - load(in.mean + c, lanes), load(affine.factor + c, lanes),
                    load(affine.offset + c, lanes));
          if (residual) v = v + load(residual + c, lanes);
          store(to + c, activate(decltype(activation)::value, v), lanes);
        });
      }
    });
  });
}

struct BatchNormBackward {
  const BatchNormShape& s;
  const BatchNormInputs& in;
  const float *dy, *y;
  Affine affine;

  // g and x - mean of row n, channels c.
  struct Pair {
    V g, distance;
  };
  template <Activation kActivation, class Lanes>
  Pair at(std::int64_t n, std::int64_t c, Lanes lanes) const {
    const std::int64_t i = n * s.C + c;
    const V g = load(dy + i, lanes);
    const V distance = load(in.x + i, lanes) - load(in.mean + c, lanes);
    if constexpr (kActivation == Activation::none) return {g, distance};
    const V alpha = broadcast(default_alpha(kActivation));
    if (y) return {activation_gradient(kActivation, g, load(y + i, lanes), alpha), distance};
    const V before = fma(distance, load(affine.factor + c, lanes), load(affine.offset + c, lanes));
    const V other = gradient_from_output(kActivation) ? activate(kActivation, before) : before;
    return {activation_gradient(kActivation, g, other, alpha), distance};
  }
};

// Parts' sums of g and of g * (x - mean); then, by channel, the sums themselves in the first.
template <Activation kActivation>
inline void sum_gradients(Context& context, const BatchNormBackward& b, double* sums) {
  const std::int64_t C = b.s.C, parts = channel_parts(b.s.N, C);
  parallel_for(context, 2 * parts * C, kGrainElements,
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t i = begin; i < end; ++i) sums[i] = 0.0;
               });
  for_blocks(context, b.s.N, C, [&](std::int64_t first, std::int64_t last, std::int64_t part) {
    double* sum = sums + 2 * part * C;
    for_channels(C, [&](std::int64_t c, auto vectors, auto lanes) {
      constexpr int kVectors = decltype(vectors)::value;
      V plain[kVectors], product[kVectors];
      for (int j = 0; j < kVectors; ++j) plain[j] = product[j] = zero();
      for (std::int64_t n = first; n < last; ++n)
        for (int j = 0; j < kVectors; ++j) {
          const auto pair = b.at<kActivation>(n, c + j * V::width, lanes);
          plain[j] = plain[j] + pair.g;
          product[j] = fma(pair.g, pair.distance, product[j]);
        }
      for (int j = 0; j < kVectors; ++j) {
        float g[V::width], p[V::width];
        store(g, plain[j]);
        store(p, product[j]);
        for (int k = 0; k < lanes_in(lanes); ++k) {
          const std::int64_t i = c + j * V::width + k;
          sum[i] += static_cast<double>(g[k]);
          sum[C + i] += static_cast<double>(p[k]);
        }
      }
    });
  });
  parallel_for(context, 2 * C, grain_of(parts), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t part = 1; part < parts; ++part)
      for (std::int64_t i = begin; i < end; ++i) sums[i] += sums[2 * part * C + i];
  });
}

// dx and dresidual. `share` has by channel what each row gives back: dbeta / N, and then the factor
// of x - mean; both are zero where the statistics were given.
template <Activation kActivation>
inline void spread_gradients(Context& context, const BatchNormBackward& b, const float* share,
                             const BatchNormGradients& out) {
  const std::int64_t C = b.s.C;
  parallel_for(context, b.s.N, grain_of(C), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n) {
      float* dx = out.dx ? out.dx + n * C : nullptr;
      float* dresidual = out.dresidual ? out.dresidual + n * C : nullptr;
      for_vectors(0, C, [=](std::int64_t c, auto lanes) {
        const auto pair = b.at<kActivation>(n, c, lanes);
        const V rest = pair.g - load(share + c, lanes);
        const V slope = load(share + C + c, lanes);
        if (dx)
          store(dx + c, (rest - pair.distance * slope) * load(b.affine.factor + c, lanes), lanes);
        if (dresidual) store(dresidual + c, pair.g, lanes);
      });
    }
  });
}

inline std::size_t batch_norm_backward_workspace(const BatchNormShape& s) {
  return static_cast<std::size_t>(2 * channel_parts(s.N, s.C) * s.C) * sizeof(double) +
         static_cast<std::size_t>(4 * s.C) * sizeof(float);
}

inline void batch_norm_backward(Context& context, const BatchNormShape& s,
                                const BatchNormInputs& in, const float* dy, const float* y,
                                const BatchNormGradients& out, void* workspace) {
  double* sums = static_cast<double*>(workspace);
  float* share = reinterpret_cast<float*>(sums + 2 * channel_parts(s.N, s.C) * s.C);
  const BatchNormBackward b = {s, in, dy, y, make_affine(s, in, share + 2 * s.C)};
  with_applied(s.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    if ((s.training && out.dx) || out.dgamma || out.dbeta)
      sum_gradients<kActivation>(context, b, sums);
    for (std::int64_t c = 0; c < s.C; ++c) {
      const double variance = static_cast<double>(in.variance[c]) + static_cast<double>(s.epsilon);
      if (out.dbeta) out.dbeta[c] = static_cast<float>(sums[c]);
      if (out.dgamma) out.dgamma[c] = static_cast<float>(sums[s.C + c] / std::sqrt(variance));
      const bool shared = s.training && out.dx && s.N > 0;
      share[c] = shared ? static_cast<float>(sums[c] / static_cast<double>(s.N)) : 0.0f;
      share[s.C + c] =
          shared ? static_cast<float>(sums[s.C + c] / (static_cast<double>(s.N) * variance)) : 0.0f;
    }
    if (out.dx || out.dresidual) spread_gradients<kActivation>(context, b, share, out);
  });
}

inline void fold_batch_norm(Context& context, const BatchNormShape& s, const BatchNormInputs& in,
                            const float* bias, float* weight, float* folded_bias, void* workspace) {
  const Affine affine = make_affine(s, in, static_cast<float*>(workspace));
  parallel_for(context, s.N, grain_of(s.C), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n)
      for_vectors(0, s.C, [&](std::int64_t c, auto lanes) {
        const V w = load(in.x + n * s.C + c, lanes);
        store(weight + n * s.C + c, w * load(affine.factor + c, lanes), lanes);
      });
  });
  for_vectors(0, s.C, [&](std::int64_t c, auto lanes) {
    const V old = bias ? load(bias + c, lanes) : zero();
    store(folded_bias + c,
          fma(old - load(in.mean + c, lanes), load(affine.factor + c, lanes),
              load(affine.offset + c, lanes)),
          lanes);
  });
}

inline void moving_average(Context& context, std::int64_t n, double momentum, Halt halt,
                           const float* x, float* average) {
  if (halt && *halt) return;
  const V old = broadcast(static_cast<float>(momentum));
  const V fresh = broadcast(static_cast<float>(1.0 - momentum));
  transform(context, n, average, x, average, [=](V a, V b) { return a * old + b * fresh; });
}

}  // namespace convlet::CONVLET_ISA
