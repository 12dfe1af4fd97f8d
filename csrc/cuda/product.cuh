// Products of matrices on the tensor cores: convolutions (implicit GEMM), dense layers and matmul.
//   y[m,n] = act( bias[n] + sum_k a[m,k] b[k,n] )
// A block makes one tile of y: feeds (operands.cuh) bring tiles of a and b to shared memory several
// steps ahead, and each warp multiplies its share (arithmetic.cuh). Where y is small or the sum
// long, the sum is cut into parts (product_shape.h), each with a y of its own in the workspace, and
// finish_parts adds them in their order.
#pragma once
#include "cuda/arithmetic.cuh"
#include "cuda/launch.h"
#include "cuda/operands.cuh"
#include "cuda/product_shape.h"
#include "cuda/scalar.cuh"

namespace convlet::cuda {

constexpr int kStages = 4;  // tiles of a and b in shared memory
// Where a product goes: row m at data + position of m, a pixel of a picture or a row of a matrix.
struct Result {
  float* data;
  std::int64_t rows, columns;
  Radix pixels;                    // of an image; 1 x 1 for a matrix
  std::int64_t image, row, pixel;  // elements from one to the next
  std::int64_t part;               // and from the result of one part to the next
  const float* bias;               // may be null
  Activation activation;
  bool vectors;  // every 4 columns from a multiple of 4 on are aligned, and all or none exist

  CONVLET_DEVICE std::int64_t offset(std::int64_t m) const {
    if (pixels.middle == 1 && pixels.low == 1) return m * image;
    const Digits at = pixels.digits(m);
    return at.high * image + at.middle * row + at.low * pixel;
  }
};

template <class A, class B, class Y = Result>
struct Product {
  A a;
  B b;
  Y y;
  std::int64_t terms;
};

template <int rows_, int columns_, int warp_rows_, int warp_columns_>
struct Tile {
  static constexpr int rows = rows_, columns = columns_;
  static constexpr int warp_rows = warp_rows_, warp_columns = warp_columns_;
  static constexpr int warps_across = columns / warp_columns;
  static constexpr int threads = 32 * (rows / warp_rows) * warps_across;
  static constexpr int pitch = columns + 8;  // of the result in shared memory
};
template <Precision precision>
using WideTile = Tile<128, wide_columns(precision), 32, wide_columns(precision) / 2>;
using SquareTile = Tile<64, 64, 32, 32>;
using NarrowTile = Tile<128, 32, 32, 32>;
using SmallTile = Tile<32, 32, 32, 32>;

// What a method of multiplying needs of shared memory, in floats.
template <class Method>
struct Stage {
  static constexpr int kFloats = (Method::Tile::rows + Method::Tile::columns) * Method::depth;
  static constexpr int kResult = Method::Tile::rows * Method::Tile::pitch;
  static constexpr std::size_t kBytes =
      sizeof(float) * (kStages * kFloats > kResult ? kStages * kFloats : kResult);
};

// The sums of one warp: (warp_rows / 16) x (warp_columns / 8) blocks of 16 x 8.
template <class Tile, class LayoutA, class LayoutB, Precision precision>
struct WarpSums {
  static constexpr int kRows = Tile::warp_rows / 16, kColumns = Tile::warp_columns / 8;

  const int row, column;  // of the tile, where the warp's share begins
  const int g, t;
  float sum[kRows][kColumns][4] = {};

  CONVLET_DEVICE WarpSums()
      : row(static_cast<int>(threadIdx.x) / 32 / Tile::warps_across * Tile::warp_rows),
        column(static_cast<int>(threadIdx.x) / 32 % Tile::warps_across * Tile::warp_columns),
        g(static_cast<int>(threadIdx.x) % 32 / 4),
        t(static_cast<int>(threadIdx.x) % 4) {}

  CONVLET_DEVICE void add_tile(const float* a, const float* b) {
    using Terms = Arithmetic<precision>;
    typename Terms::A rows[kRows];
    float value[4], value8[4];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      LayoutA::read(a, row + 16 * i + g, t, value);
      LayoutA::read(a, row + 16 * i + g + 8, t, value8);
      rows[i] = Terms::a(value, value8);
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      LayoutB::read(b, column + 8 * j + g, t, value);
      const typename Terms::B columns = Terms::b(value);
#pragma unroll
      for (int i = 0; i < kRows; ++i) Terms::multiply_add(sum[i][j], rows[i], columns);
    }
  }

  CONVLET_DEVICE void write(float* tile) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          *reinterpret_cast<float2*>(tile + (row + 16 * i + 8 * half + g) * Tile::pitch + column +
                                     8 * j + 2 * t) =
              make_float2(sum[i][j][2 * half], sum[i][j][2 * half + 1]);
  }
};

// Out of line: the formulas are long, and most layers have none or relu.
CONVLET_DEVICE_CALL float activated(Activation activation, float x) {
  return scalar::activate(activation, x);
}

CONVLET_DEVICE void activate_in_epilogue(Activation activation, float (&value)[4]) {
  if (activation == Activation::none) return;
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (activation == Activation::relu)
      value[j] = value[j] < 0.0f ? 0.0f : value[j];  // NaN passes
    else
      value[j] = activated(activation, value[j]);
}

// How a block multiplies its tiles: here, each warp a share of them by mma.sync.
template <class Problem, class Tile_, Precision precision>
struct ByWarps {
  using Tile = Tile_;
  static constexpr int depth = kDepth;
  using LayoutA = TileLayout<Problem::kColumnsOfAAreTerms, Tile::rows>;
  using LayoutB = TileLayout<Problem::kColumnsOfBAreTerms, Tile::columns>;
  using Sums = WarpSums<Tile, LayoutA, LayoutB, precision>;
};

// Bias, activation and the way out of shared memory, in whole lines.
template <class Tile>
CONVLET_DEVICE void store_tile(const float* tile, const Result& y, std::int64_t first_row,
                               std::int64_t first_column, float* data, bool whole) {
  constexpr int kPieces = Tile::columns / 4, kRows = Tile::threads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces * 4;
  const std::int64_t column = first_column + piece;
  if (column >= y.columns) return;
  const int count = static_cast<int>(y.columns - column < 4 ? y.columns - column : 4);
  float bias[4] = {};
  if (whole && y.bias)
#pragma unroll
    for (int j = 0; j < 4; ++j) bias[j] = j < count ? y.bias[column + j] : 0.0f;
#pragma unroll 1
  for (int r = static_cast<int>(threadIdx.x) / kPieces; r < Tile::rows; r += kRows) {
    if (first_row + r >= y.rows) return;
    const float4 sums = *reinterpret_cast<const float4*>(tile + r * Tile::pitch + piece);
    float value[4] = {sums.x + bias[0], sums.y + bias[1], sums.z + bias[2], sums.w + bias[3]};
    if (whole) activate_in_epilogue(y.activation, value);
    float* to = data + y.offset(first_row + r) + column;
    if (y.vectors) {
      *reinterpret_cast<float4*>(to) = make_float4(value[0], value[1], value[2], value[3]);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (j < count) to[j] = value[j];
    }
  }
}

template <class Problem, class Method>
CONVLET_DEVICE void multiply_block(const Problem& problem, const Cut& cut, std::int64_t block,
                                   float* shared) {
  using Tile = typename Method::Tile;
  constexpr int kTermsOfStep = Method::depth, kSizeOfA = Tile::rows * Method::depth;
  const std::int64_t across = divide(block, cut.column_tiles);
  const std::int64_t down = divide(across, cut.row_tiles), slice = divide(down, cut.parts);
  const std::int64_t first_column = (block - across * cut.column_tiles) * Tile::columns;
  const std::int64_t first_row = (across - down * cut.row_tiles) * Tile::rows;
  const std::int64_t part = down - slice * cut.parts;

  const auto product = problem.slice(slice);
  if (first_row >= product.y.rows) return;  // the phases of a gradient have different sizes
  const std::int64_t first = part * cut.part_terms;
  const std::int64_t terms =
      product.terms - first < cut.part_terms ? product.terms - first : cut.part_terms;
  const int steps = terms > 0 ? static_cast<int>((terms + kTermsOfStep - 1) / kTermsOfStep) : 0;

  Feed<decltype(product.a), typename Method::LayoutA, Tile::threads> a(product.a, first_row, first);
  Feed<decltype(product.b), typename Method::LayoutB, Tile::threads> b(product.b, first_column,
                                                                       first);
  auto stage = [&](int step) { return shared + step % kStages * Stage<Method>::kFloats; };
  auto copy = [&](int step) {
    if (step < steps) {
      a.copy(stage(step)), b.copy(stage(step) + kSizeOfA);
      a.advance(), b.advance();
    }
    copy_async_commit();
  };

  typename Method::Sums sums;
#pragma unroll 1
  for (int step = 0; step < kStages - 1; ++step) copy(step);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // this step's tiles are there, and the last step's have been read
    sums.add_tile(stage(step), stage(step) + kSizeOfA);
    copy(step + kStages - 1);
  }
  copy_async_wait<0>();
  __syncthreads();
  sums.write(shared);
  __syncthreads();
  store_tile<Tile>(shared, product.y, first_row, first_column,
                   product.y.data + part * product.y.part, cut.parts == 1);
  __syncthreads();
}

template <class Problem, class Method>
__global__ void __launch_bounds__(Method::Tile::threads, 1)
    product_kernel(const Problem problem, const Cut cut, const std::int64_t blocks) {
  CONVLET_DYNAMIC_SHARED(float, shared);
#pragma unroll 1
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x)
    multiply_block<Problem, Method>(problem, cut, block, shared);
}

template <class Method, class Problem>
void launch_blocks(Context& context, const Problem& problem, const Cut& cut) {
  constexpr std::int64_t kMostBlocks = (std::int64_t{1} << 31) - 1;
  const std::int64_t blocks = cut.blocks();
  launch(context, product_kernel<Problem, Method>,
         dim3(static_cast<unsigned>(std::min(blocks, kMostBlocks))), dim3(Method::Tile::threads),
         Stage<Method>::kBytes, problem, cut, blocks);
}

template <Precision precision, class Problem>
void launch_tiles(Context& context, const Problem& problem, const Cut& cut) {
  if (cut.tile == TileKind::wide)
    launch_blocks<ByWarps<Problem, WideTile<precision>, precision>>(context, problem, cut);
  else if (cut.tile == TileKind::square)
    launch_blocks<ByWarps<Problem, SquareTile, precision>>(context, problem, cut);
  else if (cut.tile == TileKind::narrow)
    launch_blocks<ByWarps<Problem, NarrowTile, precision>>(context, problem, cut);
  else
    launch_blocks<ByWarps<Problem, SmallTile, precision>>(context, problem, cut);
}

// y = act(bias + the sum of the parts); y is `size` values, in rows as long as bias.
void finish_parts(Context& context, std::int64_t parts, const float* partial, std::int64_t size,
                  std::int64_t columns, const float* bias, Activation activation, float* y);

// The whole product into problem.y, by way of the workspace where it is cut: run(problem) launches
// its blocks. y's rows as a whole, all slices side by side, are `width` long.
template <class Problem, class Run>
void multiply_parts(Context& context, Problem problem, const Cut& cut, std::int64_t elements,
                    std::int64_t width, void* workspace, Run&& run) {
  if (cut.parts == 1) return run(problem);
  const Result y = problem.y;
  problem.y.data = static_cast<float*>(workspace);
  problem.y.part = elements;
  problem.y.vectors = y.vectors && elements % 4 == 0;
  run(problem);
  finish_parts(context, cut.parts, static_cast<const float*>(workspace), elements, width, y.bias,
               y.activation, y.data);
}

template <Precision precision, class Problem>
void multiply(Context& context, const Problem& problem, const ProductShape& shape,
              std::int64_t width, void* workspace) {
  if (shape.elements == 0) return;
  const Cut cut = cut_product(shape, precision);
  multiply_parts(context, problem, cut, shape.elements, width, workspace,
                 [&](const Problem& p) { launch_tiles<precision>(context, p, cut); });
}

}  // namespace convlet::cuda
