// Products of matrices of bfloat16 by the copy engine and the tensor cores of sm_90a. One warp of a
// block starts copies of boxes into a ring of stages, two warpgroups multiply what has come; full
// and empty stages are told by mbarriers. A block makes one tile after the other of 128 rows of y:
// copies of the next begin while the last is being written.
//
// A problem says where the factors are and where the rows of y go:
//   kTransposedA, kTransposedB   whether a line of the factor in shared memory is a term
//   place(row_tile, column)            what the copies of a tile have in common
//   copy(place, step, a, b, mbarrier)  starts the copies of one step
//   rows(unit)                         which rows of y the 64 of a warpgroup are
//   y                                  where they go
#pragma once
#include "cuda/product.cuh"
#include "cuda/ptx_sm90.cuh"

namespace convlet::cuda::sm90 {

constexpr int kStepTerms = 64;  // a line of 128 bytes
constexpr int kUnit = 64;       // rows of a warpgroup
constexpr int kTileRows = 2 * kUnit;
constexpr int kConsumers = 256;  // threads that multiply
constexpr int kThreads = kConsumers + 32;
constexpr int kAtom = 1024;               // bytes: 8 lines, the unit of the swizzle
constexpr int kSquare = 64 * kStepTerms;  // values of 64 lines

template <int columns>
struct Ring {
  static constexpr int kValues = (kTileRows + columns) * kStepTerms;  // of a stage
  static constexpr int kBytes = kValues * static_cast<int>(sizeof(__nv_bfloat16));
  static constexpr int kStages = (192 << 10) / kBytes;
  static constexpr std::size_t kShared = kStages * kBytes + kAtom;

  int stage = 0, parity = 0;
  CONVLET_DEVICE void advance() {
    if (++stage < kStages) return;
    stage = 0, parity ^= 1;
  }
};

// Rows first to first + count - 1 of y; the others of the 64 are not there.
struct RowRange {
  std::int64_t first;
  int count;
};

// What a block does next.
struct TileOfBlock {
  int row_tile, column_tile, part, first_step, steps;

  CONVLET_DEVICE TileOfBlock(const Cut& cut, int all_steps, int block) {
    const int columns = static_cast<int>(cut.column_tiles), rows = static_cast<int>(cut.row_tiles);
    const int across = block / columns, most = static_cast<int>(cut.part_terms) / kStepTerms;
    part = across / rows;
    column_tile = block - across * columns;
    row_tile = across - part * rows;
    first_step = part * most;
    const int left = all_steps - first_step;
    steps = left < most ? (left > 0 ? left : 0) : most;
  }
};

// 16 terms from 16 * k on of the lines of a tile; transposed, a line is a term and the next 64 rows
// or columns follow after the 64 lines.
template <bool transposed>
CONVLET_DEVICE std::uint64_t factor(const __nv_bfloat16* tile, int k) {
  return transposed ? wgmma_matrix(tile + k * 16 * 64, Swizzle::span_128, 2 * kSquare, kAtom)
                    : wgmma_matrix(tile + k * 16, Swizzle::span_128, 0, kAtom);
}

template <class Problem, int columns>
CONVLET_DEVICE void produce(const Problem& problem, const Cut& cut, int blocks, int steps,
                            __nv_bfloat16* stages, std::uint64_t* full, std::uint64_t* empty) {
  using R = Ring<columns>;
  R ring;
#pragma unroll 1
  for (int block = static_cast<int>(blockIdx.x); block < blocks;
       block += static_cast<int>(gridDim.x)) {
    const TileOfBlock tile(cut, steps, block);
    const auto place = problem.place(tile.row_tile, tile.column_tile * columns);
#pragma unroll 1
    for (int step = 0; step < tile.steps; ++step, ring.advance()) {
      __nv_bfloat16* a = stages + ring.stage * R::kValues;
      mbarrier_wait_or_fail(&empty[ring.stage], ring.parity ^ 1);
      mbarrier_arrive_expect(&full[ring.stage], R::kBytes);
      problem.template copy<columns>(place, tile.first_step + step, a, a + kTileRows * kStepTerms,
                                     &full[ring.stage]);
    }
  }
  // Nobody else would notice that a copy never comes: the GPU would be held for good.
#pragma unroll 1
  for (int i = 0; i < R::kStages; ++i, ring.advance())
    mbarrier_wait_or_fail(&empty[ring.stage], ring.parity ^ 1);
}

// The sums of a thread: with g = lane / 4 and t = lane % 4, sum[4j to 4j+3] are of rows g, g, g+8,
// g+8 of its warp's 16 and of columns 8j+2t, 8j+2t+1.
template <int count>
CONVLET_DEVICE void store_sums(const float (&sum)[count], const Result& y, const RowRange& rows,
                               int first_column, float* data, bool whole) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(threadIdx.x) / 32 % 4 * 16 + lane / 4;
  const int column = first_column + lane % 4 * 2, columns = static_cast<int>(y.columns);
  const bool relu = whole && y.activation == Activation::relu;
  float* to[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    to[half] = row + 8 * half < rows.count ? data + y.offset(rows.first + row + 8 * half) : nullptr;
#pragma unroll
  for (int j = 0; j < count / 4; ++j) {
    const int c = column + 8 * j;
    if (c >= columns) return;
    const bool both = c + 1 < columns;
    float bias[2] = {};
    if (whole && y.bias) bias[0] = y.bias[c], bias[1] = both ? y.bias[c + 1] : 0.0f;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!to[half]) continue;
      float value[2] = {sum[4 * j + 2 * half] + bias[0], sum[4 * j + 2 * half + 1] + bias[1]};
      if (relu)
#pragma unroll
        for (float& v : value) v = v < 0.0f ? 0.0f : v;  // NaN passes
      if (y.vectors) {
        *reinterpret_cast<float2*>(to[half] + c) = make_float2(value[0], value[1]);
      } else {
        to[half][c] = value[0];
        if (both) to[half][c + 1] = value[1];
      }
    }
  }
}

template <class Problem, int columns>
CONVLET_DEVICE void consume(const Problem& problem, const Cut& cut, int blocks, int steps,
                            const __nv_bfloat16* stages, std::uint64_t* full,
                            std::uint64_t* empty) {
  using R = Ring<columns>;
  R ring;
  const int group = static_cast<int>(threadIdx.x) / 128;
  auto give_back = [&](int stage) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&empty[stage]);
  };
#pragma unroll 1
  for (int block = static_cast<int>(blockIdx.x); block < blocks;
       block += static_cast<int>(gridDim.x)) {
    const TileOfBlock tile(cut, steps, block);
    float sum[columns / 2];
#pragma unroll
    for (int i = 0; i < columns / 2; ++i) sum[i] = 0.0f;
    int last = -1;
#pragma unroll 1
    for (int step = 0; step < tile.steps; ++step, ring.advance()) {
      const __nv_bfloat16* a = stages + ring.stage * R::kValues;
      const __nv_bfloat16* b = a + kTileRows * kStepTerms;
      mbarrier_wait(&full[ring.stage], ring.parity);
      wgmma_fence(sum);
#pragma unroll
      for (int k = 0; k < kStepTerms / 16; ++k)
        wgmma<Problem::kTransposedA, Problem::kTransposedB>(
            sum, factor<Problem::kTransposedA>(a + group * kSquare, k),
            factor<Problem::kTransposedB>(b, k));
      wgmma_commit();
      wgmma_wait<1>(sum);  // the step before
      if (last >= 0) give_back(last);
      last = ring.stage;
    }
    wgmma_wait<0>(sum);
    if (last >= 0) give_back(last);
    const Result& y = problem.y;
    store_sums(sum, y, problem.rows(2 * tile.row_tile + group), tile.column_tile * columns,
               y.data + tile.part * y.part, cut.parts == 1);
    __syncwarp();  // the next products take a warp that is together
  }
}

template <class Problem, int columns>
__global__ void __launch_bounds__(kThreads, 1)
    product_kernel(const __grid_constant__ Problem problem, const Cut cut, const int blocks,
                   const int steps) {
  using R = Ring<columns>;
  CONVLET_SHARED(std::uint64_t, full, [R::kStages]);
  CONVLET_SHARED(std::uint64_t, empty, [R::kStages]);
  CONVLET_DYNAMIC_SHARED(unsigned char, memory);
  const auto past = reinterpret_cast<std::uintptr_t>(memory) % kAtom;
  auto* stages = reinterpret_cast<__nv_bfloat16*>(memory + (kAtom - past) % kAtom);
  if (threadIdx.x == 0) {
    for (int i = 0; i < R::kStages; ++i) {
      mbarrier_init(&full[i], 1);
      mbarrier_init(&empty[i], kConsumers / 32);
    }
    mbarrier_fence_init();
  }
  __syncthreads();
  if (threadIdx.x < kConsumers)
    consume<Problem, columns>(problem, cut, blocks, steps, stages, full, empty);
  else if (threadIdx.x == kConsumers)
    produce<Problem, columns>(problem, cut, blocks, steps, stages, full, empty);
}

// `steps` of 64 terms for all rows and columns; `cut` is into less than 2^31 tiles of 128 x
// columns.
template <class Problem>
void launch_product(Context& context, const Problem& problem, const Cut& cut, int columns,
                    int steps) {
  auto run = [&](auto constant) {
    constexpr int kColumns = decltype(constant)::value;
    launch(context, product_kernel<Problem, kColumns>,
           dim3(blocks_for(context, cut.blocks(), 1, 1)), dim3(kThreads), Ring<kColumns>::kShared,
           problem, cut, static_cast<int>(cut.blocks()), steps);
  };
  if (columns == 64)
    run(std::integral_constant<int, 64>());
  else if (columns == 128)
    run(std::integral_constant<int, 128>());
  else
    run(std::integral_constant<int, 256>());
}

}  // namespace convlet::cuda::sm90
