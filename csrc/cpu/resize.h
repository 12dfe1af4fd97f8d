// resize_bilinear (ops/resize.h): whole numbers, four at a time. An axis that keeps its size has
// nothing to do.
namespace convlet::CONVLET_ISA {

using Int4 = std::int32_t __attribute__((vector_size(16)));
using Byte4 = std::uint8_t __attribute__((vector_size(4)));

constexpr std::int32_t kResizeHalf = 1 << (kResizeBits - 1);

inline Int4 load_bytes(const std::uint8_t* p) {
  Byte4 bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, Int4);
}
inline void store_bytes(std::uint8_t* p, Int4 sum, int n) {
  const Byte4 bytes = __builtin_convertvector(sum >> kResizeBits, Byte4);
  std::memcpy(p, &bytes, static_cast<std::size_t>(n));
}

// One row of three channels. `row` has one byte of room behind its last pixel, which is read along
// with it.
inline void resize_row_rgb(const ResizeAxis& axis, const std::uint8_t* row, std::uint8_t* y) {
  for (std::int64_t i = 0; i < axis.out; ++i) {
    const std::int32_t* weights = axis.weights + i * axis.most;
    const std::uint8_t* from = row + 3 * axis.first[i];
    Int4 sum = {kResizeHalf, kResizeHalf, kResizeHalf, kResizeHalf};
    for (std::int64_t j = 0; j < axis.count[i]; ++j) sum += load_bytes(from + 3 * j) * weights[j];
    store_bytes(y + 3 * i, sum, 3);
  }
}

inline void resize_row_grey(const ResizeAxis& axis, const std::uint8_t* row, std::uint8_t* y) {
  for (std::int64_t i = 0; i < axis.out; ++i) {
    const std::int32_t* weights = axis.weights + i * axis.most;
    std::int32_t sum = kResizeHalf;
    for (std::int64_t j = 0; j < axis.count[i]; ++j) sum += row[axis.first[i] + j] * weights[j];
    y[i] = static_cast<std::uint8_t>(sum >> kResizeBits);
  }
}

// Output row i from rows of n bytes.
inline void resize_column(const ResizeAxis& axis, std::int64_t i, std::int64_t n,
                          const std::uint8_t* x, std::uint8_t* y) {
  const std::int32_t* weights = axis.weights + i * axis.most;
  const std::uint8_t* from = x + axis.first[i] * n;
  const std::int64_t rows = axis.count[i];
  std::int64_t at = 0;
  for (; at + 16 <= n; at += 16) {
    Int4 a = {kResizeHalf, kResizeHalf, kResizeHalf, kResizeHalf}, b = a, c = a, d = a;
    for (std::int64_t j = 0; j < rows; ++j) {
      const std::uint8_t* p = from + j * n + at;
      a += load_bytes(p) * weights[j];
      b += load_bytes(p + 4) * weights[j];
      c += load_bytes(p + 8) * weights[j];
      d += load_bytes(p + 12) * weights[j];
    }
    store_bytes(y + at, a, 4);
    store_bytes(y + at + 4, b, 4);
    store_bytes(y + at + 8, c, 4);
    store_bytes(y + at + 12, d, 4);
  }
  for (; at < n; ++at) {
    std::int32_t sum = kResizeHalf;
    for (std::int64_t j = 0; j < rows; ++j) sum += from[j * n + at] * weights[j];
    y[at] = static_cast<std::uint8_t>(sum >> kResizeBits);
  }
}

// x of `rows` rows along the rows. `padded` holds one of them and a byte.
inline void resize_rows(const ResizeShape& s, std::int64_t rows, const std::uint8_t* x,
                        std::uint8_t* padded, std::uint8_t* y) {
  const std::int64_t from = s.w.in * s.C, to = s.w.out * s.C;
  padded[from] = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    std::memcpy(padded, x + i * from, static_cast<std::size_t>(from));
    (s.C == 3 ? resize_row_rgb : resize_row_grey)(s.w, padded, y + i * to);
  }
}

// x with rows of `width` pixels along the columns.
inline void resize_columns(const ResizeShape& s, std::int64_t width, const std::uint8_t* x,
                           std::uint8_t* y) {
  const std::int64_t n = width * s.C;
  for (std::int64_t i = 0; i < s.h.out; ++i) resize_column(s.h, i, n, x, y + i * n);
}

inline std::size_t resize_workspace(const ResizeShape& s) {
  const std::int64_t padded = s.w.in * s.C + 1;
  const std::int64_t between = s.columns_first() ? s.h.out * s.w.in : s.h.in * s.w.out;
  return static_cast<std::size_t>(padded + between * s.C);
}

inline void resize_bilinear(const ResizeShape& s, const std::uint8_t* x, void* workspace,
                            std::uint8_t* y) {
  std::uint8_t* padded = static_cast<std::uint8_t*>(workspace);
  std::uint8_t* between = padded + s.w.in * s.C + 1;
  const bool rows = s.w.in != s.w.out, columns = s.h.in != s.h.out;
  if (!rows && !columns) {
    std::memcpy(y, x, static_cast<std::size_t>(s.h.in * s.w.in * s.C));
  } else if (!columns) {
    resize_rows(s, s.h.in, x, padded, y);
  } else if (!rows) {
    resize_columns(s, s.w.in, x, y);
  } else if (s.columns_first()) {
    resize_columns(s, s.w.in, x, between);
    resize_rows(s, s.h.out, between, padded, y);
  } else {
    resize_rows(s, s.h.in, x, padded, between);
    resize_columns(s, s.w.out, between, y);
  }
}

}  // namespace convlet::CONVLET_ISA
