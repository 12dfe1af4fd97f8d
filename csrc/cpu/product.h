// What the kernels of conv2d, dense and matmul multiply: float32 values as they are, or pairs of
// them rounded to bfloat16 (bfloat16.h). An element of a or b in gemm.h is as large as a float in
// both cases and holds `terms` terms of a sum; sums and results are float32.
//
// Pairs are made by copying, so that a kernel that may read its input in place does so only where
// `converts` is false.
namespace convlet::CONVLET_ISA {

struct Float32 {
  static constexpr bool converts = false;
  static constexpr std::int64_t terms = 1;

  static constexpr std::int64_t elements(std::int64_t count) { return count; }
  static V multiply_add(V a, V b, V sum) { return fma(a, b, sum); }

  // As pack_rows and pack_transposed of gemm.h.
  static void pack(const float* from, std::int64_t stride, std::int64_t rows, int columns,
                   int width, float* to) {
    pack_rows(from, stride, rows, columns, width, to);
  }
  static void pack_turned(const float* from, std::int64_t stride, std::int64_t rows, int columns,
                          int width, float* to) {
    pack_transposed(from, stride, rows, columns, width, to);
  }
  static void gather(const float* from, std::int64_t stride, std::int64_t rows,
                     std::int64_t columns, float* to) {
    for (std::int64_t i = 0; i < rows; ++i) copy(to + i * columns, from + i * stride, columns);
  }
  // Rows of pixels; the second are the same of the next image, for those that take two terms.
  static void pack_pixels(const float* from, const float*, std::int64_t stride, std::int64_t rows,
                          int columns, int width, float* to) {
    pack_rows(from, stride, rows, columns, width, to);
  }
};

struct Bfloat16 {
  static constexpr bool converts = true;
  static constexpr std::int64_t terms = 2;

  static constexpr std::int64_t elements(std::int64_t count) { return (count + 1) / 2; }
  static V multiply_add(V a, V b, V sum) { return multiply_add_pairs(a, b, sum); }

  // Element (i,j) of `to` is the pair of terms 2 i and 2 i + 1; `rows` counts terms.
  static void pack(const float* from, std::int64_t stride, std::int64_t rows, int columns,
                   int width, float* to) {
    pack_pairs(from, from + stride, 2 * stride, rows / 2, columns, width, to);
    if (rows % 2)
      pack_pairs(from + (rows - 1) * stride, nullptr, 0, 1, columns, width, to + rows / 2 * width);
  }
  static void pack_turned(const float* from, std::int64_t stride, std::int64_t rows, int columns,
                          int width, float* to) {
    constexpr std::int64_t kAtOnce = 32;
    float pairs[kPanel * kAtOnce];
    for (std::int64_t i = 0; i < rows; i += 2 * kAtOnce, to += kAtOnce * width) {
      const std::int64_t count = smaller(2 * kAtOnce, rows - i);
      for (int j = 0; j < columns; ++j)
        pair_neighbours(from + j * stride + i, count, pairs + j * kAtOnce);
      pack_transposed(pairs, kAtOnce, elements(count), columns, width, to);
    }
  }

  // As pack, without a filled-up width.
  static void gather(const float* from, std::int64_t stride, std::int64_t rows,
                     std::int64_t columns, float* to) {
    pack(from, stride, rows, static_cast<int>(columns), static_cast<int>(columns), to);
  }
  // A row of `to` is the pair of the same row of two neighbouring images; of the last there may be
  // one, and `next` is null.
  static void pack_pixels(const float* from, const float* next, std::int64_t stride,
                          std::int64_t rows, int columns, int width, float* to) {
    pack_pairs(from, next, stride, rows, columns, width, to);
  }

  // Rows of values, one after the other, to rows of elements.
  static void convert(const float* from, std::int64_t rows, std::int64_t columns, float* to) {
    if (columns % 2 == 0) return pair_neighbours(from, rows * columns, to);
    for (std::int64_t i = 0; i < rows; ++i)
      pair_neighbours(from + i * columns, columns, to + i * elements(columns));
  }

  // to[i * width + j] = pair(first[i * stride + j], second[i * stride + j]) for j < columns, zeros
  // for the rest of the width; no second is zeros.
  static void pack_pairs(const float* first, const float* second, std::int64_t stride,
                         std::int64_t rows, int columns, int width, float* to) {
    for (std::int64_t i = 0; i < rows; ++i, first += stride, to += width) {
      pair_values(first, second, columns, to);
      if (second) second += stride;
      clear(to + columns, width - columns);
    }
  }
};

}  // namespace convlet::CONVLET_ISA
