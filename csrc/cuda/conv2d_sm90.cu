// conv2d and its gradient with respect to the input in bfloat16 on sm_90a, where both have many
// channels. The factors are rounded to bfloat16 in the workspace first, channels padded with zeros
// to a multiple of 8, so that a pair of them is a float to the feeds of operands.cuh; then
// warpgroups multiply them where they lie in shared memory.
#include "cuda/input_gradient.cuh"
#include "cuda/ptx_sm90.cuh"
#include "cuda/sm90.h"

namespace convlet::cuda::sm90 {
namespace {

constexpr int kThreads = 256;
constexpr int kPiece = 8;  // channels that a thread rounds

std::int64_t padded(std::int64_t channels) {
  return ceil_div(channels, kPiece) * kPiece;
}

CONVLET_DEVICE std::uint32_t rounded_pair(float low, float high) {
  return Arithmetic<Precision::bfloat16>::pair(low, high);
}

// to[line * lines_apart + row * rows_apart + c] = from[(row * columns + c) * lines + line],
// rounded; columns that `from` lacks are 0. With one line: rows of values, otherwise transposed
// ones.
__global__ void __launch_bounds__(kThreads)
    round_kernel(const float* from, std::int64_t rows, std::int64_t columns, std::int64_t lines,
                 std::int64_t lines_apart, std::int64_t rows_apart, uint4* to) {
  const std::int64_t pieces = rows_apart / kPiece, count = rows * pieces * lines;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const std::int64_t at = divide(i, lines), line = i - at * lines;
    const std::int64_t row = divide(at, pieces), column = (at - row * pieces) * kPiece;
    float value[kPiece];
#pragma unroll
    for (int j = 0; j < kPiece; ++j)
      value[j] = column + j < columns ? from[(row * columns + column + j) * lines + line] : 0.0f;
    to[(line * lines_apart + row * rows_apart + column) / kPiece] =
        make_uint4(rounded_pair(value[0], value[1]), rounded_pair(value[2], value[3]),
                   rounded_pair(value[4], value[5]), rounded_pair(value[6], value[7]));
  }
}

void round_rows(Context& context, const float* from, std::int64_t rows, std::int64_t columns,
                void* to) {
  const std::int64_t pieces = rows * padded(columns) / kPiece;
  launch(context, round_kernel, dim3(blocks_for(context, pieces, kThreads, 32)), dim3(kThreads), 0,
         from, rows, columns, std::int64_t{1}, std::int64_t{0}, padded(columns),
         static_cast<uint4*>(to));
}

// Rows of 32 pairs, with a swizzle of 128 bytes.
struct SwizzledLayout {
  static constexpr bool kColumnsAreTerms = true;
  static constexpr int kLines = 128, kColumns = 32;
  CONVLET_DEVICE static int offset(int line, int column) {
    return line * kColumns + (column ^ (line % 8 * 4));
  }
};

// Two warpgroups of 64 rows each.
struct WarpgroupTile {
  static constexpr int rows = 128, columns = 128, threads = 256, pitch = columns + 8;
};

struct WarpgroupSums {
  float sum[64] = {};

  CONVLET_DEVICE void finish_tile() {
    wgmma_wait<0>(sum);
    fence_async_proxy();
  }
  CONVLET_DEVICE void add_tile(const float* a, const float* b) {
    const float* rows = a + static_cast<int>(threadIdx.x) / 128 * 64 * SwizzledLayout::kColumns;
    auto matrix = [](const float* first) {
      return wgmma_matrix(first, Swizzle::span_128, 0, 1024);
    };
    wgmma_fence(sum);
#pragma unroll
    for (int k = 0; k < SwizzledLayout::kColumns; k += 8)
      wgmma<false, false>(sum, matrix(rows + k), matrix(b + k));
    wgmma_commit();
  }
  CONVLET_DEVICE void write(float* tile) const {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    float* to = tile + (warp * 16 + lane / 4) * WarpgroupTile::pitch + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < 64; j += 4) {
      *reinterpret_cast<float2*>(to + 2 * j) = make_float2(sum[j], sum[j + 1]);
      *reinterpret_cast<float2*>(to + 8 * WarpgroupTile::pitch + 2 * j) =
          make_float2(sum[j + 2], sum[j + 3]);
    }
  }
};

struct ByWarpgroups {
  using Tile = WarpgroupTile;
  static constexpr int depth = SwizzledLayout::kColumns;
  static constexpr int alignment = 1024;
  using LayoutA = SwizzledLayout;
  using LayoutB = SwizzledLayout;
  using Sums = WarpgroupSums;
};

// A product of pairs of values, and the workspace that it takes.
struct Work {
  Conv2dShape shape;  // with as many channels in the sums as there are pairs
  ProductShape product;
  Cut cut;
  char *image, *weight;  // rounded: x or dy, and w
  void* parts;
  std::size_t bytes;
};

Work make_work(const Conv2dShape& s, Pass pass, void* memory) {
  const bool forward = pass == Pass::forward;
  Work work;
  work.shape = s;
  (forward ? work.shape.C : work.shape.K) = padded(forward ? s.C : s.K) / 2;
  work.product = forward ? forward_product(work.shape, 1) : backward_input_product(work.shape, 1);
  ProductShape values = work.product;
  values.terms *= 2;
  work.cut = cut_into(values, TileKind::wide, WarpgroupTile::rows, WarpgroupTile::columns);
  work.cut.part_terms /= 2;

  char* next = static_cast<char*>(memory);
  auto take = [&](std::int64_t floats) {
    char* taken = next;
    next += ceil_div(floats * static_cast<std::int64_t>(sizeof(float)), 256) * 256;
    return taken;
  };
  const Conv2dShape& pairs = work.shape;
  work.image =
      take(forward ? pairs.N * pairs.H * pairs.W * pairs.C : pairs.N * pairs.P * pairs.Q * pairs.K);
  work.weight = take(pairs.R * pairs.S * pairs.C * pairs.K);
  work.parts = take(work.cut.parts > 1 ? work.cut.parts * work.product.elements : 0);
  work.bytes = static_cast<std::size_t>(next - static_cast<char*>(memory));
  return work;
}

const float* pairs_at(const char* memory) {
  return reinterpret_cast<const float*>(memory);
}

template <class Problem>
void multiply_by_warpgroups(Context& context, const Problem& problem, const Work& work,
                            std::int64_t width) {
  multiply_parts(context, problem, work.cut, work.product.elements, width, work.parts,
                 [&](const Problem& p) { launch_blocks<ByWarpgroups>(context, p, work.cut); });
}

// Fewer channels are bound by memory, and rounding them first only adds to that.
bool has_many_channels(const Conv2dShape& s) {
  return s.groups == 1 && s.C >= 64 && s.K >= 64 && !is_direct(s);
}

}  // namespace

std::size_t conv2d_workspace(const Conv2dShape& s, Pass pass, int threads) {
  if (pass == Pass::backward_weight || !has_many_channels(s))
    return cuda::conv2d_workspace<Precision::bfloat16>(s, pass, threads);
  return make_work(s, pass, nullptr).bytes;
}

void conv2d(Context& context, const Conv2dShape& s, const float* x, const float* w,
            const float* bias, Activation activation, float* y, void* workspace) {
  if (!has_many_channels(s))
    return cuda::conv2d<Precision::bfloat16>(context, s, x, w, bias, activation, y, workspace);
  if (s.N == 0) return;
  const Work work = make_work(s, Pass::forward, workspace);
  const std::int64_t C = padded(s.C), terms = work.product.terms;
  round_rows(context, x, s.N * s.H * s.W, s.C, work.image);
  // A line of all terms for each output channel.
  launch(context, round_kernel,
         dim3(blocks_for(context, s.R * s.S * C / kPiece * s.K, kThreads, 32)), dim3(kThreads), 0,
         w, s.R * s.S, s.C, s.K, 2 * terms, C, reinterpret_cast<uint4*>(work.weight));

  Slices<Patches, Matrix, true, true> problem = {};
  problem.a = input_patches(work.shape, pairs_at(work.image), 0);
  problem.b = matrix(pairs_at(work.weight), s.K, terms, terms, 0);
  problem.y = matrix_result(y, work.product.rows, s.K, s.K, 0);
  problem.y.bias = bias;
  problem.y.activation = activation;
  problem.terms = terms;
  multiply_by_warpgroups(context, problem, work, s.K);
}

void conv2d_backward_input(Context& context, const Conv2dShape& s, const float* dy, const float* w,
                           float* dx, void* workspace) {
  if (!has_many_channels(s))
    return cuda::conv2d_backward_input<Precision::bfloat16>(context, s, dy, w, dx, workspace);
  if (s.N == 0) return;
  const Work work = make_work(s, Pass::backward_input, workspace);
  round_rows(context, dy, s.N * s.P * s.Q, s.K, work.image);
  round_rows(context, w, s.R * s.S * s.C, s.K, work.weight);
  multiply_by_warpgroups(
      context, input_gradient(work.shape, kAlone, pairs_at(work.image), pairs_at(work.weight), dx),
      work, s.C);
}

}  // namespace convlet::cuda::sm90
