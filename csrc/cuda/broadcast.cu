// Elementwise functions of tensors that broadcast together, and copies with other steps than the
// memory's.
#include "cuda/broadcast.cuh"

namespace convlet::cuda {
namespace {

template <BinaryFunction function>
struct Binary {
  CONVLET_DEVICE float operator()(const float (&x)[2]) const {
    return scalar::apply(function, x[0], x[1]);
  }
};

template <BinaryFunction function, int side>
struct BinaryGradient {
  CONVLET_DEVICE float operator()(const float (&x)[3]) const {
    return scalar::binary_gradient(function, side, x[2], x[0], x[1]);
  }
};

struct Where {
  CONVLET_DEVICE float operator()(const float (&x)[3]) const { return x[0] == 0.0f ? x[2] : x[1]; }
};

struct Copy {
  CONVLET_DEVICE float operator()(const float (&x)[1]) const { return x[0]; }
};

// The steps of y itself.
void contiguous_steps(const BroadcastShape& s, std::int64_t* step) {
  step[s.rank - 1] = 1;
  for (int axis = s.rank - 1; axis > 0; --axis) step[axis - 1] = step[axis] * s.size[axis];
}

// A copy that transposes y's last axis with the axis along which x is contiguous, in square tiles
// that pass through shared memory: both sides are read and written along their rows.
struct Transposition {
  BroadcastShape s;
  std::int64_t y_step[Shape::kMaxRank];
  int axis;  // x steps by one along it
  std::int64_t row_tiles, column_tiles;
};

constexpr int kTile = 32, kTileRows = kThreads / kTile;

__global__ void __launch_bounds__(kThreads)
    transpose_kernel(std::int64_t tiles, Transposition t, const float* x, float* y) {
  CONVLET_SHARED(float, tile, [kTile][kTile + 1]);
  const int last = t.s.rank - 1, lane = threadIdx.x % kTile, first = threadIdx.x / kTile;
  const std::int64_t from_step = t.s.step[0][last], to_step = t.y_step[t.axis];
  for (std::int64_t item = blockIdx.x; item < tiles; item += gridDim.x) {
    std::int64_t index = item;
    const std::int64_t column = kTile * take_coordinate(index, t.column_tiles);
    const std::int64_t row = kTile * take_coordinate(index, t.row_tiles);
    const float* from = x + row + column * from_step;
    float* to = y + column + row * to_step;
    for (int axis = last - 1; axis >= 0; --axis) {
      if (axis == t.axis) continue;
      const std::int64_t i = take_coordinate(index, t.s.size[axis]);
      from += i * t.s.step[0][axis];
      to += i * t.y_step[axis];
    }
    const std::int64_t rows = t.s.size[t.axis] - row, columns = t.s.size[last] - column;
#pragma unroll
    for (int j = first; j < kTile; j += kTileRows)
      if (j < columns && lane < rows) tile[j][lane] = from[j * from_step + lane];
    __syncthreads();
#pragma unroll
    for (int i = first; i < kTile; i += kTileRows)
      if (i < rows && lane < columns) to[i * to_step + lane] = tile[lane][i];
    __syncthreads();
  }
}

void copy_transposed(Context& context, const BroadcastShape& s, int axis, const float* x,
                     float* y) {
  Transposition t = {s, {}, axis, 0, 0};
  contiguous_steps(s, t.y_step);
  const std::int64_t rows = s.size[axis], columns = s.size[s.rank - 1];
  t.row_tiles = (rows + kTile - 1) / kTile;
  t.column_tiles = (columns + kTile - 1) / kTile;
  const std::int64_t tiles = s.elements / (rows * columns) * t.row_tiles * t.column_tiles;
  launch(context, transpose_kernel, blocks_for(context, tiles, 1), kThreads, 0, tiles, t, x, y);
}

// An item is a quad of a row.
__global__ void __launch_bounds__(kThreads)
    one_hot_kernel(std::int64_t items, std::int64_t classes, bool wide, const float* x, float* y) {
  const std::int64_t quads = (classes + 3) / 4;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t n = item;
    const std::int64_t first = 4 * take_coordinate(n, quads);
    const float label = x[n];
    // As a whole number; -1 where it is none.
    const bool in_range = label >= 0.0f && label < static_cast<float>(classes);
    std::int64_t position = in_range ? static_cast<std::int64_t>(label) : -1;
    if (static_cast<float>(position) != label) position = -1;
    Quad q;
    for (int k = 0; k < 4; ++k) q[k] = first + k == position ? 1.0f : 0.0f;
    store_quad(y + n * classes + first, q, classes - first, wide);
  }
}

}  // namespace

void binary(Context& context, const BroadcastShape& s, BinaryFunction function, const float* a,
            const float* b, float* y) {
  scalar::with_value<BinaryFunction, kLastBinaryFunction>(function, [&](auto constant) {
    broadcast_transform(context, s, {a, b}, y, Binary<decltype(constant)::value>());
  });
}

void binary_backward(Context& context, const BroadcastShape& shape, BinaryFunction function,
                     int side, const float* dy, const float* a, const float* b, float* d) {
  BroadcastShape s = shape;
  contiguous_steps(s, s.step[2]);
  scalar::with_value<BinaryFunction, kLastBinaryFunction>(function, [&](auto constant) {
    constexpr BinaryFunction f = decltype(constant)::value;
    if (side == 0)
      broadcast_transform(context, s, {a, b, dy}, d, BinaryGradient<f, 0>());
    else
      broadcast_transform(context, s, {a, b, dy}, d, BinaryGradient<f, 1>());
  });
}

void where(Context& context, const BroadcastShape& s, const float* condition, const float* a,
           const float* b, float* y) {
  broadcast_transform(context, s, {condition, a, b}, y, Where());
}

void strided_copy(Context& context, const BroadcastShape& s, const float* x, float* y) {
  if (s.elements == 0) return;
  if (s.step[0][s.rank - 1] > 1)
    for (int axis = 0; axis < s.rank - 1; ++axis)
      if (s.step[0][axis] == 1) return copy_transposed(context, s, axis, x, y);
  broadcast_transform(context, s, {x}, y, Copy());
}

void one_hot(Context& context, std::int64_t rows, std::int64_t classes, const float* x, float* y) {
  launch_items(context, one_hot_kernel, rows * quads_of(classes), classes, wide_rows(classes, y), x,
               y);
}

}  // namespace convlet::cuda
