// The gradient of a bias: db[c] = sum over rows n of dy[n,c]. Rows are added in two levels, 64 at a
// time and then those sums, within parts that depend on the shape alone: long sums lose little.
namespace convlet::CONVLET_ISA {

constexpr std::int64_t kBiasRows = 64;

inline std::int64_t bias_parts(const RowsShape& shape) {
  return larger(1, smaller(kReductionParts, shape.N * shape.C / 16384));
}

inline std::size_t bias_gradient_workspace(const RowsShape& shape) {
  return static_cast<std::size_t>(bias_parts(shape) * shape.C) * sizeof(float);
}

// sum[c] = the sum of rows [begin, end), of value(n, c, lanes).
template <class Value>
inline void sum_rows(const RowsShape& shape, std::int64_t begin, std::int64_t end, float* sum,
                     Value&& value) {
  constexpr int kVectors = 4;
  clear(sum, shape.C);
  for (std::int64_t first = begin; first < end; first += kBiasRows) {
    const std::int64_t last = smaller(end, first + kBiasRows);
    std::int64_t c = 0;
    for (; c + kVectors * V::width <= shape.C; c += kVectors * V::width) {
      V total[kVectors];
      for (int j = 0; j < kVectors; ++j) total[j] = zero();
      for (std::int64_t n = first; n < last; ++n)
        for (int j = 0; j < kVectors; ++j) total[j] = total[j] + value(n, c + j * V::width, All());
      for (int j = 0; j < kVectors; ++j) {
        float* p = sum + c + j * V::width;
        store(p, load(p) + total[j]);
      }
    }
    for_vectors(c, shape.C, [&](std::int64_t i, auto lanes) {
      V total = zero();
      for (std::int64_t n = first; n < last; ++n) total = total + value(n, i, lanes);
      store(sum + i, load(sum + i, lanes) + total, lanes);
    });
  }
}

// db[c] = the sum of all rows of value(n, c, lanes).
template <class Value>
inline void sum_all_rows(Context& context, const RowsShape& shape, float* db, void* workspace,
                         Value&& value) {
  float* sums = static_cast<float*>(workspace);
  const std::int64_t parts = bias_parts(shape);
  parallel_for(context, parts, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t part = begin; part < end; ++part)
      sum_rows(shape, shape.N * part / parts, shape.N * (part + 1) / parts, sums + part * shape.C,
               value);
  });
  for (std::int64_t c = 0; c < shape.C; ++c) {
    float total = 0.0f;
    for (std::int64_t part = 0; part < parts; ++part) total += sums[part * shape.C + c];
    db[c] = total;
  }
}

inline void bias_gradient(Context& context, const RowsShape& shape, const float* dy, float* db,
                          void* workspace) {
  sum_all_rows(context, shape, db, workspace, [=](std::int64_t n, std::int64_t c, auto lanes) {
    return load(dy + n * shape.C + c, lanes);
  });
}

}  // namespace convlet::CONVLET_ISA
