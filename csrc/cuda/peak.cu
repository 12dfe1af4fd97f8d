// Not an op: multiply-adds in registers alone, the ceiling that benchmarks compare kernels with.
#include "cuda/quads.cuh"

namespace convlet::cuda {
namespace {

constexpr int kChains = 8, kRounds = 2500, kBlocksEach = 2;  // blocks of a multiprocessor

// Independent chains from values that the compiler does not know; the result is used, so nothing is
// left out.
__global__ void __launch_bounds__(kThreads)
    fma_kernel(std::int64_t count, float start, float unreachable, float* out) {
  float sum[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum[i] = start + static_cast<float>(i);
  for (std::int64_t round = 0; round < count * kRounds; ++round)
#pragma unroll
    for (int i = 0; i < kChains; ++i) sum[i] = fmaf(sum[i], 0.5f, 1.0f);
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kChains; ++i) total += sum[i];
  if (total == unreachable) *out = total;
}

}  // namespace

// Returns when the work has been queued.
double fma_peak(Context& context, std::int64_t count) {
  const int blocks = kBlocksEach * cuda_context(context).multiprocessors();
  launch(context, fma_kernel, static_cast<unsigned>(blocks), kThreads, 0, count, 1.0f, -1.0f,
         static_cast<float*>(nullptr));
  return 2.0 * kChains * kRounds * kThreads * static_cast<double>(blocks * count);
}

}  // namespace convlet::cuda
