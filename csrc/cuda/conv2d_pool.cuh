// What conv2d_pool makes of the product of conv2d: rows in another order, the pixels of a pooling
// window after each other, so that a block has whole windows in shared memory when it has finished
// its tile, and writes their maxima alone.
#pragma once
#include "cuda/convolution.cuh"
#include "cuda/quads.cuh"

namespace convlet::cuda {

// Line = pixel of the convolution, window by window.
struct WindowPatches : Patches {
  Radix windows;  // of an image: rows and columns
  int window_h, window_w;

  struct Line : Patches::Line {  // `at` is its window's
    int row, column;             // in the window
  };

  CONVLET_DEVICE Line line_in(const Digits& window, int row, int column) const {
    Line line;
    static_cast<Patches::Line&>(line) =
        line_at({window.high, window.middle * window_h + row, window.low * window_w + column});
    line.at = window;
    line.row = row, line.column = column;
    return line;
  }
  CONVLET_DEVICE Line line(std::int64_t index) const {
    const std::int64_t window = divide(index, window_h * window_w);
    const int pixel = static_cast<int>(index - window * window_h * window_w);
    return line_in(windows.digits(window), pixel / window_w, pixel % window_w);
  }
  CONVLET_DEVICE Step line_step(int n) const {  // whole windows
    return windows.digits(n / (window_h * window_w));
  }
  CONVLET_DEVICE void advance_line(Line& line, const Step& step) const {
    line = line_in(windows.sum(line.at, step), line.row, line.column);
  }
};

inline WindowPatches window_patches(const Conv2dPoolShape& s, const float* x) {
  WindowPatches patches;
  static_cast<Patches&>(patches) = input_patches(s.conv, x, 0);
  patches.windows = {static_cast<int>(s.pool.P), static_cast<int>(s.pool.Q)};
  patches.window_h = static_cast<int>(s.pool.R), patches.window_w = static_cast<int>(s.pool.S);
  return patches;
}

// conv2d_pool_backward_weight.cu: the gradient of the weights for windows of four pixels, straight
// from dy and the choices.
bool multiplies_choices(const Conv2dPoolShape& shape);
bool multiplies_choices_of_first_layer(const Conv2dPoolShape& shape);
std::size_t choices_workspace(const Conv2dPoolShape& shape, Precision precision);
template <Precision precision>
void multiply_choices(Context& context, const Conv2dPoolShape& shape, const float* dy,
                      const std::uint8_t* choice, const Images& x, float* dw, void* workspace);

// Whether the kernels of first layers do all of it, so that x may be bytes.
bool serves_bytes(const Conv2dPoolShape& shape);

// The maxima of four channels of a window, and which pixels they are: the first, NaN being the
// largest.
struct Chosen {
  Quad value;
  int pixel[4];

  CONVLET_DEVICE void take(const Quad& v, int at) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const bool larger = v[k] > value[k] || scalar::is_nan(v[k]);
      if (at > 0 && (scalar::is_nan(value[k]) || !larger)) continue;
      value[k] = v[k];
      pixel[k] = at;
    }
  }
};

// y and the choices, `rows` pixels of the convolution by `columns` channels.
struct PooledResult {
  float* data;
  std::uint8_t* choice;  // may be null
  std::int64_t rows, columns;
  std::int64_t part;  // 0: the sum is not cut
  const float* bias;  // may be null
  int window;         // pixels
  bool relu;
  bool vectors;  // of four channels

  // Channels [column, column + left) of a window.
  CONVLET_DEVICE void store(std::int64_t row, std::int64_t column, Chosen chosen) const {
    const std::int64_t left = columns - column, to = row * columns + column;
    if (relu)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float v = chosen.value[k];
        chosen.value[k] = v < 0.0f ? 0.0f : v;  // NaN passes
        if (!(v > 0.0f || scalar::is_nan(v))) chosen.pixel[k] = kNoChoice;
      }
    store_quad(data + to, chosen.value, left, vectors);
    if (!choice) return;
    if (vectors) {
      *reinterpret_cast<uchar4*>(choice + to) = make_uchar4(
          static_cast<std::uint8_t>(chosen.pixel[0]), static_cast<std::uint8_t>(chosen.pixel[1]),
          static_cast<std::uint8_t>(chosen.pixel[2]), static_cast<std::uint8_t>(chosen.pixel[3]));
      return;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < left) choice[to + k] = static_cast<std::uint8_t>(chosen.pixel[k]);
  }
};

// The maxima of a finished tile (product.cuh has the same for whole results).
template <class Tile>
CONVLET_DEVICE void store_tile(const float* tile, const PooledResult& y, std::int64_t first_row,
                               std::int64_t first_column, float*, bool) {
  constexpr int kPieces = Tile::columns / 4, kAtOnce = Tile::threads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces * 4;
  const std::int64_t column = first_column + piece;
  if (column >= y.columns) return;
  const Quad bias = y.bias ? load_quad(y.bias + column, y.columns - column, false) : quad_of(0.0f);
  const std::int64_t first_window = first_row / y.window;
#pragma unroll 1
  for (int w = static_cast<int>(threadIdx.x) / kPieces; w < Tile::rows / y.window; w += kAtOnce) {
    if (first_row + w * y.window >= y.rows) return;
    Chosen chosen;
#pragma unroll 1
    for (int pixel = 0; pixel < y.window; ++pixel) {
      Quad v = load_quad(tile + (w * y.window + pixel) * Tile::pitch + piece, 4, true);
#pragma unroll
      for (int k = 0; k < 4; ++k) v[k] += bias[k];
      chosen.take(v, pixel);
    }
    y.store(first_window + w, column, chosen);
  }
}

struct PooledConvolution {
  static constexpr bool kColumnsOfAAreTerms = true;
  static constexpr bool kColumnsOfBAreTerms = false;

  WindowPatches a;
  Matrix b;
  PooledResult y;
  std::int64_t terms;

  CONVLET_DEVICE Product<WindowPatches, Matrix, PooledResult> slice(std::int64_t) const {
    return {a, b, y, terms};
  }
};

}  // namespace convlet::cuda
