// The end of a product whose sum was cut into parts: see product.cuh.
#include "cuda/product.cuh"

namespace convlet::cuda {
namespace {

constexpr int kShares = 8;  // of the parts, where there are many, each added by a thread of its own

// A block is blockDim.x elements by blockDim.y shares.
__global__ void __launch_bounds__(256)
    finish_parts_kernel(std::int64_t parts, const float* partial, std::int64_t size,
                        std::int64_t columns, const float* bias, Activation activation, float* y) {
  CONVLET_SHARED(float, shares, [kShares][32]);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * blockDim.x;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const int share = static_cast<int>(threadIdx.y), count = static_cast<int>(blockDim.y);
  for (std::int64_t start = first; start < size; start += step) {
    const std::int64_t i = start + threadIdx.x;
    float sum = 0.0f;
    if (i < size) {
      const std::int64_t end = parts * (share + 1) / count;
#pragma unroll 8
      for (std::int64_t part = parts * share / count; part < end; ++part)
        sum += partial[part * size + i];
    }
    if (count > 1) {
      __syncthreads();
      shares[share][threadIdx.x] = sum;
      __syncthreads();
      if (share == 0)
        for (int other = 1; other < count; ++other) sum += shares[other][threadIdx.x];
    }
    if (i < size && share == 0) {
      if (bias) sum += bias[i - divide(i, columns) * columns];
      y[i] = scalar::activate(activation, sum);
    }
  }
}

}  // namespace

void finish_parts(Context& context, std::int64_t parts, const float* partial, std::int64_t size,
                  std::int64_t columns, const float* bias, Activation activation, float* y) {
  const dim3 block = parts > kShares ? dim3(32, kShares) : dim3(256);
  launch(context, finish_parts_kernel, dim3(blocks_for(context, size, block.x, 32)), block, 0,
         parts, partial, size, columns, bias, activation, y);
}

}  // namespace convlet::cuda
