// batch_norm and the statistics of channels (formulas in ops/batch_norm.h). A tensor is rows of
// channels. Sums over rows are taken in blocks that stay in the cache, in float32, and the blocks
// of a part one after the other in float64; blocks and parts depend on the shape alone.
namespace convlet::CONVLET_ISA {

constexpr std::int64_t kRowsOfBlock = 32;
// Within a block channels are taken so many at a time, or fewer, row by row: memory is read in long
// pieces, and what is added up stays in the first-level cache.
constexpr std::int64_t kChannelsAtOnce = 512;

inline std::int64_t channel_parts(std::int64_t rows, std::int64_t channels) {
  const std::int64_t parts = smaller(rows * channels / 65536, rows / 8);
  return larger(1, smaller(kReductionParts, parts));
}

// f(first row, last row, part) for every block of rows, in order within each part.
template <class F>
inline void for_blocks(Context& context, std::int64_t rows, std::int64_t channels, F f) {
  const std::int64_t parts = channel_parts(rows, channels);
  parallel_for(context, parts, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t part = begin; part < end; ++part) {
      const std::int64_t last = rows * (part + 1) / parts;
      for (std::int64_t n = rows * part / parts; n < last; n += kRowsOfBlock)
        f(n, smaller(n + kRowsOfBlock, last), part);
    }
  });
}

// f(first channel, how many) for pieces of a row of at most kChannelsAtOnce.
template <class F>
inline void for_pieces(std::int64_t channels, F f) {
  for (std::int64_t c = 0; c < channels; c += kChannelsAtOnce)
    f(c, smaller(kChannelsAtOnce, channels - c));
}

// f(n, count, c, lanes) for the vectors of channels of `count` rows together, 4 or 1, from row n
// on.
template <class F>
inline void for_row_groups(std::int64_t first, std::int64_t last, std::int64_t channels, F f) {
  constexpr int kRows = 4;
  std::int64_t n = first;
  for (; n + kRows <= last; n += kRows)
    for_vectors(0, channels, [&](std::int64_t c, auto lanes) {
      f(n, std::integral_constant<int, kRows>(), c, lanes);
    });
  for (; n < last; ++n)
    for_vectors(0, channels, [&](std::int64_t c, auto lanes) {
      f(n, std::integral_constant<int, 1>(), c, lanes);
    });
}

// The means of a block of rows by channel, at most kChannelsAtOnce of them, rounded.
inline void block_means(const float* x, std::int64_t rows, std::int64_t pitch,
                        std::int64_t channels, float* mean) {
  clear(mean, channels);
  for_row_groups(0, rows, channels, [=](std::int64_t n, auto count, std::int64_t c, auto lanes) {
    V sum = load(mean + c, lanes);
    CONVLET_UNROLL
    for (int i = 0; i < decltype(count)::value; ++i)
      sum = sum + load(x + (n + i) * pitch + c, lanes);
    store(mean + c, sum, lanes);
  });
  const V share = broadcast(1.0f / static_cast<float>(rows));
  for_vectors(0, channels, [=](std::int64_t c, auto lanes) {
    store(mean + c, load(mean + c, lanes) * share, lanes);
  });
}

// Adds a block of rows of some channels, at most kChannelsAtOnce, to the moments of the `before`
// rows above it, zeros where there are none. A row has `pitch` floats. Squares are taken of the
// distances from the mean of the rows above or, in the first block, from its own: what a channel's
// values have in common is gone before anything is squared, and one pass suffices.
inline void add_block(const float* x, std::int64_t rows, std::int64_t pitch, std::int64_t channels,
                      double before, double* mean, double* square) {
  float center[kChannelsAtOnce], rest[kChannelsAtOnce], squares[kChannelsAtOnce];
  for (float* sums : {rest, squares}) clear(sums, channels);
  if (before == 0.0)
    block_means(x, rows, pitch, channels, center);
  else
    for (std::int64_t c = 0; c < channels; ++c) center[c] = static_cast<float>(mean[c]);
  const float* middles = center;
  float *left = rest, *sums = squares;
  for_row_groups(0, rows, channels, [=](std::int64_t n, auto count, std::int64_t c, auto lanes) {
    const V middle = load(middles + c, lanes);
    V distances = load(left + c, lanes), sum = load(sums + c, lanes);
    CONVLET_UNROLL
    for (int i = 0; i < decltype(count)::value; ++i) {
      const V distance = load(x + (n + i) * pitch + c, lanes) - middle;
      distances = distances + distance;
      sum = fma(distance, distance, sum);
    }
    store(left + c, distances, lanes);
    store(sums + c, sum, lanes);
  });
  const double rows_here = static_cast<double>(rows), inverse = 1.0 / rows_here;
  const Shares shares = shares_of(before, rows_here);
  for (std::int64_t c = 0; c < channels; ++c) {
    const double r = rest[c], offset = r * inverse;
    const Moments block = {static_cast<double>(center[c]) + offset,
                           static_cast<double>(squares[c]) - r * offset};
    const Moments all = merged({mean[c], square[c]}, block, shares);
    mean[c] = all.mean;
    square[c] = all.square;
  }
}

// g and x - mean of a place.
struct GradientTerms {
  V g, distance;
};

// Adds a block of rows' g and g * (x - mean), which at(row, channel, lanes) gives, to the sums.
template <class At>
inline void add_gradients(std::int64_t first, std::int64_t last, std::int64_t channels, At at,
                          double* plain_sums, double* product_sums) {
  for_pieces(channels, [&](std::int64_t begin, std::int64_t count_here) {
    float both[2 * kChannelsAtOnce];
    float *plain = both, *product = both + kChannelsAtOnce;
    for (float* sums : {plain, product}) clear(sums, count_here);
    // Everything by value: what is stored might change what a reference names, as far as the
    // compiler knows.
    for_row_groups(first, last, count_here,
                   [=](std::int64_t n, auto count, std::int64_t c, auto lanes) {
                     V g = load(plain + c, lanes), p = load(product + c, lanes);
                     CONVLET_UNROLL
                     for (int i = 0; i < decltype(count)::value; ++i) {
                       const GradientTerms terms = at(n + i, begin + c, lanes);
                       g = g + terms.g;
                       p = fma(terms.g, terms.distance, p);
                     }
                     store(plain + c, g, lanes);
                     store(product + c, p, lanes);
                   });
    for (std::int64_t c = 0; c < count_here; ++c) {
      plain_sums[begin + c] += static_cast<double>(plain[c]);
      product_sums[begin + c] += static_cast<double>(product[c]);
    }
  });
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
    for_pieces(s.C, [&](std::int64_t c, std::int64_t channels) {
      add_block(x + first * s.C + c, last - first, s.C, channels, before, means + c,
                means + s.C + c);
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

// Held by value where it is used: what a kernel stores might change the original, as far as the
// compiler knows, and it would read every pointer anew for each vector.
struct BatchNormBackward {
  std::int64_t C;
  const float *x, *mean, *dy, *y;
  Affine affine;

  // Of row n, channels c.
  template <Activation kActivation, class Lanes>
  GradientTerms at(std::int64_t n, std::int64_t c, Lanes lanes) const {
    const std::int64_t i = n * C + c;
    const V g = load(dy + i, lanes);
    const V distance = load(x + i, lanes) - load(mean + c, lanes);
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
inline void sum_gradients(Context& context, std::int64_t N, const BatchNormBackward& b,
                          double* sums) {
  const std::int64_t C = b.C, parts = channel_parts(N, C);
  parallel_for(context, 2 * parts * C, kGrainElements,
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t i = begin; i < end; ++i) sums[i] = 0.0;
               });
  for_blocks(context, N, C, [&](std::int64_t first, std::int64_t last, std::int64_t part) {
    double* sum = sums + 2 * part * C;
    add_gradients(
        first, last, C,
        [own = b](std::int64_t n, std::int64_t c, auto lanes) {
          return own.at<kActivation>(n, c, lanes);
        },
        sum, sum + C);
  });
  parallel_for(context, 2 * C, grain_of(parts), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t part = 1; part < parts; ++part)
      for (std::int64_t i = begin; i < end; ++i) sums[i] += sums[2 * part * C + i];
  });
}

// dx and dresidual. `share` has by channel what each row gives back: dbeta / N, and then the factor
// of x - mean; both are zero where the statistics were given.
template <Activation kActivation>
inline void spread_gradients(Context& context, std::int64_t N, const BatchNormBackward& b,
                             const float* share, const BatchNormGradients& out) {
  parallel_for(context, N, grain_of(b.C), [&](std::int64_t begin, std::int64_t end, int) {
    const BatchNormBackward own = b;
    float *dx = out.dx, *dresidual = out.dresidual;
    const float *shift = share, *slope = share + b.C;
    for (std::int64_t n = begin; n < end; ++n)
      for_vectors(0, own.C, [=](std::int64_t c, auto lanes) {
        const GradientTerms pair = own.at<kActivation>(n, c, lanes);
        const V rest = pair.g - load(shift + c, lanes);
        const V scaled =
            (rest - pair.distance * load(slope + c, lanes)) * load(own.affine.factor + c, lanes);
        if (dx) store(dx + n * own.C + c, scaled, lanes);
        if (dresidual) store(dresidual + n * own.C + c, pair.g, lanes);
      });
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
  const BatchNormBackward b = {s.C, in.x, in.mean, dy, y, make_affine(s, in, share + 2 * s.C)};
  with_applied(s.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    if ((s.training && out.dx) || out.dgamma || out.dbeta)
      sum_gradients<kActivation>(context, s.N, b, sums);
    for (std::int64_t c = 0; c < s.C; ++c) {
      const double variance = static_cast<double>(in.variance[c]) + static_cast<double>(s.epsilon);
      if (out.dbeta) out.dbeta[c] = static_cast<float>(sums[c]);
      if (out.dgamma) out.dgamma[c] = static_cast<float>(sums[s.C + c] / std::sqrt(variance));
      const bool shared = s.training && out.dx && s.N > 0;
      share[c] = shared ? static_cast<float>(sums[c] / static_cast<double>(s.N)) : 0.0f;
      share[s.C + c] =
          shared ? static_cast<float>(sums[s.C + c] / (static_cast<double>(s.N) * variance)) : 0.0f;
    }
    if (out.dx || out.dresidual) spread_gradients<kActivation>(context, s.N, b, share, out);
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
