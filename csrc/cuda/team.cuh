// Teams of threads that share a row: some neighbouring lanes of a warp for short rows, so that a
// warp takes several, and a whole block for long ones.
#pragma once
#include "cuda/quads.cuh"

namespace convlet::cuda {

struct Sum {
  template <class T>
  CONVLET_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <class T>
  CONVLET_DEVICE T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Smaller {
  template <class T>
  CONVLET_DEVICE T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

class Team {
 public:
  // size: a power of two up to 32, or the block's.
  CONVLET_DEVICE explicit Team(int size) : size_(size), rank_(threadIdx.x % size) {}

  CONVLET_DEVICE int size() const { return size_; }
  CONVLET_DEVICE int rank() const { return rank_; }

  // The values of all members joined, in an order that depends on the size alone; every member gets
  // it. All threads of the block must call it together.
  template <class T, class Join>
  CONVLET_DEVICE T all(T value, Join join) const {
    for (int apart = (size_ < 32 ? size_ : 32) / 2; apart > 0; apart /= 2)
      value = join(value, __shfl_xor_sync(0xffffffffu, value, apart));
    if (size_ <= 32) return value;
    CONVLET_SHARED(T, of_warp, [32]);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warp[0];
    for (int warp = 1; warp < size_ / 32; ++warp) value = join(value, of_warp[warp]);
    __syncthreads();  // the array is used again
    return value;
  }
  CONVLET_DEVICE float sum(float value) const { return all(value, Sum()); }
  // NaN may be lost.
  CONVLET_DEVICE float largest(float value) const { return all(value, Larger()); }

 private:
  int size_, rank_;
};

// How many threads share a row of `count` values, four at a time.
inline int team_size(std::int64_t count) {
  if (count > 4096) return kThreads;
  int size = 1;
  while (size < 32 && 4 * size < count) size *= 2;
  return size;
}

// row(team, n, count) for the rows n of N. A team without a row gets count 0 and must neither read
// nor write, but joins in what the warp does together.
template <class Row>
__global__ void __launch_bounds__(kThreads, 1)
    rows_kernel(std::int64_t N, std::int64_t count, int size, Row row) {
  const Team team(size);
  const int teams = kThreads / size;
  for (std::int64_t first = std::int64_t{blockIdx.x} * teams; first < N;
       first += std::int64_t{gridDim.x} * teams) {
    const std::int64_t n = first + threadIdx.x / size;
    row(team, n < N ? n : first, n < N ? count : 0);
  }
}

template <class Row>
void launch_rows(Context& context, std::int64_t N, std::int64_t count, const Row& row) {
  const int size = team_size(count);
  launch(context, rows_kernel<Row>, blocks_for(context, N, kThreads / size, 16), kThreads, 0, N,
         count, size, row);
}

// f(c, left) for the quads of a row that belong to this member.
template <class F>
CONVLET_DEVICE void for_own_quads(const Team& team, std::int64_t count, F f) {
  for (std::int64_t c = 4 * team.rank(); c < count; c += 4 * team.size()) f(c, count - c);
}

}  // namespace convlet::cuda
