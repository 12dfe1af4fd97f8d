// layer_norm over rows (formulas in ops/layer_norm.h). The statistics of a row are made again for
// the backward, which reads the row anyway. Sums along a row are in float32 over 512 values, then
// in float64.
namespace convlet::CONVLET_ISA {

template <int n>
struct RowSums {
  double sum[n];
};

// The sums that add(i, lanes, sums) adds the terms of i < n to: of four vectors at a time, so that
// no addition waits for the one before it.
template <int kSums, class Add>
inline RowSums<kSums> long_row_sums(std::int64_t n, Add add) {
  constexpr std::int64_t kPiece = 512, kVectors = 4, kTogether = kVectors * V::width;
  RowSums<kSums> total{};
  for (std::int64_t begin = 0; begin < n; begin += kPiece) {
    V sums[kVectors][kSums];
    for (auto& own : sums)
      for (V& sum : own) sum = zero();
    const std::int64_t end = smaller(begin + kPiece, n);
    std::int64_t i = begin;
    for (; i + kTogether <= end; i += kTogether) {
      CONVLET_UNROLL
      for (int j = 0; j < kVectors; ++j) add(i + j * V::width, All(), sums[j]);
    }
    for_vectors(i, end, [&](std::int64_t at, auto lanes) { add(at, lanes, sums[0]); });
    CONVLET_UNROLL
    for (int k = 0; k < kSums; ++k)
      total.sum[k] +=
          static_cast<double>(sum_of_lanes((sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k])));
  }
  return total;
}

inline float row_mean(const float* x, std::int64_t n) {
  const RowSums<1> total = long_row_sums<1>(
      n, [=](std::int64_t i, auto lanes, V* sum) { sum[0] = sum[0] + load(x + i, lanes); });
  return static_cast<float>(total.sum[0] / static_cast<double>(n));
}

// 1 / sqrt(variance + epsilon), from the sum of the squared distances of n values from their mean.
inline float inverse_deviation(double square, std::int64_t n, float epsilon) {
  const double variance = square / static_cast<double>(n);
  return static_cast<float>(1.0 / std::sqrt(variance + static_cast<double>(epsilon)));
}

inline void layer_norm_row(const LayerNormShape& s, const float* x, const float* gamma,
                           const float* beta, float* y) {
  const float mean = row_mean(x, s.C);
  auto distance = [=](std::int64_t i, auto lanes) { return load(x + i, lanes) - broadcast(mean); };
  const RowSums<1> total = long_row_sums<1>(s.C, [=](std::int64_t i, auto lanes, V* sum) {
    const V d = keep(distance(i, lanes), zero(), lanes);
    sum[0] = fma(d, d, sum[0]);
  });
  const float inverse = inverse_deviation(total.sum[0], s.C, s.epsilon);
  for_vectors(0, s.C, [=](std::int64_t c, auto lanes) {
    V v = distance(c, lanes) * broadcast(inverse);
    if (gamma) v = v * load(gamma + c, lanes);
    if (beta) v = v + load(beta + c, lanes);
    store(y + c, v, lanes);
  });
}

inline void layer_norm(Context& context, const LayerNormShape& s, const float* x,
                       const float* gamma, const float* beta, float* y) {
  parallel_for(context, s.N, grain_of(2 * s.C), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n)
      layer_norm_row(s, x + n * s.C, gamma, beta, y + n * s.C);
  });
}

// dx of a row, and its terms added to `sums`: C of dy * x^, C of dy. One pass takes the sums of the
// squared distances, of g = dy * gamma, and of g times the distance.
inline void layer_norm_backward_row(const LayerNormShape& s, const float* dy, const float* x,
                                    const float* gamma, float* dx, float* sums) {
  const float mean = row_mean(x, s.C);
  auto distance = [=](std::int64_t i, auto lanes) { return load(x + i, lanes) - broadcast(mean); };
  auto incoming = [=](std::int64_t i, auto lanes) {
    return gamma ? load(dy + i, lanes) * load(gamma + i, lanes) : load(dy + i, lanes);
  };
  const RowSums<3> total = long_row_sums<3>(s.C, [=](std::int64_t i, auto lanes, V* sum) {
    const V d = keep(distance(i, lanes), zero(), lanes), g = incoming(i, lanes);
    sum[0] = fma(d, d, sum[0]);
    sum[1] = sum[1] + g;
    sum[2] = fma(g, d, sum[2]);
  });
  const float inverse = inverse_deviation(total.sum[0], s.C, s.epsilon);
  const double factor = inverse, count = static_cast<double>(s.C);
  const float plain = static_cast<float>(total.sum[1] / count);
  const float slope = static_cast<float>(factor * factor * total.sum[2] / count);
  const std::int64_t C = s.C;
  for_vectors(0, C, [=](std::int64_t c, auto lanes) {
    const V g = load(dy + c, lanes), d = distance(c, lanes);
    store(sums + c, fma(g, d * broadcast(inverse), load(sums + c, lanes)), lanes);
    store(sums + C + c, load(sums + C + c, lanes) + g, lanes);
    if (!dx) return;
    const V rest = incoming(c, lanes) - broadcast(plain) - d * broadcast(slope);
    store(dx + c, rest * broadcast(inverse), lanes);
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
      for (std::int64_t first = s.N * part / parts; first < last; first += kBlock) {
        clear(block, 2 * s.C);
        const std::int64_t stop = smaller(first + kBlock, last);
        for (std::int64_t n = first; n < stop; ++n)
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
