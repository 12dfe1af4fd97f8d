// Enlarging images by whole factors (formulas in ops/upsample2d.h), in vectors of channels.
namespace convlet::CONVLET_ISA {

inline void nearest_row(const Upsample2dShape& s, const float* x, float* y) {
  for (std::int64_t w = 0; w < s.W; ++w)
    for (std::int64_t i = 0; i < s.size_w; ++i)
      copy(y + (w * s.size_w + i) * s.C, x + w * s.C, s.C);
}

inline void bilinear_row(const Upsample2dShape& s, const float* low, const float* high, float share,
                         float* y) {
  const V above = broadcast(1.0f - share), below = broadcast(share);
  for (std::int64_t q = 0; q < s.W * s.size_w; ++q) {
    const Neighbours at(q, s.size_w, s.W);
    const V left = broadcast(1.0f - at.share), right = broadcast(at.share);
    const std::int64_t l = at.low * s.C, r = at.high * s.C;
    for_vectors(0, s.C, [&](std::int64_t c, auto lanes) {
      const V top = fma(right, load(low + r + c, lanes), left * load(low + l + c, lanes));
      const V bottom = fma(right, load(high + r + c, lanes), left * load(high + l + c, lanes));
      store(y + q * s.C + c, fma(below, bottom, above * top), lanes);
    });
  }
}

inline void upsample2d(Context& context, const Upsample2dShape& s, const float* x, float* y) {
  const std::int64_t P = s.H * s.size_h, x_row = s.W * s.C, y_row = x_row * s.size_w;
  parallel_for(context, s.N * P, grain_of(y_row), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t p = i % P;
      const float* image = x + i / P * s.H * x_row;
      if (s.interpolation == Interpolation::nearest) {
        nearest_row(s, image + p / s.size_h * x_row, y + i * y_row);
      } else {
        const Neighbours at(p, s.size_h, s.H);
        bilinear_row(s, image + at.low * x_row, image + at.high * x_row, at.share, y + i * y_row);
      }
    }
  });
}

// One pixel of dx from the pixels of dy that it counts for: rows by rows, and then their sums.
inline void gather_pixel(const Dependents& rows, const Dependents& columns, std::int64_t y_row,
                         std::int64_t channels, const float* dy, float* dx) {
  for_channels(channels, [=](std::int64_t c, auto count, auto lanes) {
    constexpr int kVectors = count;
    V sum[kVectors];
    CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[v] = zero();
    for (std::int64_t p = rows.begin; p < rows.end; ++p) {
      V row[kVectors];
      CONVLET_UNROLL
      for (int v = 0; v < kVectors; ++v) row[v] = zero();
      for (std::int64_t q = columns.begin; q < columns.end; ++q) {
        const V weight = broadcast(columns.weight(q));
        const float* from = dy + p * y_row + q * channels + c;
        CONVLET_UNROLL
        for (int v = 0; v < kVectors; ++v)
          row[v] = fma(weight, load(from + v * V::width, lanes), row[v]);
      }
      const V weight = broadcast(rows.weight(p));
      CONVLET_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[v] = fma(weight, row[v], sum[v]);
    }
    CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v) store(dx + c + v * V::width, sum[v], lanes);
  });
}

inline void upsample2d_backward(Context& context, const Upsample2dShape& s, const float* dy,
                                float* dx) {
  const std::int64_t y_row = s.W * s.size_w * s.C, image = s.H * s.size_h * y_row;
  const std::int64_t work = 4 * s.W * s.C * s.size_h * s.size_w;
  parallel_for(context, s.N * s.H, grain_of(work), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Dependents rows(s.interpolation, i % s.H, s.size_h, s.H);
      for (std::int64_t w = 0; w < s.W; ++w) {
        const Dependents columns(s.interpolation, w, s.size_w, s.W);
        gather_pixel(rows, columns, y_row, s.C, dy + i / s.H * image, dx + (i * s.W + w) * s.C);
      }
    }
  });
}

}  // namespace convlet::CONVLET_ISA
