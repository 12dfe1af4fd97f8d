// Kernels that move rows about or judge them: columns in and out of a wider matrix, zero padding
// and cropping of images, the batch of a step, and the accuracy of predictions.
namespace convlet::CONVLET_ISA {

inline void copy_to_columns(Context& context, std::int64_t rows, std::int64_t count, const float* x,
                            std::int64_t width, std::int64_t offset, float* y) {
  parallel_for(context, rows, grain_of(count), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row)
      copy(y + row * width + offset, x + row * count, count);
  });
}

inline void copy_from_columns(Context& context, std::int64_t rows, std::int64_t count,
                              const float* x, std::int64_t width, std::int64_t offset, float* y) {
  parallel_for(context, rows, grain_of(count), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row)
      copy(y + row * count, x + row * width + offset, count);
  });
}

inline void pad2d(Context& context, const Shape& x, std::int64_t top, std::int64_t bottom,
                  std::int64_t left, std::int64_t right, const float* x_data, float* y) {
  const std::int64_t N = x[0], H = x[1], W = x[2], C = x[3];
  const std::int64_t rows = top + H + bottom, width = (left + W + right) * C;
  parallel_for(context, N * rows, grain_of(width), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / rows, h = i % rows - top;
      float* row = y + i * width;
      if (h < 0 || h >= H) {
        clear(row, width);
        continue;
      }
      clear(row, left * C);
      copy(row + left * C, x_data + (n * H + h) * W * C, W * C);
      clear(row + (left + W) * C, right * C);
    }
  });
}

inline void crop2d(Context& context, const Shape& x, std::int64_t top, std::int64_t bottom,
                   std::int64_t left, std::int64_t right, const float* dy, float* dx) {
  const std::int64_t N = x[0], H = x[1], W = x[2], C = x[3];
  const std::int64_t rows = top + H + bottom, width = (left + W + right) * C;
  parallel_for(context, N * H, grain_of(W * C), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / H, h = i % H;
      copy(dx + i * W * C, dy + (n * rows + top + h) * width + left * C, W * C);
    }
  });
}

// y = x in another type; the compiler turns the loop into vectors.
template <class T, class Y>
inline void convert(const T* x, std::int64_t n, Y* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = static_cast<Y>(x[i]);
}
inline void convert(const float* x, std::int64_t n, float* y) {
  copy(y, x, n);
}

template <class T, class Y>
inline void gather(Context& context, std::int64_t rows, std::int64_t count, const void* x,
                   const BatchRows& from, Y* y) {
  if (from.halted()) return;
  parallel_for(context, rows, grain_of(count), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i)
      convert(static_cast<const T*>(x) + from.row(i) * count, count, y + i * count);
  });
}

inline void gather_rows(Context& context, std::int64_t rows, std::int64_t count, const void* x,
                        DType dtype, const BatchRows& from, float* y) {
  switch (dtype) {
    case DType::float32:
      return gather<float>(context, rows, count, x, from, y);
    case DType::float64:
      return gather<double>(context, rows, count, x, from, y);
    case DType::uint8:
      return gather<std::uint8_t>(context, rows, count, x, from, y);
    case DType::int32:
      return gather<std::int32_t>(context, rows, count, x, from, y);
    case DType::int64:
      return gather<std::int64_t>(context, rows, count, x, from, y);
  }
}

inline void gather_labels(Context& context, std::int64_t rows, std::int64_t count, const void* x,
                          DType dtype, const BatchRows& from, std::int32_t* y) {
  switch (dtype) {
    case DType::uint8:
      return gather<std::uint8_t>(context, rows, count, x, from, y);
    case DType::int32:
      return gather<std::int32_t>(context, rows, count, x, from, y);
    case DType::int64:
      return gather<std::int64_t>(context, rows, count, x, from, y);
    default:
      break;  // labels are integers
  }
}

inline void gather_scale(Context& context, std::int64_t rows, std::int64_t count,
                         const float* weights, double share, const BatchRows& from, float* y) {
  if (from.halted()) return;
  parallel_for(context, rows, grain_of(count), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float scale =
          static_cast<float>(weights ? static_cast<double>(weights[from.row(i)]) * share : share);
      for (std::int64_t j = 0; j < count; ++j) y[i * count + j] = scale;
    }
  });
}

// The position of the first largest value, or -1 when one is NaN.
inline std::int64_t first_largest(const float* x, std::int64_t n) {
  std::int64_t best = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (x[i] != x[i]) return -1;
    if (x[i] > x[best]) best = i;
  }
  return best;
}

// The share of the row's values on the right side of 0.5. NaN is on neither.
inline float binary_accuracy(const float* prediction, const float* label, std::int64_t n) {
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < n; ++i)
    right += prediction[i] > 0.5f ? label[i] == 1.0f : prediction[i] <= 0.5f && label[i] == 0.0f;
  return static_cast<float>(right) / static_cast<float>(n);
}

inline void accuracy(Context& context, const RowsShape& s, AccuracyKind kind,
                     const float* prediction, const void* labels, float* correct) {
  const auto* integers = static_cast<const std::int32_t*>(labels);
  const auto* targets = static_cast<const float*>(labels);
  for_rows(context, s, [&](std::int64_t n) {
    const float* row = prediction + n * s.C;
    if (kind == AccuracyKind::binary) {
      correct[n] = binary_accuracy(row, targets + n * s.C, s.C);
      return;
    }
    const std::int64_t label =
        kind == AccuracyKind::sparse ? integers[n] : first_largest(targets + n * s.C, s.C);
    correct[n] = label >= 0 && first_largest(row, s.C) == label ? 1.0f : 0.0f;
  });
}

}  // namespace convlet::CONVLET_ISA
