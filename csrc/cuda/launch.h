// Launches kernels: ordinary calls, so that g++ compiles them too. Nothing is checked here; a
// launch that failed is found by the device's next read.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "cuda/context.h"

namespace convlet::cuda {

// What a kernel may use without asking for more.
constexpr std::size_t kDefaultSharedBytes = std::size_t{48} << 10;

// kernel(arguments...) on the context's stream; nothing for an empty grid.
template <class... Parameters, class... Arguments>
void launch(Context& context, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared_bytes, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const OnGpu here;
  if (shared_bytes > kDefaultSharedBytes)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = cuda_context(context).stream();
  cudaLaunchKernelEx(&config, kernel,
                     static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

// Blocks for n items at `each` per block: enough to fill the device `waves` times, no more. The
// kernel strides over the rest. 0 for n = 0.
inline unsigned blocks_for(const Context& context, std::int64_t n, std::int64_t each,
                           int waves = 8) {
  const auto& cuda = static_cast<const CudaContext&>(context);
  const std::int64_t most = static_cast<std::int64_t>(cuda.multiprocessors()) * waves;
  return static_cast<unsigned>(std::min((n + each - 1) / each, most));
}

}  // namespace convlet::cuda
