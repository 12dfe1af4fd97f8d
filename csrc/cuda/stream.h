// Streams of other libraries.
#pragma once
#include <memory>

#include "core/device.h"
#include "cuda/gpu.cuh"

namespace convlet::cuda {

std::unique_ptr<Stream> make_stream(cudaStream_t stream, int multiprocessors);

}  // namespace convlet::cuda
