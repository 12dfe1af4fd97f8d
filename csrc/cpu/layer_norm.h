// layer_norm over rows (formulas in ops/layer_norm.h). The statistics of a row are made again for
// the backward, which reads the row anyway. Sums along a row are in float32 over 512 values, then
// in float64.
namespace convlet::CONVLET_ISA {

// The sum of f(i, lanes) for i < n: of four vectors at a time, so that no addition waits for the
// one before it.
template <class F>
inline double long_row_sum(std::int64_t n, F f) {
  constexpr std::int64_t kPiece = 512, kTogether = 4 * V::width;
  double total = 0.0;
  for (std::int64_t begin = 0; begin < n; begin += kPiece) {
    V sum[4] = {zero(), zero(), zero(), zero()};
    const std::int64_t end = smaller(begin + kPiece, n);
    std::int64_t i = begin;
    for (; i + kTogether <= end; i += kTogether) {
      CONVLET_UNROLL
      for (int j = 0; j < 4; ++j) sum[j] = sum[j] + f(i + j * V::width, All());
    }
    for_vectors(i, end, [&](std::int64_t at, auto lanes) {
      sum[0] = sum[0] + keep(f(at, lanes), zero(), lanes);
    });
    total += static_cast<double>(sum_of_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])));
  }
  return total;
}

// The mean of a row, rounded, and 1 / sqrt(variance + epsilon).
struct RowScale {
  float mean, inverse;
};

inline RowScale row_scale(const float* x, std::int64_t n, float epsilon) {
  const double count = static_cast<double>(n);
  const float mean = static_cast<float>(
      long_row_sum(n, [=](std::int64_t i, auto lanes) { return load(x + i, lanes); }) / count);
  const double square = long_row_sum(n, [=](std::int64_t i, auto lanes) {
    const V distance = load(x + i, lanes) - broadcast(mean);
    return distance * distance;
  });
  return {mean, static_cast<float>(1.0 / std::sqrt(square / count + static_cast<double>(epsilon)))};
}

inline void layer_norm(Context& context, const LayerNormShape& s, const float* x,
                       const float* gamma, const float* beta, float* y) {
  parallel_for(context, s.N, grain_of(2 * s.C), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float* from = x + n * s.C;
      float* to = y + n * s.C;
      const RowScale scale = row_scale(from, s.C, s.epsilon);
      for_vectors(0, s.C, [=](std::int64_t c, auto lanes) {
        V v = (load(from + c, lanes) - broadcast(scale.mean)) * broadcast(scale.inverse);
        if (gamma) v = v * load(gamma + c, lanes);
        if (beta) v = v + load(beta + c, lanes);
        store(to + c, v, lanes);
      });
    }
  });
}

// dx of a row, and its terms added to `sums`: C of dy * x^, C of dy.
inline void layer_norm_backward_row(const LayerNormShape& s, const float* dy, const float* x,
                                    const float* gamma, float* dx, float* sums) {
  const RowScale scale = row_scale(x, s.C, s.epsilon);
  auto normalised = [=](std::int64_t c, auto lanes) {
    return (load(x + c, lanes) - broadcast(scale.mean)) * broadcast(scale.inverse);
  };
  auto incoming = [=](std::int64_t c, auto lanes) {
    return gamma ? load(dy + c, lanes) * load(gamma + c, lanes) : load(dy + c, lanes);
  };
  const double count = static_cast<double>(s.C);
  const float plain = static_cast<float>(long_row_sum(s.C, incoming) / count);
  const float product = static_cast<float>(
      long_row_sum(s.C, [=](std::int64_t c,
                            auto lanes) { return incoming(c, lanes) * normalised(c, lanes); }) /
      count);
  for_vectors(0, s.C, [=](std::int64_t c, auto lanes) {
    const V g = load(dy + c, lanes), at = normalised(c, lanes);
    store(sums + c, fma(g, at, load(sums + c, lanes)), lanes);
    store(sums + s.C + c, load(sums + s.C + c, lanes) + g, lanes);
    if (!dx) return;
    const V rest = incoming(c, lanes) - broadcast(plain) - at * broadcast(product);
    store(dx + c, rest * broadcast(scale.inverse), lanes);
  });
}

// Each part of the rows has the sums of its dgamma and dbeta: in float64, and of a block of rows in
// float32.
inline std::size_t layer_norm_backward_workspace(const LayerNormShape& s) {
  return static_cast<std::size_t>(channel_parts(s.N, s.C) * 2 * s.C) *
         (sizeof(double) + sizeof(float));
}

inline void layer_norm_backward(Context& context, const LayerNormShape& s, const float* dy,
                                const float* x, const float* gamma, const AffineGradients& out,
                                void* workspace) {
  constexpr std::int64_t kBlock = 32;
  const std::int64_t parts = channel_parts(s.N, s.C);
  double* totals = static_cast<double*>(workspace);
  float* blocks = reinterpret_cast<float*>(totals + parts * 2 * s.C);
  parallel_for(context, parts, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t part = begin; part < end; ++part) {
      double* total = totals + part * 2 * s.C;
      float* block = blocks + part * 2 * s.C;
      for (std::int64_t i = 0; i < 2 * s.C; ++i) total[i] = 0.0;
      const std::int64_t last = s.N * (part + 1) / parts;
      for (std::int64_t n = s.N * part / parts; n < last;) {
        clear(block, 2 * s.C);
        for (const std::int64_t stop = smaller(n + kBlock, last); n < stop; ++n)
          layer_norm_backward_row(s, dy + n * s.C, x + n * s.C, gamma,
                                  out.dx ? out.dx + n * s.C : nullptr, block);
        for (std::int64_t i = 0; i < 2 * s.C; ++i) total[i] += static_cast<double>(block[i]);
      }
    }
  });
  parallel_for(context, s.C, grain_of(2 * parts), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t c = begin; c < end; ++c) {
      double product = 0.0, plain = 0.0;
      for (std::int64_t part = 0; part < parts; ++part) {
        product += totals[part * 2 * s.C + c];
        plain += totals[part * 2 * s.C + s.C + c];
      }
      if (out.dgamma) out.dgamma[c] = static_cast<float>(product);
      if (out.dbeta) out.dbeta[c] = static_cast<float>(plain);
    }
  });
}

}  // namespace convlet::CONVLET_ISA
