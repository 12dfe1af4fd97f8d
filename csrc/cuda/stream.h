// Streams of other libraries.
#pragma once
#include <memory>

#include "core/device.h"
#include "cuda/gpu.cuh"

namespace convlet::cuda {

// The GPU that this backend uses: the first that CUDA shows (CUDA_VISIBLE_DEVICES chooses it).
constexpr int kDevice = 0;

std::unique_ptr<Stream> make_stream(cudaStream_t stream, int multiprocessors);

}  // namespace convlet::cuda
